"""Fetching traces, from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit

import pytest

from autopoiesis.errors import TraceError
from autopoiesis.workload.fetch import SHA256, fetch, sources

CONTENT = b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"2023-11-16 18:15:46.6805900,374,44\n" * 20_000
RIGHT = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2

Answer: TypeAlias = Callable[["Site"], None]


class Site(BaseHTTPRequestHandler):
    """Answers by path; keeps what was asked for."""

    answers: ClassVar[dict[str, Answer]] = {}
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.ranges.append(self.headers.get("Range"))
        self.answers[self.path](self)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def reply(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


def whole(site: Site) -> None:
    site.reply(200, CONTENT)


def with_ranges(site: Site) -> None:
    asked = site.headers.get("Range")
    if asked is None:
        site.reply(200, CONTENT)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(CONTENT):
        site.reply(416, b"")
        return
    site.reply(206, CONTENT[start:], Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")


def broken_off(site: Site) -> None:
    site.reply(200, CONTENT[:HALF], len(CONTENT))


def another_part(site: Site) -> None:
    site.reply(206 if site.headers.get("Range") else 200, CONTENT, Content_Range=f"bytes 0-9/{len(CONTENT)}")


def missing(site: Site) -> None:
    site.reply(404, b"no")


def oversize(site: Site) -> None:
    site.reply(200, b"", 10**12)


def endless(site: Site) -> None:
    site.reply(200, CONTENT * 3, -1)


def moved(site: Site) -> None:
    site.reply(302, b"", Location="/whole")


def moved_elsewhere(site: Site) -> None:
    site.reply(302, b"", Location="ftp://127.0.0.1/whole")


def moved_to_a_file(site: Site) -> None:
    site.reply(302, b"", Location="file:///etc/hostname")


def moved_in_circles(site: Site) -> None:
    site.reply(302, b"", Location="/moved_in_circles")


def silent(site: Site) -> None:
    threading.Event().wait(2.0)


ANSWERS: tuple[Answer, ...] = (
    *(whole, with_ranges, broken_off, another_part, missing, oversize, endless),
    *(moved, moved_elsewhere, moved_to_a_file, moved_in_circles, silent),
)


@pytest.fixture
def site() -> Iterator[str]:
    Site.answers = {f"/{answer.__name__}": answer for answer in ANSWERS}
    Site.ranges = []
    with Server(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def refusal(url: str, out: Path, sha256: str = RIGHT, most_bytes: int = 10**7) -> str:
    with pytest.raises(TraceError) as caught:
        fetch(url, str(out), sha256, most_bytes, timeout_s=0.5)
    assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()
    return str(caught.value)


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_good_file_takes_its_name_and_leaves_nothing_beside(site: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "azure.csv"
    assert fetch(f"{site}whole", str(out), RIGHT, progress=lambda d, t: told.append((d, t))) == len(CONTENT)
    assert out.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert left(tmp_path) == ["azure.csv"]


def test_a_wrong_checksum_leaves_nothing(site: str, tmp_path: Path) -> None:
    message = refusal(f"{site}whole", tmp_path / "out", "0" * 64)
    assert f"the checksum of what came is {RIGHT}" in message
    assert left(tmp_path) == []


def test_a_file_that_was_there_stays_until_the_new_one_is_right(site: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    with pytest.raises(TraceError, match="checksum"):
        fetch(f"{site}whole", str(out), "0" * 64)
    assert out.read_text() == "old"
    fetch(f"{site}whole", str(out), RIGHT)
    assert out.read_bytes() == CONTENT


def test_a_download_that_broke_off_goes_on_from_there(site: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert f"broke off after {HALF:,} of {len(CONTENT):,} bytes" in refusal(f"{site}broken_off", out)
    assert left(tmp_path) == [".out.download"]
    fetch(f"{site}with_ranges", str(out), RIGHT)
    assert Site.ranges == [None, f"bytes={HALF}-"]
    assert out.read_bytes() == CONTENT
    assert left(tmp_path) == ["out"]


def test_a_server_without_parts_sends_all_of_it_again(site: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refusal(f"{site}broken_off", out)
    fetch(f"{site}whole", str(out), RIGHT)
    assert out.read_bytes() == CONTENT


def test_what_is_left_of_a_larger_file_is_thrown_away(site: str, tmp_path: Path) -> None:
    (tmp_path / ".out.download").write_bytes(CONTENT * 2)
    fetch(f"{site}with_ranges", str(tmp_path / "out"), RIGHT)
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_refused(site: str, tmp_path: Path) -> None:
    (tmp_path / ".out.download").write_bytes(CONTENT[:HALF])
    assert "another part" in refusal(f"{site}another_part", tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "the server answers 404"),
        ("oversize", "more than the 10,000,000"),
        ("moved_elsewhere", "which is not http"),
        ("moved_to_a_file", "file:///etc/hostname"),
        ("moved_in_circles", "the server answers 302"),
        ("silent", "cannot be fetched"),
    ],
)
def test_what_a_server_must_not_do_is_one_line(site: str, tmp_path: Path, path: str, words: str) -> None:
    assert words in refusal(f"{site}{path}", tmp_path / "out")
    assert left(tmp_path) == []


def test_a_file_that_says_no_size_is_cut_off_all_the_same(site: str, tmp_path: Path) -> None:
    assert "more than 1,000,000 bytes" in refusal(f"{site}endless", tmp_path / "out", most_bytes=1_000_000)


def test_a_redirection_that_stays_with_the_scheme_is_followed(site: str, tmp_path: Path) -> None:
    assert fetch(f"{site}moved", str(tmp_path / "out"), RIGHT) == len(CONTENT)


def test_a_server_that_is_not_there_is_one_line(site: str, tmp_path: Path) -> None:
    port = urlsplit(site).port or 0
    assert "cannot be fetched" in refusal(f"http://127.0.0.1:{port}1/", tmp_path / "out")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://host/file", "azure-2023", "", "http://", "https://[::1"]
)
def test_what_is_no_address_of_the_web_is_refused(tmp_path: Path, url: str) -> None:
    assert url in refusal(url, tmp_path / "out")


@pytest.mark.parametrize("sha256", ["", "abc", RIGHT.upper(), RIGHT + "0"])
def test_what_is_no_checksum_is_refused(tmp_path: Path, sha256: str) -> None:
    assert "not a SHA-256" in refusal("https://127.0.0.1/", tmp_path / "out", sha256)


def test_a_folder_that_is_not_there_is_named(site: str, tmp_path: Path) -> None:
    assert "cannot be written" in refusal(f"{site}whole", tmp_path / "absent" / "out")


def test_every_source_says_where_it_is_what_it_is_and_under_what_terms() -> None:
    assert {"azure-2023", "azure-2024", "burstgpt", "mooncake"} <= set(sources())
    for source in sources().values():
        assert urlsplit(source.url).scheme == "https"
        assert SHA256.fullmatch(source.sha256)
        assert source.licence
        assert source.attribution
        assert source.most_bytes > source.bytes > 0
