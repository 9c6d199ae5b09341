"""A headless Chromium, driven over a pipe by the DevTools protocol: what a page does in a real browser.

https://chromedevtools.github.io/devtools-protocol/; messages are JSON, each followed by a null byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
READ, WRITE = 3, 4
"""File descriptors that Chromium reads commands from and writes answers to."""
ON_PIPE = f"""
import os, sys
os.dup2(int(sys.argv[1]), {READ})
os.dup2(int(sys.argv[2]), {WRITE})
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE_S = 60.0


def find_chromium() -> str | None:
    """The program that AUTOPOIESIS_CHROMIUM names, or one on the PATH."""
    named = os.environ.get("AUTOPOIESIS_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page, and what it did that a reader would not want."""

    def __init__(self, to: int, of: int) -> None:
        self.complaints: list[str] = []
        """Errors and warnings of the console, and exceptions."""
        self.requests: list[str] = []
        """Addresses of everything loaded."""
        self._to, self._of = to, of
        self._count = 0
        self._session: str | None = None
        self._rest = b""
        self._happened: set[str] = set()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events meanwhile are taken down."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
            self._heard(answer)

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of so many pixels."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._happened.discard("Page.loadEventFired")
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._happened:
            self._heard(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def printed(self) -> bytes:
        """The page on paper, as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def _heard(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        self._happened.add(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._of], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._of, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def tab(program: str, profile: Path) -> Iterator[Tab]:
    """A fresh browser with one page; `profile` is a folder for what it keeps."""
    commands, to = os.pipe()
    of, answers = os.pipe()
    flags = [
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--disable-gpu",
    ]
    flags += ["--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars"]
    if os.geteuid() == 0:
        # Chromium refuses to run as root otherwise; the page is our own
        flags.append("--no-sandbox")
    process = subprocess.Popen(
        [sys.executable, "-c", ON_PIPE, str(commands), str(answers), program, *flags],
        pass_fds=(commands, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
    )
    os.close(commands)
    os.close(answers)
    try:
        yield Tab(to, of)
    finally:
        os.close(to)
        os.close(of)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
