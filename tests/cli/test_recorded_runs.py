"""`autopoiesis run` with `--record` and `--replay`, and on a full disk: whole runs, small ones."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import autopoiesis.control.run as control
from autopoiesis.cli import main
from autopoiesis.cli.run import DEFAULT_LIMIT_MIB, MIB
from autopoiesis.evolve.retention import LIMIT_BYTES
from autopoiesis.evolve.store import Store
from autopoiesis.policy.library import starters

KEY = "hush-hush-1234567"
CLUSTER = '[[pool]]\nname = "l40s"\ngpu = "l40s"\ngpus_per_node = 2\nminimum = 2\nmaximum = 2\n'
ASK = '''
import json, os, sys
asked = json.load(sys.stdin)
number = int(asked["request_id"].split("-")[1])
text = f"""\\"\\"\\"Waits for {number}; my key is {os.environ["SOME_API_KEY"]}.\\"\\"\\"
from autopoiesis.policy import Decision, ServingState
interface = 1
def should_reschedule(state: ServingState) -> bool:
    return state.now_s < {number}
def plan(state: ServingState) -> Decision:
    return Decision(state.plan)
"""
if number == 2:
    sys.exit(f"no answer for {os.environ['SOME_API_KEY']}")
print(json.dumps({"content": f"```python\\n{text}```", "usage": {"input_tokens": 900, "output_tokens": 70}}))
'''
WHAT = ["--cluster", "tiny.toml", "--workload", "llama-3.1-8b=trace.csv", "--load", "1.3"]
SCENE = ["run", *WHAT, "--window", "10", "--budget", "0.02", "--quiet"]


@pytest.fixture(autouse=True)
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred seconds of load on two GPUs, and a model of our own that is asked with a key in the environment."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{t},{400 + 37 * (t % 29)},{60 + 11 * (t % 17)}" for t in range(100)]
    Path("trace.csv").write_text("\n".join(["arrival_s,input_tokens,output_tokens", *lines]) + "\n")
    Path("tiny.toml").write_text(CLUSTER)
    Path("ask.py").write_text(ASK)
    few = {"static": starters()["static"]}
    monkeypatch.setattr(control, "starters", lambda: few)


def report(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(name).read_text())
    return {**read, "wall_s": 0}


def test_a_recorded_run_repeats_offline_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    asking = ["--provider", "command", "--provider-command", f"{sys.executable} ask.py"]
    assert main([*SCENE, *asking, "--store", "a.db", "--json", "a.json", "--record", "tape.jsonl"]) == 0
    tables = capsys.readouterr().out
    tape = Path("tape.jsonl").read_bytes()
    entries = [json.loads(line) for line in tape.splitlines()[1:]]
    assert len(entries) >= 3
    assert [entry["request"] for entry in entries] == [f"operator-{n:06}" for n in range(1, len(entries) + 1)]
    assert "exited with code 1" in entries[1]["failure"]
    assert all(entry["latency_s"] > 0 for entry in entries if entry["text"] is not None)
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.iterdir())

    # no provider, no key, another store
    Path("ask.py").unlink()
    monkeypatch.delenv("SOME_API_KEY")
    assert main([*SCENE, "--store", "b.db", "--json", "b.json", "--replay", "tape.jsonl"]) == 0
    assert report("b.json") == report("a.json")
    assert capsys.readouterr().out == tables
    with Store("a.db") as recorded, Store("b.db") as replayed:
        (first,), (second,) = recorded.runs(), replayed.runs()
        assert first.key != second.key
        assert recorded.policies() == replayed.policies()
        for gates in (Store.gates, Store.swaps):
            seen = [
                [(entry.t, entry.policy, entry.evidence) for entry in gates(store, run.key, "operator")]
                for store, run in ((recorded, first), (replayed, second))
            ]
            assert seen[0] == seen[1]

    # what is in the store is enough to record anew
    monkeypatch.setenv("SOME_API_KEY", KEY)
    Path("tape.jsonl").unlink()
    assert main([*SCENE, *asking, "--store", "a.db", "--json", "c.json", "--record", "tape.jsonl"]) == 0
    assert Path("tape.jsonl").read_bytes() == tape
    capsys.readouterr()

    # a shorter recording, and other options
    Path("tape.jsonl").write_bytes(b"".join(tape.splitlines(keepends=True)[:2]))
    assert main([*SCENE, "--store", "c.db", "--replay", "tape.jsonl"]) == 2
    said = capsys.readouterr().err
    assert "tape.jsonl: has no completion 'operator-000002'; give the options" in said
    assert said.count("\n") == 1
    Path("tape.jsonl").write_bytes(tape)
    assert main([*SCENE, "--seed", "5", "--store", "c.db", "--replay", "tape.jsonl"]) == 2
    assert "was recorded for another prompt; give the options" in capsys.readouterr().err


def test_a_full_disk_ends_a_run_with_one_line_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SCENE, "--store", "whole.db", "--json", "whole.json"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(control, "Store", partial(Store, max_bytes=130_000))
    assert main([*SCENE, "--store", "a.db", "--json", "a.json"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "autopoiesis: error: store a.db: the disk, or the space allowed for the store, is full; make room and resume "
        "the run\n"
    )
    assert not Path("a.json").exists()
    with Store("a.db") as store:
        store.check()
        (run,) = store.runs()
        assert store.completions(run.key), "it filled in the middle of evolution"
    monkeypatch.setattr(control, "Store", Store)
    assert main([*SCENE, "--store", "a.db", "--json", "a.json"]) == 0
    assert report("a.json") == report("whole.json")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--replay absent.jsonl", "absent.jsonl: cannot be read: No such file"),
        ("--replay trace.csv", "trace.csv: no recording of completions; name a file that --record wrote"),
        ("--replay a.jsonl --record b.jsonl", "not allowed with argument"),
        ("--replay a.jsonl --provider structural", "--provider says whom to ask, and --replay asks nobody"),
        ("--replay a.jsonl --model-name x", "--model-name says whom to ask, and --replay asks nobody"),
        ("--record no/tape.jsonl", "--record no/tape.jsonl: folder 'no' does not exist"),
        ("--record trace.csv", "--record trace.csv: is the file of --workload"),
        ("--record a.db --store a.db", "--record a.db: is the file of --store"),
        ("--record a.json --json a.json", "--record a.json: is the file of --json"),
        ("--record tiny.toml", "--record tiny.toml: is the file of --cluster"),
        ("--store-limit 0", "must be MiB from 1 to"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_runs(
    flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main([*SCENE, *flags.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_the_limit_that_help_names_is_the_store_s() -> None:
    assert DEFAULT_LIMIT_MIB * MIB == LIMIT_BYTES
