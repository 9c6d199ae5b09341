"""Many clients at once, drawn from a seed, against one gateway, in rounds; after each, everything must be as before."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile import bodies, evil, framing, good, manners
from hostile.acts import ACTS, Act
from hostile.engine import Engine, answer_well
from hostile.replies import Violation
from hostile.talk import Target, chat

FAMILIES = (good, bodies, framing, manners)
AT_ONCE = 256
"""Clients."""
ROUND = 1_000
"""Clients, in a long siege; a short one has six rounds."""
CALM_S = 20.0
KEY = b"hostile-key"
GAUGES = ("replica_in_flight", "replica_in_flight_prompt_tokens", "key_in_flight", "queued_requests")


@dataclass
class Outcome:
    """What a siege has come to."""

    clients: int = 0
    requests: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    by_act: Counter[str] = field(default_factory=Counter)
    statuses: dict[int, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    lag_s: float = 0.0
    """Longest time for which the clients themselves stood still; limits of time mean little below it."""
    rss_bytes: list[int] = field(default_factory=list)
    """Of the gateway, after each round."""

    @property
    def growth(self) -> float:
        """What is resident at the end over what was after a third, less 1."""
        return self.rss_bytes[-1] / self.rss_bytes[len(self.rss_bytes) // 3] - 1

    def lines(self) -> list[str]:
        """To be quoted."""
        mib = [size / 2**20 for size in self.rss_bytes]
        refused = sum(count for status, count in self.statuses.items() if status >= 400)
        return [
            f"clients {self.clients}, requests {self.requests}, replies {sum(self.statuses.values())}, "
            f"of them errors {refused}",
            f"seconds {self.seconds:.1f}, CPU of the gateway {self.cpu_s:.1f} s, clients stood still for at most "
            f"{self.lag_s:.2f} s",
            f"RSS {mib[0]:.1f} MiB after the first round, {mib[len(mib) // 3]:.1f} after a third, {mib[-1]:.1f} at the "
            f"end, at most {max(mib):.1f}; growth {100 * self.growth:+.1f} %",
            "RSS after each round, MiB: " + " ".join(f"{size:.1f}" for size in mib),
            "replies by status: " + ", ".join(f"{status}: {n}" for status, n in sorted(self.statuses.items())),
            f"violations {len(self.violations)}",
        ]


class Siege:
    """Two engines, and what is thrown at the gateway before them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.good = Engine("good", {"well": answer_well}, random.Random(seed + 1))
        self.evil = Engine("evil", evil.answers(), random.Random(seed + 2))
        self._busy: Counter[str] = Counter()

    async def start(self) -> None:
        for engine in (self.good, self.evil):
            await engine.start()

    def config(self) -> dict[str, Any]:
        """Of a gateway before them, with small time limits, so that a siege is short; no engine is ever left out."""
        return {
            "listen": {"port": 0, "drain_s": 2.0},
            "admin": {"port": 0},
            "models": [{"name": "good", "aliases": ["best"]}, {"name": "evil"}, {"name": "dead"}],
            "replicas": [
                {"id": "good", "url": self.good.url, "model": "good"},
                {"id": "evil", "url": self.evil.url, "model": "evil"},
                {"id": "dead", "url": "http://127.0.0.1:1", "model": "dead"},
            ],
            "keys": [{"name": "hostile", "sha256": hashlib.sha256(KEY).hexdigest()}],
            "limits": {
                "header_timeout_s": 1.5, "body_timeout_s": 2.0, "idle_timeout_s": 1.5, "write_timeout_s": 1.0,
                "request_timeout_s": 10.0,
            },
            "queue": {"max_wait_s": 0.5},
            "health": {"failures": 1000, "max_ejected": 0.0, "interval_s": 0.5},
        }  # fmt: skip

    async def ready(self, port: int) -> None:
        """Wait until the gateway has found the engines well."""
        deadline = time.monotonic() + CALM_S
        for body in (chat(b"t@0@"), chat(b"t@0@", do="well")):
            while True:
                async with Target(port, KEY, self.rng).talk() as talk:
                    talk.tag = b""
                    if (await talk.ask(json.dumps(body).encode())).status == 200:
                        break
                if time.monotonic() > deadline:
                    raise Violation("the gateway does not become ready")

    async def run(self, port: int, admin: int, pid: int, clients: int, alive: Callable[[], bool]) -> Outcome:
        """Throw so many clients at the gateway that has this process id."""
        outcome = Outcome()
        target = Target(port, KEY, self.rng)
        started, cpu_s = time.monotonic(), _cpu_s(pid)
        watch = asyncio.create_task(_watch(outcome))
        rounds = max(6, clients // ROUND)
        for number in range(rounds):
            await self._round(target, clients * (number + 1) // rounds - clients * number // rounds, outcome)
            if not alive():
                outcome.violations.append("the gateway has ended")
                break
            outcome.violations += await self._calm(port, admin)
            outcome.rss_bytes.append(_rss(pid))
        watch.cancel()
        outcome.clients, outcome.requests, outcome.statuses = clients, target.requests, target.statuses
        outcome.seconds, outcome.cpu_s = time.monotonic() - started, _cpu_s(pid) - cpu_s
        hidden = [tag for tag in self.good.seen | self.evil.seen if tag.startswith("t@h")]
        outcome.violations += [f"an engine has seen {tag}" for tag in hidden]
        return outcome

    async def _round(self, target: Target, clients: int, outcome: Outcome) -> None:
        drawn = self.rng.choices(ACTS, [act.weight for act in ACTS], k=clients)
        places = asyncio.Semaphore(AT_ONCE)
        alone = asyncio.Lock()

        async def one(act: Act) -> None:
            async with places:
                outcome.by_act[act.name] += 1
                try:
                    if act.alone:
                        async with alone:
                            await act.do(target)
                    else:
                        await act.do(target)
                except Violation as wrong:
                    outcome.violations.append(f"{act.name}: {wrong}")

        await asyncio.gather(*map(one, drawn))

    async def _calm(self, port: int, admin: int) -> list[str]:
        """Wait until nothing is under way any more; what is left after a while."""
        deadline = time.monotonic() + CALM_S
        while left := await asyncio.to_thread(_left, port, admin) + self._under_way():
            if time.monotonic() > deadline:
                return [f"left after {CALM_S:g} s: {line}" for line in left]
            await asyncio.sleep(0.05)
        return []

    def _under_way(self) -> list[str]:
        return [f"{engine.under_way} at an engine" for engine in (self.good, self.evil) if engine.under_way]


async def _watch(outcome: Outcome) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.05)
        outcome.lag_s = max(outcome.lag_s, time.monotonic() - before - 0.05)


def _left(port: int, admin: int) -> list[str]:
    """Counts that are not zero, the connection that asks left out."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=CALM_S) as answer:
        page = answer.read().decode()
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/admin/replicas", timeout=CALM_S) as answer:
        replicas = json.loads(answer.read())["replicas"]
    found = [
        line
        for line in re.findall(r"^autopoiesis_\S+ \S+$", page, re.MULTILINE)
        if line.removeprefix("autopoiesis_").split("{")[0] in GAUGES and not line.endswith(" 0")
    ]
    connections = re.search(r"^autopoiesis_client_connections (\d+)$", page, re.MULTILINE)
    buffered = re.search(r"^autopoiesis_buffered_bytes (\d+)$", page, re.MULTILINE)
    if connections is None or int(connections[1]) > 1:
        found.append(f"connections {connections and connections[1]}")
    if buffered is not None and int(buffered[1]):
        found.append(f"buffered bytes {buffered[1]}")
    return found + [f"{r['id']}: {r['in_flight']} in flight" for r in replicas if r["in_flight"]]


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100
