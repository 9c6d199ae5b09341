"""Reports as `control` would return them, for tables and JSON."""

from autopoiesis.control.config import PaperPair, Report, Row, SimulateReport, SwapEntry
from autopoiesis.simulate.outcome import Books, PaperTimes, Spread


def books(good: int = 900, cost_usd: float = 12.5, delay_s: float = 300.0) -> Books:
    spread = Spread(0.4, 0.25, 1.1, 2.345)
    return Books(
        requests=1000,
        completed=970,
        lost=5,
        shed=20,
        rejected=5,
        good=good,
        goodput=good / 1000,
        cost_usd=cost_usd,
        cost_per_good_usd=cost_usd / good if good else None,
        delay_s=delay_s,
        gpu_hours=8.0,
        ttft_s=spread,
        tpot_s=Spread(0.03, 0.025, 0.0456, 0.08),
        e2e_s=Spread(10.0, 9.0, 20.0, 30.0),
    )


def row(name: str, kind: str, good: int = 900, paper_s: float | None = None, delay_s: float = 300.0) -> Row:
    paper = None
    if paper_s is not None:
        times = PaperTimes(paper_s, 10.0, 20.0, paper_s - 30.0)
        paper = PaperPair(overlapped=times, additive=PaperTimes(2 * paper_s, 10.0, 20.0, 2 * paper_s - 30.0))
    return Row(name, kind, books(good, delay_s=delay_s), paper, 3)


def report(paper: bool = True) -> Report:
    seconds = (3000.0, 3600.0, 4000.0) if paper else (None, None, None)
    return Report(
        rows=(
            row("evolving", "evolving", 950, seconds[0]),
            row("static", "baseline", 800, seconds[1]),
            row("milp-replan", "baseline", 900, seconds[2], delay_s=600.0),
        ),
        swaps=(
            SwapEntry(
                t=3720.0,
                mode="operator",
                policy="0123456789abcdef",
                parent=None,
                provider="structural",
                evidence={"holdout": {"incumbent": 0.0141234, "challenger": 0.013}, "windows": [1, 2, 3], "won": True},
            ),
        ),
        seed=7,
        wall_s=12.3456789012,
    )


def simulate_report() -> SimulateReport:
    return SimulateReport(row("static", "baseline"), 3.25, 123456.789, 210.0)
