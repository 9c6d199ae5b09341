"""Providers against real commands and a real HTTP server: answers are read, every failure is a ProviderError."""

from __future__ import annotations

import email.utils
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from evolve_samples import asked

from autopoiesis.errors import ProviderError
from autopoiesis.evolve.providers import provider
from autopoiesis.evolve.providers.base import redact
from autopoiesis.evolve.providers.command import CommandProvider
from autopoiesis.evolve.providers.openai import OpenAIProvider

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def script(folder: Path, body: str) -> str:
    path = folder / "answer.py"
    path.write_text(body)
    return f"'{sys.executable}' '{path}'"


def test_a_command_reads_the_request_as_json_and_answers_text(tmp_path: Path) -> None:
    command = script(tmp_path, "import sys, json\nprint(sorted(json.load(sys.stdin).items()))")
    completion = provider("command", command=command).complete(asked("r7"))
    assert completion.text.strip() == (
        "[('max_tokens', 512), ('messages', [{'role': 'user', 'content': 'improve'}]), "
        "('request_id', 'r7'), ('temperature', 0.7)]"
    )
    assert (completion.input_tokens, completion.output_tokens, completion.metered) == (None, None, False)
    assert completion.latency_s > 0


@pytest.mark.parametrize("names", [("input_tokens", "output_tokens"), ("prompt_tokens", "completion_tokens")])
def test_a_command_may_answer_json_with_usage(tmp_path: Path, names: tuple[str, str]) -> None:
    answer = {"content": "hello", "usage": {names[0]: 5, names[1]: 6}}
    completion = CommandProvider(script(tmp_path, f"print({json.dumps(answer)!r})")).complete(asked())
    assert (completion.text, completion.input_tokens, completion.output_tokens) == ("hello", 5, 6)


def test_a_command_may_answer_without_reading_a_large_prompt(tmp_path: Path) -> None:
    completion = CommandProvider(script(tmp_path, "print('done')")).complete(asked(content="x" * 3_000_000))
    assert completion.text == "done\n"


