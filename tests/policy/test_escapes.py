"""Policies that broke out of Python attack the machine: first without the wall, where it works, then behind it.

All is tried by root, who has most to lose, and by an ordinary user. An attack that this machine's kernel refuses even
without the wall proves nothing, and is skipped with that reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from escape_attacks import NEEDS
from escape_driver import ATTACKS, HERE, VARIABLE, WORD
from host_samples import BELIEF, ESCAPE, OBSERVATION

import autopoiesis
from autopoiesis.policy.host import Answer, PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.limits import Wall

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wall is made of Linux")

NOBODY = 65534
PACKAGES = [path for path in sys.path if path.endswith("site-packages")]


def run_as(user: str, interpreter: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python process of root's, or of a user without rights."""
    identity: dict[str, Any] = {}
    if user == "ordinary user" and os.geteuid() == 0:
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    path = os.pathsep.join([str(HERE), str(Path(autopoiesis.__file__).parent.parent), *PACKAGES])
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/", VARIABLE: WORD}
    return subprocess.run(
        [interpreter, *arguments], capture_output=True, text=True, timeout=60, env=environment, cwd="/", **identity
    )


@cache
def interpreter_of(user: str) -> str | None:
    """A Python that the user can run; root's own may lie where nobody else may look."""
    for interpreter in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            tried = run_as(user, interpreter, "-c", "import escape_driver, numpy, highspy")
        except OSError:
            continue
        if tried.returncode == 0:
            return interpreter
    return None


@cache
def results(user: str, interpreter: str) -> Any:
    run = run_as(user, interpreter, str(HERE / "escape_driver.py"), *PACKAGES)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def results_of(user: str) -> Any:
    if user == "root" and os.geteuid() != 0:
        pytest.skip("only root can try as root")
    interpreter = interpreter_of(user)
    if interpreter is None:
        pytest.skip("an ordinary user can run no Python here that finds the packages and these tests")
    return results(user, interpreter)


@pytest.mark.parametrize("user", ["root", "ordinary user"])
def test_here_every_layer_stands(user: str) -> None:
    wall = Wall(**results_of(user)["wall"])
    assert wall.holds
    assert wall.rlimits
    assert wall.no_new_privileges
    lacking = [name for name in ("nobody", "no_network", "landlock", "seccomp") if not getattr(wall, name)]
    if lacking:
        pytest.skip(f"a kernel or container may lack these, and this one does: {', '.join(lacking)}")


@pytest.mark.parametrize("user", ["root", "ordinary user"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_works_without_the_wall_and_not_behind_it(attack: str, user: str) -> None:
    tried = results_of(user)["attacks"][attack]
    without, behind = tried["open"], tried["walled"]
    worked = without["answer"] is True or without["traces"]
    if not worked and attack in NEEDS:
        pytest.skip(f"does not work here even without the wall: it needs {NEEDS[attack]} ({without['failure']})")
    assert worked, without
    assert behind["answer"] is not True
    assert behind["traces"] == []
    assert behind["failure"] is None or any(
        denied in behind["failure"]
        for denied in ("PermissionError", "MemoryError", "can't start new thread", "the process died (signal 31)")
    )


# --- what a candidate may do to whoever reads its result ------------------------------------------------------------


def believed(program: str) -> tuple[int, bytes]:
    """How a harness without a wall runs a candidate: by its exit code and what it printed."""
    run = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, timeout=30)
    return run.returncode, run.stdout


@pytest.fixture(scope="module")
def template() -> Iterator[HostTemplate]:
    with HostTemplate("host_estimators:Counting", python_path=(HERE,)) as made:
        yield made


def triggered(template: HostTemplate, attack: str) -> Answer[bool]:
    body = "".join(f"    {line}\n" for line in attack.splitlines())
    source = f"{ESCAPE}\ndef should_reschedule(state):\n{body}    return True"
    with PolicyHost(template, source, 20.0) as host:
        answer = host.trigger(OBSERVATION, BELIEF)
        assert answer.failure is None or host.pid is None
    return answer


def test_an_early_exit_is_no_success(template: HostTemplate) -> None:
    attack = "os._exit(0)"
    assert believed(f"import os\n{attack}\nraise ValueError('bad')") == (0, b"")
    assert triggered(template, attack).failure == "the process died (exit code 0)"


def test_gigabytes_printed_reach_nobody(template: HostTemplate, capfd: pytest.CaptureFixture[str]) -> None:
    attack = "for _ in range({}): os.write(1, b'x' * 2**20)"
    assert len(believed("import os\n" + attack.format(16))[1]) == 16 * 2**20
    assert triggered(template, attack.format(2048)).value is True
    assert capfd.readouterr() == ("", "")


def test_gigabytes_of_result_are_not_read(template: HostTemplate) -> None:
    """The first four bytes of an answer say how long it is; these say two gigabytes."""
    attack = "for _ in range(2048): os.write({}, b'x' * 2**20)"
    assert len(believed("import os\n" + attack.format(1).replace("2048", "16"))[1]) == 16 * 2**20
    assert "malformed" in (triggered(template, attack.format(3)).failure or "")


def test_a_forged_result_is_not_believed(template: HostTemplate) -> None:
    result = b'{"score": 1e9}'
    attack = "os.write({}, {!r})\nos._exit(0)"
    status, printed = believed("import os\n" + attack.format(1, result))
    assert (status, json.loads(printed)) == (0, {"score": 1e9})
    framed = len(result).to_bytes(4, "big") + result
    assert "malformed" in (triggered(template, attack.format(3, framed)).failure or "")
