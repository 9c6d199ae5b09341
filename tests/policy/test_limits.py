"""Each layer of the wall is tried alone and together, from a process that has given Python's own protection up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopoiesis.policy.limits import Wall

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wall is made of Linux")

SCRIPT = """
import json, os, signal, socket, subprocess, sys
from autopoiesis.policy import limits

layers, directory = sys.argv[1].split(","), sys.argv[2]
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
secret = os.path.join(directory, "secret")
if "all" in layers:
    wall = limits.lock_down(limits.Limits(memory_bytes=2**28, cpu_s=5))
    stands = all((wall.rlimits, wall.no_new_privileges, wall.landlock, wall.seccomp))
else:
    limits._is_nobody = lambda: os.geteuid() != 0
    # what only acts gives None; whether it came to anything is for the next one to say
    stands = not any(getattr(limits, name)() in (False, 0) for name in layers)

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def connect():
    with socket.socket() as client:
        client.connect(address)

def thread():
    import _thread
    _thread.start_new_thread(int, ())

def kill():
    os.kill(os.getppid(), 0)

attempts = {
    "read": lambda: os.close(os.open(secret, os.O_RDONLY)),
    "write": lambda: os.close(os.open(os.path.join(directory, "new"), os.O_WRONLY | os.O_CREAT)),
    "truncate": lambda: os.truncate(secret, 0),
    "remove": lambda: os.unlink(secret),
    "connect": connect,
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "exec": lambda: os.execv("/bin/true", ["/bin/true"]) if "all" in layers else None,
    "fork": fork,
    "thread": thread,
    "kill": kill,
    "random": lambda: os.urandom(1),
    "memory": lambda: bytearray(2**29),
    "unlimit": lambda: __import__("resource").setrlimit(7, (99, 99)),
    "compute": lambda: sum(range(1000)),
}
done = {}
for name, attempt in attempts.items():
    try:
        attempt()
        done[name] = "done"
    except BaseException as error:
        done[name] = type(error).__name__
print(json.dumps({"stands": stands, "done": done}))
"""


def outcome(layers: str, directory: Path) -> dict[str, Any]:
    (directory / "secret").write_text("s")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, layers, str(directory)], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    if not result["stands"]:
        pytest.skip(f"this system lacks one of: {layers}")
    done: dict[str, Any] = result["done"]
    return done


def test_without_any_layer_everything_is_possible(tmp_path: Path) -> None:
    done = outcome("_address_space_bytes", tmp_path)
    assert {how for name, how in done.items() if name != "unlimit"} == {"done"}


def test_behind_the_whole_wall_a_process_can_only_compute(tmp_path: Path) -> None:
    done = outcome("all", tmp_path)
    assert done.pop("compute") == "done"
    assert done.pop("memory") == "MemoryError"
    assert done.pop("thread") == "RuntimeError"
    assert done.pop("random") in ("PermissionError", "NotImplementedError")
    assert done.pop("unlimit") in ("PermissionError", "ValueError")
    assert set(done.values()) == {"PermissionError"}
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_landlock_alone_denies_files_and_connections(tmp_path: Path) -> None:
    done = outcome("_drop_privileges,_restrict_paths", tmp_path)
    for name in ("read", "write", "remove"):
        assert done[name] == "PermissionError", name
    assert (tmp_path / "secret").exists()


def test_seccomp_alone_denies_files_sockets_and_processes(tmp_path: Path) -> None:
    done = outcome("_drop_privileges,_filter_calls", tmp_path)
    for name in ("read", "write", "truncate", "remove", "connect", "udp", "fork", "kill"):
        assert done[name] == "PermissionError", name
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_nobody_alone_denies_what_is_root_s(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has rights to lose")
    tmp_path.chmod(0o700)
    done = outcome("become_nobody,_is_nobody", tmp_path)
    for name in ("read", "write", "truncate", "remove", "kill"):
        assert done[name] == "PermissionError", name


def test_leaving_the_network_alone_denies_every_address(tmp_path: Path) -> None:
    done = outcome("leave_network,_is_unreachable", tmp_path)
    assert done["connect"] == "OSError"
    assert done["read"] == "done"


def test_a_wall_holds_if_code_outside_python_can_do_no_more_than_compute() -> None:
    bare = Wall(nobody=True, no_network=True, rlimits=True, no_new_privileges=True, landlock=0, seccomp=False)
    assert replace(bare, seccomp=True).holds
    assert replace(bare, landlock=6, no_network=True).holds
    assert not replace(bare, landlock=6, no_network=False).holds
    assert not replace(bare, landlock=3).holds
    assert not replace(bare, seccomp=True, rlimits=False).holds
    assert not replace(bare, seccomp=True, no_new_privileges=False).holds
    assert not bare.holds


def test_a_wall_names_what_is_required_and_missing() -> None:
    whole = Wall(nobody=True, no_network=True, rlimits=True, no_new_privileges=True, landlock=7, seccomp=True)
    assert whole.lacks == ()
    assert replace(whole, nobody=False, no_network=False, landlock=0).lacks == ()
    assert replace(whole, rlimits=False).lacks == ("resource limits",)
    assert replace(whole, no_new_privileges=False).lacks == ("a bar to new privileges",)
    assert replace(whole, seccomp=False, landlock=5).lacks == ("seccomp (or Landlock ABI 6 and no network)",)
