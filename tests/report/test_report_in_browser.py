"""The page in a real browser: whole, silent, alone, and no wider than a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Tab, find_chromium, tab
from report_accounts import FIXED, account

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'autopoiesis[report]'")

from autopoiesis.report import page

PHONE, LAPTOP = 375, 1280
SMALLEST = 9.0
"""Pixels of the smallest text that a plot may have on a phone."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed: put one on the PATH, or name it with AUTOPOIESIS_CHROMIUM")
    with tab(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(account(windows=60, paper=True)), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
@pytest.mark.parametrize("dark", [False, True])
def test_it_loads_nothing_but_itself_and_complains_of_nothing(browser: Tab, file: Path, width: int, dark: bool) -> None:
    browser.requests.clear()
    browser.open(file, width, dark=dark)
    assert browser.requests == [file.as_uri()]
    assert browser.complaints == []


def test_everything_is_there(browser: Tab, file: Path) -> None:
    browser.open(file, LAPTOP)
    assert browser.value("document.compatMode") == "CSS1Compat"
    assert browser.value("document.querySelectorAll('main > section').length") == 9
    assert browser.value("document.querySelectorAll('#table tbody tr').length") == 2 * (1 + len(FIXED))
    drawn = "[...document.querySelectorAll('figure > svg')].filter(s => s.getBBox().width > 100).length"
    assert browser.value(drawn) == browser.value("document.querySelectorAll('figure').length") > 40
    assert browser.value("document.querySelectorAll('script').length") == 0


@pytest.mark.parametrize("width", [320, PHONE, 768, LAPTOP])
def test_nothing_sticks_out_sideways(browser: Tab, file: Path, width: int) -> None:
    browser.open(file, width)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    # a part that is wider than the page scrolls by itself
    sticks_out = """[...document.querySelectorAll('body *')].filter(e =>
        !e.closest('.scroll, .diff, svg') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert browser.value(sticks_out) == []


def test_text_in_plots_can_be_read_on_a_phone(browser: Tab, file: Path) -> None:
    browser.open(file, PHONE)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = """[...document.querySelectorAll('figure svg text')].map(t =>
        parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b))"""
    assert min(browser.value(sizes)) >= SMALLEST


def test_it_prints_on_a_few_pages(browser: Tab, file: Path) -> None:
    browser.open(file, LAPTOP)
    paper = browser.printed()
    assert paper.startswith(b"%PDF")
    assert 5 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") <= 30
