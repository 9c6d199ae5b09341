"""Completions from a command of the operator's: the request on standard input, the answer on standard output."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from autopoiesis.errors import ProviderError
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, redact, token_count

MAX_OUTPUT_BYTES = 1 << 20
STDERR_TAIL_BYTES = 2000
_CHUNK = 1 << 16
_POLL_S = 0.05
_LINGER_S = 1.0
"""How long output is still read after the command itself has ended, its children holding the pipe."""


class CommandProvider:
    """Runs `command` (split like a shell would, run without one) once for each completion.

    It reads `{"messages": […], "temperature": …, "max_tokens": …, "request_id": …}` and writes plain text or
    `{"content": …, "usage": {"input_tokens": …, "output_tokens": …}}`. Any exit but 0, more than 1 MiB of output or
    more than `timeout_s` is a ProviderError, and the command's whole process group is killed.
    """

    name = "command"

    def __init__(self, command: str, timeout_s: float = 120.0, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ProviderError(f"the provider's command cannot be split into words: {error}; check quotes") from error
        if not self._words:
            raise ProviderError("the provider's command is empty; name the program that answers prompts")
        if timeout_s <= 0:
            raise ProviderError(f"the provider's timeout must be positive, got {timeout_s:g} s")
        self._timeout_s = timeout_s
        self._clock = clock

    def complete(self, request: CompletionRequest) -> Completion:
        question = {
            "messages": [message.as_json() for message in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "request_id": request.request_id,
        }
        started = self._clock()
        output = self._run(json.dumps(question).encode())
        latency_s = self._clock() - started
        try:
            text = output.decode()
        except UnicodeDecodeError as error:
            raise ProviderError(f"{self._program} answered bytes that are not UTF-8 ({error})") from error
        return _answer(self._program, redact(text), latency_s)

    @property
    def _program(self) -> str:
        return f"command {os.path.basename(self._words[0])!r}"

    def _run(self, question: bytes) -> bytes:
        try:
            process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ProviderError(f"{self._program} cannot be started: {error.strerror}; check the path") from error
        try:
            output, stderr = self._exchange(process, question)
        finally:
            # What the command left running in its group ends with it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                with suppress(OSError):
                    stream.close()
        if status != 0:
            how = f"was ended by signal {-status}" if status < 0 else f"exited with code {status}"
            tail = redact(stderr.decode(errors="replace").strip())
            raise ProviderError(f"{self._program} {how}" + (f": {tail}" if tail else ""))
        return output

    def _exchange(self, process: subprocess.Popen[bytes], question: bytes) -> tuple[bytes, bytes]:
        """Feed the question and read both outputs until they close and the command has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        state = _Exchange(bytearray(), bytearray(), memoryview(question))
        deadline = time.monotonic() + self._timeout_s
        ended_at: float | None = None
        with selectors.DefaultSelector() as selector:
            for stream, event in (
                (process.stdin, selectors.EVENT_WRITE),
                (process.stdout, selectors.EVENT_READ),
                (process.stderr, selectors.EVENT_READ),
            ):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event)
            while True:
                now = time.monotonic()
                if process.poll() is not None:
                    ended_at = now if ended_at is None else ended_at
                    reading = {key.fileobj for key in selector.get_map().values()} - {process.stdin}
                    if not reading or now - ended_at > _LINGER_S:
                        return bytes(state.output), bytes(state.errors)
                if now > deadline:
                    raise ProviderError(f"{self._program} gave no answer within {self._timeout_s:g} s and was killed")
                if not selector.get_map():
                    time.sleep(_POLL_S)
                for key, _ in selector.select(_POLL_S):
                    if key.fileobj is process.stdin:
                        open_still = state.feed(process.stdin)
                    else:
                        open_still = state.read(key.fd, key.fileobj is process.stdout)
                    if not open_still:
                        selector.unregister(key.fileobj)
                if len(state.output) > MAX_OUTPUT_BYTES:
                    raise ProviderError(f"{self._program} wrote more than {MAX_OUTPUT_BYTES} bytes and was killed")


@dataclass(slots=True)
class _Exchange:
    output: bytearray
    errors: bytearray
    unsent: memoryview

    def feed(self, stdin: IO[bytes]) -> bool:
        """Send what fits; False when nothing is left to send. A command may answer without reading its input."""
        try:
            sent = os.write(stdin.fileno(), self.unsent[:_CHUNK])
        except BlockingIOError:
            return True
        except OSError:
            sent = len(self.unsent)
        self.unsent = self.unsent[sent:]
        if not self.unsent:
            stdin.close()
        return bool(self.unsent)

    def read(self, descriptor: int, is_output: bool) -> bool:
        """Take what is there; False at the end of the stream."""
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        if is_output:
            self.output += chunk
        else:
            self.errors = (self.errors + chunk)[-STDERR_TAIL_BYTES:]
        return bool(chunk)


def _answer(program: str, text: str, latency_s: float) -> Completion:
    if not text.strip():
        raise ProviderError(f"{program} answered nothing on standard output")
    try:
        value = json.loads(text)
    except ValueError:
        return Completion(text, None, None, latency_s, metered=False)
    if not isinstance(value, dict):
        return Completion(text, None, None, latency_s, metered=False)
    content, usage = value.get("content"), value.get("usage")
    if not isinstance(content, str) or not content.strip():
        raise ProviderError(f"{program} answered a JSON object whose field 'content' is missing, empty or no text")
    given = token_count(usage, "input_tokens", "prompt_tokens")
    made = token_count(usage, "output_tokens", "completion_tokens")
    return Completion(content, given, made, latency_s, metered=False)
