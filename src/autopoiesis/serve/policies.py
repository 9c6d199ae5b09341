"""Policies on their way into force: a text is checked behind the wall, compiled, and handed to the gateways.

All of it happens in other processes, so that a gateway in this one goes on serving. Texts that were used lately come
back at once. A process that compiles is kept for a while only: it is as large as the gateway itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from autopoiesis.errors import PolicyError
from autopoiesis.policy.compiler import Compiler
from autopoiesis.serve.messages import UsePolicy

KEPT = 16
"""Compiled policies."""
IDLE_S = 10.0
"""How long a compiling process waits for more."""
CHECK_S = 30.0
CHECKER = "autopoiesis.serve.policy_check"


class Checked(msgspec.Struct, frozen=True):
    """What the checking process says of a text."""

    identity: str = ""
    reads: frozenset[str] = frozenset()
    refusals: tuple[str, ...] = ()


_checked = msgspec.json.Decoder(Checked)


@dataclass(frozen=True, slots=True)
class _Known:
    text: str
    use: UsePolicy


class Policies:
    """The policy in force, the one before it, and how the next one gets there."""

    def __init__(self, router: str) -> None:
        self.current = UsePolicy(router, "", None, None)
        """The built-in balancer, until a policy is put in force."""
        self.text = ""
        self._before: list[tuple[UsePolicy, str]] = []
        self._known: OrderedDict[bytes, UsePolicy] = OrderedDict()
        self._compiler: Compiler | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()

    async def prepare(self, name: str, text: str) -> UsePolicy:
        """Check and compile a policy module. Raises PolicyError with everything that is refused."""
        known = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        async with self._turn:
            if (use := self._known.get(known)) is None:
                use = await self._made(name, text)
                self._known[known] = use
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(known)
        return msgspec.structs.replace(use, name=name)

    def put_in_force(self, use: UsePolicy, text: str) -> None:
        self._before = [*self._before[1 - KEPT :], (self.current, self.text)]
        self.current, self.text = use, text

    def roll_back(self) -> UsePolicy:
        """Put the policy before this one in force again. Raises PolicyError if there is none."""
        if not self._before:
            raise PolicyError("there is no policy before the one in force; put one in force with PUT /admin/policy")
        self.current, self.text = self._before.pop()
        return self.current

    def close(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        if self._compiler is not None:
            self._compiler.close()
            self._compiler = None

    async def _made(self, name: str, text: str) -> UsePolicy:
        checked = await _check(name, text)
        if checked.refusals:
            raise PolicyError("\n".join(checked.refusals))
        if self._closing is not None:
            self._closing.cancel()
        if self._compiler is None:
            self._compiler = Compiler()
        try:
            objects = await asyncio.wrap_future(self._compiler.submit_objects(text))
        finally:
            self._closing = asyncio.get_running_loop().call_later(IDLE_S, self.close)
        return UsePolicy(name, checked.identity, objects.route, objects.priority, checked.reads)


async def _check(name: str, text: str) -> Checked:
    """Have the text checked by a process of its own. Raises PolicyError if that fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", CHECKER, name,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(CHECK_S):
            answer, _ = await process.communicate(text.encode("utf-8", "surrogatepass"))
        return _checked.decode(answer)
    except TimeoutError:
        raise PolicyError(f"policy {name}: not checked within {CHECK_S:g} s; write a shorter module") from None
    except msgspec.MsgspecError:
        raise PolicyError(f"policy {name}: the checking process ended with {process.returncode}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
