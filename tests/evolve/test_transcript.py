"""Completions in a file: written as they come, answered from without a provider, and free of secrets."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from evolve_samples import asked

from autopoiesis.errors import ProviderError, StoreError
from autopoiesis.evolve.providers import Completion, CompletionRequest
from autopoiesis.evolve.providers.recorded import RecordedProvider
from autopoiesis.evolve.providers.transcript import Recording, ReplayedProvider, read_transcript
from autopoiesis.evolve.store import Store


class Scripted:
    """Answers in turn; an exception is raised."""

    name = "scripted"

    def __init__(self, *answers: str | ProviderError) -> None:
        self.answers = list(answers)

    def complete(self, request: CompletionRequest) -> Completion:
        answer = self.answers.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return Completion(answer, 10, None, 0.1 + 0.2, metered=False)


@pytest.fixture
def tape(tmp_path: Path) -> str:
    """An answer to r1 and a failure of r2."""
    path = str(tmp_path / "tape.jsonl")
    with Store(":memory:") as store, Recording(path, "scripted", "model") as recording:
        provider = RecordedProvider(store, Scripted("one", ProviderError("HTTP 500")), "run", recording)
        provider.complete(asked("r1"))
        with pytest.raises(ProviderError):
            provider.complete(asked("r2"))
    return path


def test_a_recording_holds_a_header_and_a_line_for_each_completion(tape: str) -> None:
    header, first, second = map(json.loads, Path(tape).read_text().splitlines())
    assert header == {"kind": "autopoiesis completions 1", "provider": "scripted", "model": "model"}
    assert first == {
        "request": "r1",
        "prompt": asked("r1").digest(),
        "text": "one",
        "failure": None,
        "input_tokens": 10,
        "output_tokens": None,
        "latency_s": 0.1 + 0.2,
        "metered": False,
    }
    assert (second["text"], second["failure"]) == (None, "HTTP 500")


def test_a_completion_is_in_the_file_before_the_next_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    with Store(":memory:") as store, Recording(str(path), "scripted") as recording:
        provider = RecordedProvider(store, Scripted("one", "two"), "run", recording)
        provider.complete(asked("r1"))
        assert len(path.read_bytes().splitlines()) == 2
        provider.complete(asked("r2"))
        assert len(path.read_bytes().splitlines()) == 3


def test_a_replay_gives_the_same_answers_failures_and_charges(tape: str) -> None:
    provider = ReplayedProvider(read_transcript(tape))
    assert provider.name == "scripted"
    assert provider.complete(asked("r1")) == Completion("one", 10, None, 0.1 + 0.2, False)
    with pytest.raises(ProviderError, match="HTTP 500"):
        provider.complete(asked("r2"))


def test_a_request_that_a_recording_lacks_is_an_error_that_says_what_to_do(tape: str) -> None:
    provider = ReplayedProvider(read_transcript(tape))
    with pytest.raises(StoreError, match=r"has no completion 'r3'; give the options .* or record a whole run"):
        provider.complete(asked("r3"))
    with pytest.raises(StoreError, match=r"'r1' was recorded for another prompt; give the options"):
        provider.complete(asked("r1", content="something else"))


def test_everything_that_an_answer_may_depend_on_is_in_the_digest() -> None:
    digests = {asked().digest(), asked(content="other").digest(), asked(seed=1).digest()}
    assert len(digests) == 3
    assert asked("r1").digest() == asked("r2").digest()


def test_what_a_recording_has_is_not_asked_again(tape: str) -> None:
    """Neither with the store that the run had, nor with a new one."""
    with Store(":memory:") as store:
        for _ in range(2):
            with Recording(tape, "scripted", "model") as recording:
                provider = RecordedProvider(store, Scripted(), "run", recording)
                assert provider.complete(asked("r1")).text == "one"
    assert len(Path(tape).read_bytes().splitlines()) == 3


def test_what_the_store_has_is_written_down_without_asking_again(tmp_path: Path) -> None:
    path = str(tmp_path / "tape.jsonl")
    with Store(":memory:") as store:
        RecordedProvider(store, Scripted("one"), "run").complete(asked("r1"))
        with Recording(path, "scripted") as recording:
            RecordedProvider(store, Scripted(), "run", recording).complete(asked("r1"))
    assert read_transcript(path).entries["r1"].text == "one"


def test_a_line_that_a_killed_run_left_unfinished_is_dropped(tape: str) -> None:
    whole = Path(tape).read_bytes()
    Path(tape).write_bytes(whole[:-20])
    assert list(read_transcript(tape).entries) == ["r1"]
    with Store(":memory:") as store, Recording(tape, "scripted", "model") as recording:
        provider = RecordedProvider(store, Scripted(ProviderError("HTTP 500")), "run", recording)
        with pytest.raises(ProviderError):
            provider.complete(asked("r2"))
    assert Path(tape).read_bytes() == whole


def test_a_recording_is_not_mixed_with_another(tape: str) -> None:
    with pytest.raises(StoreError, match=r"provider 'scripted' and model 'model'; give the same, or record into"):
        Recording(tape, "openai", "model")
    with Store(":memory:") as store:
        RecordedProvider(store, Scripted("another"), "run").complete(asked("r1"))
        with Recording(tape, "scripted", "model") as recording:
            provider = RecordedProvider(store, Scripted(), "run", recording)
            with pytest.raises(StoreError, match="has another answer to request 'r1' than the store"):
                provider.complete(asked("r1"))


def test_files_that_are_no_recordings_are_refused_untouched_and_named(tmp_path: Path, tape: str) -> None:
    header = Path(tape).read_text().splitlines()[0]
    for text, why in (
        ("dear diary\n", r"other: no recording of completions; name a file that --record wrote"),
        (header.replace("completions 1", "completions 2") + "\n", r"other: is '.* 2', and this release reads"),
        (header + '\n{"request": 3}\n', r"other:2: not a completion .*; record it anew"),
    ):
        other = tmp_path / "other"
        other.write_text(text)
        with pytest.raises(StoreError, match=why):
            read_transcript(str(other))
        with pytest.raises(StoreError, match=why):
            Recording(str(other), "scripted", "model")
        assert other.read_text() == text
    with pytest.raises(StoreError, match=r"absent: cannot be read: .*; check the path"):
        read_transcript(str(tmp_path / "absent"))
    with pytest.raises(StoreError, match="not a regular file"):
        Recording(str(tmp_path), "scripted")


def test_a_disk_that_is_full_is_one_line(tape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Store(":memory:") as store, Recording(tape, "scripted", "model") as recording:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"cannot be written: No space left on device; make room"):
            RecordedProvider(store, Scripted("three"), "run", recording).complete(asked("r3"))
        assert store.get_completion("run", "r3") is not None, "the answer is not lost"


def test_no_secret_reaches_file_or_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever brings it: an answer, a failure, a prompt made of earlier answers, the name of a model."""
    monkeypatch.setenv("SOME_API_KEY", "hush-hush-1234")
    path = tmp_path / "tape.jsonl"
    with (
        Store(tmp_path / "a.db") as store,
        Recording(str(path), "scripted", "model?key=hush-hush-1234") as recording,
    ):
        inner = Scripted("# hush-hush-1234\n", ProviderError("bad key hush-hush-1234"))
        provider = RecordedProvider(store, inner, "run", recording)
        assert "hush" not in provider.complete(asked("r1", content="use hush-hush-1234")).text
        with pytest.raises(ProviderError) as caught:
            provider.complete(asked("r2"))
        assert "hush" not in str(caught.value)
        files = list(tmp_path.iterdir())
        assert len(files) >= 2
        assert all(b"hush" not in file.read_bytes() for file in files)
    assert "redacted" in path.read_text()
