"""Loads on any OpenAI-compatible endpoint: what came of them, and what the simulator says of the same requests."""

from autopoiesis.bench.load.arrivals import Lengths, cut, steady, stretched
from autopoiesis.bench.load.endpoint import Endpoint, Kind
from autopoiesis.bench.load.load import Result, Settings, send
from autopoiesis.bench.load.messages import Asking
from autopoiesis.bench.load.outcomes import Figures, Outcomes, Served, figures
from autopoiesis.bench.load.prediction import Fleet, predict
from autopoiesis.bench.load.replay import Replay

__all__ = [
    "Asking",
    "Endpoint",
    "Figures",
    "Fleet",
    "Kind",
    "Lengths",
    "Outcomes",
    "Replay",
    "Result",
    "Served",
    "Settings",
    "cut",
    "figures",
    "predict",
    "send",
    "steady",
    "stretched",
]
