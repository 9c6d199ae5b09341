"""Progress on stderr."""

import io
import signal
import sys
from argparse import Namespace

import pytest

from autopoiesis.cli.interrupts import Interrupts
from autopoiesis.cli.watch import event_line, watching
from autopoiesis.simulate.run import Notice

TRANSITION = Notice(4320.0, "transition", "done in 8 s: 1 started, 0 stopped")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_event_is_a_line_with_virtual_time() -> None:
    assert event_line("milp-replan", "operator", TRANSITION) == (
        "[ 1:12:00] milp-replan  transition  done in 8 s: 1 started, 0 stopped"
    )
    assert event_line("static", "additive", TRANSITION).startswith("[ 1:12:00] static (additive)  transition")


def test_events_are_one_line_without_control_characters() -> None:
    assert event_line("a", "operator", Notice(0, "swap", "x\n\x1b[2Jy")) == "[ 0:00:00] a  swap        x \ufffd[2Jy"


def tell(quiet: bool = False, verbose: bool = False) -> None:
    arguments = Namespace(quiet=quiet, verbose=verbose, interrupts=Interrupts())
    with watching(arguments, background=["static"]) as watch:
        watch.stage("reading a.csv")
        for row in ("evolving", "static"):
            watch.progress(row, "operator", 0.5)
            watch.notice(row, "operator", TRANSITION)
            watch.progress(row, "operator", 1.0)
            watch.progress(row, "operator", 1.0)


def test_without_a_terminal_there_are_plain_lines_and_no_events_of_baselines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell()
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        *("reading a.csv", event_line("evolving", "operator", TRANSITION), "evolving: served", "static: served")
    ]
    assert said.out == ""


def test_verbose_tells_the_events_of_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    tell(verbose=True)
    assert event_line("static", "operator", TRANSITION) in capsys.readouterr().err.splitlines()


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_bars_and_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    tell()
    shown = terminal.getvalue()
    assert "100%" in shown
    for row in ("evolving", "static"):
        assert event_line(row, "operator", TRANSITION) in shown


def test_the_terminal_is_given_back_when_a_run_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def interrupted() -> None:
        with watching(Namespace(quiet=False, verbose=False, interrupts=Interrupts())) as watch:
            watch.progress("static", "operator", 0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    hidden, shown = terminal.getvalue().rfind("\x1b[?25l"), terminal.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown


def test_a_signal_that_was_swallowed_ends_the_run_at_the_next_sign_of_progress() -> None:
    interrupts = Interrupts()
    with watching(Namespace(quiet=True, verbose=False, interrupts=interrupts)) as watch:
        watch.progress("static", "operator", 0.1)
        interrupts.received = signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            watch.progress("static", "operator", 0.2)
