"""The page about a run: whole, well formed, safe whatever a model wrote, and the same every time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest
from report_accounts import FIXED, HOSTILE, MODELS, SWAP, account, alone, life

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'autopoiesis[report]'")

from autopoiesis.control.account import MOST_REPLICAS, Account
from autopoiesis.report import page
from autopoiesis.report.html import EMPTY

SECTIONS = ["summary", "table", "load", "money", "plans", "time", "service", "lineage", "reading"]
LARGEST = 3_000_000
"""Bytes."""


class Reader(HTMLParser):
    """Reads a page as strictly as HTML can be read, and takes down what it finds."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def whole() -> Account:
    return account(paper=True, swaps=(SWAP, replace(SWAP, mode="overlapped")))


@pytest.fixture(scope="module")
def text(whole: Account) -> str:
    return page(whole)


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def test_every_section_is_there_and_linked(read: Reader) -> None:
    assert [id for id in read.ids if id in SECTIONS] == SECTIONS
    links = [value for tag, name, value in read.attributes if (tag, name) == ("a", "href")]
    assert links == [f"#{section}" for section in SECTIONS]


def test_elements_are_nested_and_ids_are_unique(read: Reader) -> None:
    assert [id for id, count in Counter(read.ids).items() if count > 1] == []
    named = [value for _, name, value in read.attributes if name in ("href", "xlink:href", "aria-labelledby")]
    assert {name.removeprefix("#") for name in named} <= set(read.ids)


def test_nothing_is_loaded_and_nothing_is_run(text: str, read: Reader) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(read.tags)
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    loads = [value for _, name, value in read.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert all(value.startswith("#") for value in loads)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", text))


def test_what_a_model_wrote_is_shown_and_never_done(read: Reader) -> None:
    assert read.text.count("<script>alert(1)</script>") >= 3
    assert "\u202e" not in read.text
    assert HOSTILE.replace("\u202e", "\ufffd") in read.text


def test_what_befell_the_policies_is_listed(read: Reader) -> None:
    for name in ("evolving", "amortised"):
        assert f"Events under {name} (1)" in read.text
    assert "0:01:01" in read.text
    assert "h100 has 8 GPUs" in read.text


def test_every_figure_says_what_it_shows(read: Reader) -> None:
    images = sum(value == "img" for _, name, value in read.attributes if name == "role")
    figures = read.tags["figure"]
    assert images == figures == read.tags["figcaption"]
    assert read.tags["title"] == figures + 1
    assert read.tags["desc"] == figures
    # every policy: its deployment, and its phases in three modes; 4 charts of the load, 3 of money, 6 of service
    assert figures == (1 + 3) * (1 + len(FIXED)) + 4 + 3 + 6


def test_tables_are_tables_with_captions_and_headers(read: Reader) -> None:
    assert read.tags["table"] == read.tags["caption"] == read.tags["thead"]
    scopes = Counter(value for _, name, value in read.attributes if name == "scope")
    assert scopes["col"] > 0
    assert scopes["row"] >= 2 * (1 + len(FIXED))


def test_transitions_are_hatched(text: str) -> None:
    plan = text[text.index('<figure id="plan-operator-0"') :]
    plan = plan[: plan.index("</figure>")]
    assert plan.count("<pattern") >= 2
    assert "url(#plan-operator-0-" in plan


def test_the_difference_from_the_parent_is_on_the_page(text: str) -> None:
    assert "<del>-    return False</del>" in text
    assert "<ins>+    return state.now_s &gt; 60</ins>" in text
    assert "Difference from its nearest parent, static: 2 lines added, 2 removed" in text


def test_equal_accounts_give_equal_bytes(text: str) -> None:
    assert page(account(paper=True, swaps=(SWAP, replace(SWAP, mode="overlapped")))) == text


def test_the_page_says_no_path_of_the_machine(text: str) -> None:
    assert "/secret/" not in text
    assert "llama-3.1-8b.csv" in text


def test_a_page_of_eight_policies_and_sixty_windows_is_small() -> None:
    assert len(page(account(windows=60, paper=True)).encode()) < LARGEST


def test_a_run_of_very_many_takeovers_and_replicas_stays_small() -> None:
    many = account(windows=240, swaps=tuple(replace(SWAP, t=60.0 * n) for n in range(1, 200)))
    for leg in many.legs.values():
        assert leg.course is not None
        lives = [life(MODELS[n % 2], n % 8, 1, 14.0 * n, 14.0 * (n + 8), started_s=5.0) for n in range(MOST_REPLICAS)]
        leg.course = msgspec.structs.replace(leg.course, replicas=lives, replicas_left_out=17)
    text = page(many)
    assert len(text.encode()) < LARGEST
    assert "The other 159 takeovers" in text
    assert f"{MOST_REPLICAS + 17:,} replicas in all" in text
    assert f"the first {MOST_REPLICAS:,} replicas are drawn" in text


def test_a_policy_served_by_itself_has_a_page_too() -> None:
    read = Reader(page(alone()))
    assert [id for id in read.ids if id in SECTIONS] == SECTIONS
    assert "The policy at work" in read.text
    assert "best fixed policy)" not in read.text


@pytest.mark.parametrize("windows", [1, 2])
def test_a_run_of_hardly_any_window_has_a_page(windows: int) -> None:
    Reader(page(account(windows=windows, swaps=())))
    Reader(page(alone(windows)))
