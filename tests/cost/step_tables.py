"""Measured steps of GPUs that we make up: a table whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel, Efficiencies

HARDWARE = Hardware(catalog.gpus(), catalog.models())
SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
HEADER = "system,backend_version,model,dtype,tp,kind,batch,isl,osl_or_ctx,prefill_tokens,decode_seqs,latency_ms"

TRUTH = Efficiencies(
    linear=0.75,
    elementwise=0.4,
    attention=0.5,
    weights=0.9,
    kv=0.7,
    all_reduce=0.5,
    layer_s=60e-6,
    prefill_layer_s=40e-6,
    all_reduce_s=15e-6,
    sequence_layer_s=1e-7,
)
SHAPES = ((SMALL, 1), (SMALL, 2), (SMALL, 4), (LARGE, 2), (LARGE, 4))
KINDS = ("prefill_step", "decode_step", "mixed_step")


def table(
    truth: Efficiencies = TRUTH,
    shapes: Iterable[tuple[str, int]] = SHAPES,
    kinds: Iterable[str] = KINDS,
    system: str = "h100_sxm",
    noise: float = 0.0,
    seed: int = 0,
) -> str:
    """CSV of the steps that a GPU with the efficiencies `truth` takes; `noise` is the σ of a lognormal factor."""
    rng = np.random.default_rng(seed)
    cost = CostModel(HARDWARE, measured=(), efficiencies={system.removesuffix("_sxm"): truth})
    lines = [HEADER]
    for model, tp in shapes:
        times = cost.steps(model, system.removesuffix("_sxm"), tp, 1, 2)
        for kind in kinds:
            for batch, isl, context, prompt, sequences in _steps(kind):
                attention = prompt * (isl or 0)
                held = sequences * (context if kind == "decode_step" else (isl or 0) + context / 2)
                seconds = times.step_s(prompt, attention, sequences, held) * float(rng.lognormal(0.0, noise))
                cells = (system, "1.0", model, "bf16", tp, kind, batch, isl or "", context or "", prompt, sequences)
                lines.append(",".join(map(str, cells)) + f",{1e3 * seconds:.6f}")
    return "\n".join(lines) + "\n"


def _steps(kind: str) -> Iterator[tuple[int, int | None, int, int, int]]:
    """batch, isl, osl_or_ctx, prefill_tokens, decode_seqs"""
    if kind == "prefill_step":
        yield from ((batch, isl, 0, batch * isl, 0) for batch in (1, 4) for isl in (128, 1024, 8192))
    elif kind == "decode_step":
        yield from ((n, None, context, 0, n) for n in (1, 16, 128) for context in (128, 2048, 8192))
    else:
        yield from ((n + 1, isl, 256, 2048, n) for n in (1, 32, 128) for isl in (1024, 4096))
