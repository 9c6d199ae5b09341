"""Loads with the statistics of recorded ones: presets as data, and what draws from them."""

from autopoiesis.workload.presets.generate import cut_to_context, generate
from autopoiesis.workload.presets.specification import Preset, names, preset

__all__ = ["Preset", "cut_to_context", "generate", "names", "preset"]
