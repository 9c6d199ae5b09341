"""Random numbers of a generated load: one stream for each thing that is drawn."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, slots=True)
class Streams:
    """Independent streams, so that another way of drawing lengths leaves the arrivals as they were."""

    rate: np.random.Generator
    surges: np.random.Generator
    clients: np.random.Generator
    arrivals: np.random.Generator
    mix: np.random.Generator
    lengths: np.random.Generator
    sessions: np.random.Generator


def streams(preset: str, seed: int) -> Streams:
    """The streams of a preset and a seed (0 or more); those of different presets have nothing in common."""
    root = np.random.SeedSequence([seed, zlib.crc32(preset.encode())])
    return Streams(*(np.random.default_rng(child) for child in root.spawn(len(fields(Streams)))))
