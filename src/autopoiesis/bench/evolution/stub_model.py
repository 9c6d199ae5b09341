"""A model that answers at once: chat completions over HTTP on 127.0.0.1, by the standard library alone.

`python stub_model.py --program FILE` prints `http://127.0.0.1:PORT` once it serves. Every answer to
`POST …/chat/completions` holds the program in FILE in one fenced block, padded to one size, with a fresh number in its
line `CONST = …`; the prompt is not read. The model `full` does no more; of the model `hang`, every fifth program loops
for ever where FILE says `# LOOP`. The same seed gives the same answers in the same order. `GET /calls` tells how many
were given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

MODELS = ("full", "hang")
HANG_EVERY = 5
SIZE = 4096
"""Bytes of a program."""
_CONSTANT = re.compile(r"^CONST = .*$", re.M)
_LOOP = re.compile(r"^( *)# LOOP$", re.M)
_FILLER = "#" + "." * 98 + "\n"


class Programs:
    """The programs of one file. Raises ValueError for a file without its markers, or larger than SIZE."""

    def __init__(self, template: str, seed: int = 0) -> None:
        if not (_CONSTANT.search(template) and _LOOP.search(template)):
            raise ValueError("the program lacks its line 'CONST = …' or '# LOOP'; write both")
        self._template = template
        self._draws = random.Random(seed)
        self._hanging = 0
        self.calls = 0
        padded(_looping(template))

    def answer(self, model: str) -> str:
        """The next completion, with the tags that one peer or another looks for."""
        self.calls += 1
        value = self._draws.random()
        text = _CONSTANT.sub(f"CONST = {value:.9f}", self._template, count=1)
        if model == "hang":
            self._hanging += 1
            if self._hanging % HANG_EVERY == 0:
                text = _looping(text)
        name = f"<NAME>\nprogram_{self.calls}\n</NAME>\n<DESCRIPTION>\nanother constant\n</DESCRIPTION>\n"
        return f"{name}<CODE>\n```python\n{padded(text)}```\n</CODE>\n"


def padded(text: str) -> str:
    """The program with comments up to SIZE bytes. Raises ValueError if it is larger."""
    missing = SIZE - len(text.encode())
    if missing < 1:
        raise ValueError(f"the program has {SIZE - missing} bytes; keep it below {SIZE}")
    return text + (_FILLER * (missing // len(_FILLER) + 1))[: missing - 1] + "\n"


def _looping(text: str) -> str:
    return _LOOP.sub(r"\1while True:\n\1    pass", text, count=1)


async def serve(programs: Programs, port: int) -> None:
    """Answer until cancelled; says the address on stdout. Port 0 takes a free one."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                line, body = await _request(reader)
                status, answer = _answer(programs, line, body)
                text = json.dumps(answer).encode()
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
                writer.write(head.encode() + text)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The request line and the body."""
    line, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    lengths = [h.partition(":")[2] for h in headers if h.lower().startswith("content-length:")]
    return line, await reader.readexactly(int(lengths[0])) if lengths else b""


def _answer(programs: Programs, line: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """Status and JSON."""
    method, path, _ = line.split(" ", 2)
    if (method, path) == ("GET", "/calls"):
        return "200 OK", {"calls": programs.calls}
    if method != "POST" or not path.endswith("/chat/completions"):
        return "404 Not Found", {"error": {"message": f"no {method} {path} here"}}
    model = json.loads(body).get("model")
    if model not in MODELS:
        return "404 Not Found", {"error": {"message": f"no model {model!r}; there are {' and '.join(MODELS)}"}}
    content = programs.answer(model)
    given, made = len(body) // 4, len(content) // 4
    return "200 OK", {
        "id": f"stub-{programs.calls}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(serve(Programs(arguments.program.read_text(encoding="utf-8"), arguments.seed), arguments.port))
