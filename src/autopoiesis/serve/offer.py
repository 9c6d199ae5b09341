"""A request as routers see it: what is offered to one of the replicas that could take it."""

from __future__ import annotations


class Offer:
    """One request at the gateway. The numbers are those of `policy.Request`, and never its text."""

    __slots__ = (
        "arrived", "blocks", "cached", "class_index", "model", "phase", "prefix_key", "prompt_tokens", "sequence",
        "tpot_slo_s", "ttft_slo_s",
    )  # fmt: skip

    def __init__(
        self,
        model: float,
        class_index: int,
        prompt_tokens: int,
        *,
        ttft_slo_s: float,
        tpot_slo_s: float,
        arrived: float,
        sequence: int,
        phase: float = 0.0,
        prefix_key: float = -1.0,
        blocks: tuple[int, ...] = (),
    ) -> None:
        self.model = model
        self.class_index = class_index
        self.prompt_tokens = prompt_tokens
        self.phase = phase
        self.prefix_key = prefix_key
        self.ttft_slo_s = ttft_slo_s
        self.tpot_slo_s = tpot_slo_s
        self.arrived = arrived
        """By `time.monotonic`."""
        self.sequence = sequence
        """Counts the requests of the gateway from 0."""
        self.blocks = blocks
        """Of its prompt, as `prefixes.blocks` gives them; empty where the router needs none."""
        self.cached: list[int] = []
        """Prompt tokens that each of the replicas offered is believed to have cached; empty where none has any."""