def test_a_large_prompt_and_a_large_answer_do_not_wait_for_each_other(tmp_path: Path) -> None:
    body = "import sys\nfor line in iter(lambda: sys.stdin.read(1000), ''):\n    sys.stdout.write(line[1:300])"
    completion = CommandProvider(script(tmp_path, body)).complete(asked(content="x" * 3_000_000))
    assert 800_000 < len(completion.text) < 1_000_000


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("import sys; print('fine'); sys.stderr.write('no credit'); sys.exit(3)", "exited with code 3: no credit"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("", "answered nothing"),
        ("print('{\"answer\": 1}')", "field 'content' is missing"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "not UTF-8"),
        ("while True: print('x' * 100000)", "more than 1048576 bytes"),
    ],
)
def test_a_command_that_fails_is_a_failed_completion(tmp_path: Path, body: str, why: str) -> None:
    with pytest.raises(ProviderError, match=why):
        CommandProvider(script(tmp_path, body), timeout_s=10).complete(asked())


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_command_that_hangs_is_killed_with_all_its_children(tmp_path: Path) -> None:
    body = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen(['sleep', '60'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    started = time.monotonic()
    with pytest.raises(ProviderError, match=r"no answer within 0\.8 s and was killed"):
        CommandProvider(script(tmp_path, body), timeout_s=0.8).complete(asked())
    assert time.monotonic() - started < 5
    time.sleep(0.1)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_child_that_keeps_the_pipe_open_does_not_hold_up_the_answer(tmp_path: Path) -> None:
    body = "import subprocess\nsubprocess.Popen(['sleep', '60'])\nprint('done')"
    started = time.monotonic()
    assert CommandProvider(script(tmp_path, body), timeout_s=30).complete(asked()).text == "done\n"
    assert time.monotonic() - started < 10


def test_a_command_that_closes_its_output_and_hangs_is_killed_too(tmp_path: Path) -> None:
    body = "import os, time\nfor fd in (0, 1, 2): os.close(fd)\ntime.sleep(60)"
    with pytest.raises(ProviderError, match="no answer within"):
        CommandProvider(script(tmp_path, body), timeout_s=0.5).complete(asked())


def test_what_a_command_says_of_secrets_is_redacted(tmp_path: Path) -> None:
    leak = "import os, sys; print(os.environ['OPENAI_API_KEY']); print(os.environ['OPENAI_API_KEY'], file=sys.stderr)"
    assert CommandProvider(script(tmp_path, leak)).complete(asked()).text == "[redacted]\n"
    with pytest.raises(ProviderError) as caught:
        CommandProvider(script(tmp_path, leak + "; sys.exit(1)")).complete(asked())
    assert str(caught.value).endswith("exited with code 1: [redacted]")


def test_no_command_is_run_by_a_shell(tmp_path: Path) -> None:
    completion = CommandProvider(f"echo '$HOME;' > {tmp_path / 'file'}").complete(asked())
    assert completion.text == f"$HOME; > {tmp_path / 'file'}\n"
    assert not os.listdir(tmp_path)


def test_settings_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(ProviderError, match="did you mean structural"):
        provider("structurel")
    with pytest.raises(ProviderError, match="needs a command"):
        provider("command")
    with pytest.raises(ProviderError, match="check quotes"):
        provider("command", command="echo 'x")
    with pytest.raises(ProviderError, match="needs a model"):
        provider("openai")
    with pytest.raises(ProviderError, match="set the environment variable NO_SUCH_KEY"):
        provider("openai", model="m", key_variable="NO_SUCH_KEY")
    with pytest.raises(ProviderError, match="must start with http"):
        provider("openai", model="m", base_url="localhost:1")
    with pytest.raises(ProviderError, match="must not carry credentials") as caught:
        provider("openai", model="m", base_url="http://user:pa55word@host/v1")
    assert "pa55word" not in str(caught.value)
    with pytest.raises(ProviderError, match="cannot be started"):
        CommandProvider("no-such-program-anywhere").complete(asked())


def test_redaction_knows_secrets_by_the_name_of_their_variable_and_by_their_shape() -> None:
    environment = {"DB_PASSWORD": "correct horse", "HOME": "/home/somebody", "SHORT_KEY": "abc"}
    text = "correct horse /home/somebody abc sk-abcdefghijk Bearer abcdefghijk task-0123456789"
    assert redact(text, environment) == "[redacted] /home/somebody abc [redacted] [redacted] task-0123456789"


Answer = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Callable[[int], Answer]
    seen: list[tuple[str, dict[str, str], Any]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is what some tests are about."""


class Endpoint(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        status, headers, content = self.server.answer(len(self.server.seen))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(answer: Callable[[int], Answer]) -> Iterator[tuple[str, list[tuple[str, dict[str, str], Any]]]]:
    server = Server(("127.0.0.1", 0), Endpoint)
    server.answer, server.seen = answer, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(content: object, **usage: int) -> bytes:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "length"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def test_an_endpoint_gets_the_chat_request_with_the_key_in_one_header() -> None:
    with serving(lambda _: (200, {}, chat("hello", prompt_tokens=7, completion_tokens=8))) as (url, seen):
        completion = provider("openai", model="small", base_url=url + "/").complete(asked())
    assert (completion.text, completion.input_tokens, completion.output_tokens) == ("hello", 7, 8)
    assert not completion.metered
    (path, headers, body), *rest = seen
    assert rest == []
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "small",
        "messages": [{"role": "user", "content": "improve"}],
        "temperature": 0.7,
        "max_tokens": 512,
    }


def test_base_url_and_model_come_from_the_environment_and_the_key_may_be_absent() -> None:
    with serving(lambda _: (200, {}, chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]))) as (
        url,
        seen,
    ):
        environment = {"OPENAI_BASE_URL": url, "OPENAI_MODEL": "own"}
        assert OpenAIProvider(environment=environment).complete(asked()).text == "ab"
    assert seen[0][2]["model"] == "own"
    assert "Authorization" not in seen[0][1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again_as_late_as_it_says(status: int) -> None:
    def answer(turn: int) -> Answer:
        headers = {1: {"Retry-After": "7"}, 2: {"Retry-After": "9999"}}.get(turn, {})
        return (200, {}, chat("finally")) if turn == 3 else (status, headers, b"busy")

    waits: list[float] = []
    with serving(answer) as (url, seen):
        assert OpenAIProvider("m", url, sleep=waits.append).complete(asked()).text == "finally"
    assert len(seen) == 3
    assert waits == [7.0, 30.0]


def test_after_two_more_attempts_it_is_a_failure_with_the_status() -> None:
    waits: list[float] = []
    with serving(lambda _: (503, {}, b"")) as (url, seen), pytest.raises(ProviderError, match=r"HTTP 503$"):
        OpenAIProvider("m", url, sleep=waits.append).complete(asked())
    assert len(seen) == 3
    assert waits == [1.0, 2.0]


def test_a_date_in_retry_after_is_understood() -> None:
    waits: list[float] = []
    later = email.utils.formatdate(time.time() + 20, usegmt=True)
    with serving(lambda _: (429, {"Retry-After": later}, b"")) as (url, _), pytest.raises(ProviderError):
        OpenAIProvider("m", url, sleep=waits.append).complete(asked())
    assert all(15 < wait <= 20 for wait in waits)


def test_a_refused_key_is_an_error_that_does_not_show_it() -> None:
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}, Bearer {KEY}"}}).encode()
    with serving(lambda _: (401, {}, said)) as (url, seen), pytest.raises(ProviderError, match="HTTP 401") as caught:
        OpenAIProvider("m", url + "?api-key=alsosecret").complete(asked())
    assert len(seen) == 1
    assert "very-secret" not in str(caught.value)
    assert "alsosecret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unusual_key_is_never_shown_either() -> None:
    environment = {"MINE": "plainword"}
    with serving(lambda _: (400, {}, b'{"error": "bad plainword"}')) as (url, _):
        with pytest.raises(ProviderError, match=r"HTTP 400: bad \[redacted\]"):
            OpenAIProvider("m", url, "MINE", environment=environment).complete(asked())
        with pytest.raises(ProviderError, match="characters no HTTP header can carry") as caught:
            OpenAIProvider("m", url, "MINE", environment={"MINE": "secret\nvalue"}).complete(asked())
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with (
        serving(lambda _: (200, {}, chat("stolen"))) as (other, stolen),
        serving(lambda _: (302, {"Location": other}, b"")) as (url, _),
        pytest.raises(ProviderError, match="HTTP 302"),
    ):
        OpenAIProvider("m", url).complete(asked())
    assert stolen == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html>", "JSON object"),
        (b"[1]", "JSON object"),
        (b'{"choices": []}', "choices"),
        (b'{"choices": [{"message": {}}]}', "choices"),
        (chat(None), r"finish_reason length"),
        (chat("  "), r"finish_reason length"),
    ],
)
def test_an_answer_that_is_no_completion_is_a_failure(content: bytes, why: str) -> None:
    with serving(lambda _: (200, {}, content)) as (url, _), pytest.raises(ProviderError, match=why):
        OpenAIProvider("m", url).complete(asked())


def test_a_silent_or_absent_endpoint_is_a_failure_in_time() -> None:
    def slow(_: int) -> Answer:
        time.sleep(1.0)
        return (200, {}, chat("late"))

    started = time.monotonic()
    with serving(slow) as (url, _), pytest.raises(ProviderError, match="timed out"):
        OpenAIProvider("m", url, timeout_s=0.2).complete(asked())
    with pytest.raises(ProviderError, match=r"gave no answer: .*check the base URL"):
        OpenAIProvider("m", url).complete(asked())
    assert time.monotonic() - started < 5


def test_importing_the_package_loads_neither_numpy_nor_numba() -> None:
    modules = ["autopoiesis.evolve" + part for part in ("", ".providers", ".providers.recorded", ".store", ".prompt")]
    code = f"import sys, {', '.join(modules)}; print([m for m in ('numpy', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
