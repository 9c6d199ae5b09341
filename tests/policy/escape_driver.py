"""Tries every attack without the wall and behind it, as the user who runs this, and prints what came of each as JSON.

`python escape_driver.py [FOLDER...]`: where packages lie that this interpreter does not find by itself.
Without the wall is a child of the same template, with the same code, that gives nothing up; for what a child loses at
its birth, before any lock, it is a plain fork of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import types
from dataclasses import asdict, dataclass
from pathlib import Path

import escape_attacks
from host_samples import BELIEF, ESCAPE, OBSERVATION

from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.limits import Limits

HERE = Path(__file__).parent
WORD = "a word that nobody may learn"
VARIABLE = "AUTOPOIESIS_ESCAPE_WORD"
"""Must hold the word in this process's environment."""
ATTACKS = [
    name
    for name, value in vars(escape_attacks).items()
    if isinstance(value, types.FunctionType) and value.__module__ == "escape_attacks" and name != "call"
]
BORN_WITH = ("own_environment", "inherited_descriptor")

BROKEN_OUT = """
{escape}
def should_reschedule(state):
    space = {{"__name__": "attack", "__builtins__": sys.modules["builtins"]}}
    sys.modules["builtins"].exec({text!r}, space)
    return space[{attack!r}]({scene!r}) is True
"""


@dataclass(frozen=True)
class Outcome:
    """What an attack answered, and what it left outside."""

    answer: bool | None
    failure: str | None
    traces: list[str]

    @property
    def worked(self) -> bool:
        return self.answer is True or bool(self.traces)


class Scene:
    """Something to steal, to break and to reach; `told` is what an attack is told of it."""

    FILES = ("secret", "spare", "doomed")

    def __init__(self, folder: Path, kept: contextlib.ExitStack) -> None:
        self.folder = folder
        kinds = {"tcp": socket.AF_INET, "udp": socket.AF_INET, "unix": socket.AF_UNIX, "abstract": socket.AF_UNIX}
        addresses: dict[str, tuple[str, int] | str] = {
            "tcp": ("127.0.0.1", 0),
            "udp": ("127.0.0.1", 0),
            "unix": str(folder / "socket"),
            "abstract": f"\0autopoiesis-escape-{os.getpid()}",
        }
        self.listeners: dict[str, socket.socket] = {}
        for name, kind in kinds.items():
            listener = kept.enter_context(
                socket.socket(kind, socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM)
            )
            listener.bind(addresses[name])
            if name != "udp":
                listener.listen()
            self.listeners[name] = listener
        self.memory = ctypes.create_string_buffer(WORD.encode())
        lost = folder / "lost"
        lost.write_text(WORD)
        # inheritable, and reachable by its number alone
        held = os.dup2(os.open(lost, os.O_RDONLY), 40)
        lost.unlink()
        self.victim = kept.enter_context(subprocess.Popen(["/bin/sleep", "600"]))
        kept.callback(self.victim.kill)
        self.told = escape_attacks.Scene(
            tcp=self.listeners["tcp"].getsockname()[1],
            udp=self.listeners["udp"].getsockname()[1],
            unix=str(addresses["unix"]),
            abstract=str(addresses["abstract"]),
            secret=str(folder / "secret"),
            spare=str(folder / "spare"),
            doomed=str(folder / "doomed"),
            new=str(folder / "new"),
            word=WORD,
            host=os.getpid(),
            address=ctypes.addressof(self.memory),
            held=held,
            victim=self.victim.pid,
        )
        self.restore()

    def restore(self) -> None:
        for name in self.FILES:
            (self.folder / name).write_text(WORD)
        (self.folder / "new").unlink(missing_ok=True)

    def traces(self) -> list[str]:
        """What is not as it was; afterwards it is."""
        found = []
        for name, listener in self.listeners.items():
            while select.select([listener], [], [], 0)[0]:
                found.append(name)
                if name == "udp":
                    listener.recv(9)
                else:
                    listener.accept()[0].close()
        for name in self.FILES:
            path = self.folder / name
            if not path.exists() or path.read_text() != WORD:
                found.append(name)
        if os.path.lexists(self.folder / "new"):
            found.append("new")
        self.restore()
        return found


def by_a_policy(template: HostTemplate, scene: Scene, attack: str) -> Outcome:
    """The attack by a policy that broke out of Python."""
    text = inspect.getsource(escape_attacks)
    source = BROKEN_OUT.format(escape=ESCAPE, text=text, attack=attack, scene=scene.told)
    with PolicyHost(template, source, 10.0) as host:
        answer = host.trigger(OBSERVATION, BELIEF)
    return Outcome(answer.value, answer.failure, scene.traces())


def by_a_fork(scene: Scene, attack: str) -> Outcome:
    """The attack by a child that inherits everything."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if getattr(escape_attacks, attack)(scene.told) else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Outcome(status == 0, f"exit code {status}" if status else None, scene.traces())


def main() -> None:
    assert os.environ[VARIABLE] == WORD
    found = {}
    with contextlib.ExitStack() as kept:
        scene = Scene(Path(kept.enter_context(tempfile.TemporaryDirectory())), kept)
        limits = Limits(memory_bytes=2**28, cpu_s=600)
        path = (HERE, *map(Path, sys.argv[1:]))
        walled = kept.enter_context(HostTemplate("host_estimators:Counting", python_path=path, limits=limits))
        unlocked = "host_estimators_unlocked:Counting"
        open_ = kept.enter_context(HostTemplate(unlocked, python_path=path, limits=limits, allow_unlocked=True))
        for attack in ATTACKS:
            bare = by_a_fork(scene, attack) if attack in BORN_WITH else by_a_policy(open_, scene, attack)
            found[attack] = {"open": asdict(bare), "walled": asdict(by_a_policy(walled, scene, attack))}
        with PolicyHost(walled, "def should_reschedule(state): return True") as host:
            wall = asdict(host.wall)
    json.dump({"wall": wall, "attacks": found}, sys.stdout)


if __name__ == "__main__":
    main()
