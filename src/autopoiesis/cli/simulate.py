"""`autopoiesis simulate`: serve a workload under one fixed policy, and say what came of it."""

from __future__ import annotations

import argparse

from autopoiesis.cli.flags import FORMATS, add_output, add_scenario, add_store, add_tables, scenario_config, table_paths
from autopoiesis.cli.output import dumps, emit, simulate_json, write_whole
from autopoiesis.cli.parser import Commands, described
from autopoiesis.cli.references import FORMS, checked
from autopoiesis.errors import PolicyError


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate",
        help="serve a workload under one policy",
        **described(
            "Serve a workload on a simulated cluster under one fixed policy.",
            "autopoiesis simulate --workload llama-3.1-8b=trace.csv.gz --cluster demo-8 --policy milp-replan",
            notes=FORMATS,
        ),
    )
    parser.add_argument("--policy", metavar="POLICY", required=True, help=FORMS)
    add_scenario(parser)
    add_output(parser)
    add_tables(parser)
    add_store(parser, "where evolved policies and prepared scenarios are kept")
    parser.set_defaults(execute=simulate_one, parser=parser)


def simulate_one(arguments: argparse.Namespace) -> int:
    """Simulate, write the CSV tables, the page and the JSON, print the table."""
    source, refusals = checked(arguments.policy, arguments.store)
    if refusals:
        more = f" ({len(refusals) - 1} more: autopoiesis policy check {arguments.policy})" if refusals[1:] else ""
        raise PolicyError(f"policy {arguments.policy}: {refusals[0]}{more}")
    scenario = scenario_config(arguments)

    from autopoiesis.cli.csv_files import csv_files
    from autopoiesis.cli.pages import page_writer
    from autopoiesis.cli.table import drawn, operator_table, paper_table
    from autopoiesis.cli.watch import watching
    from autopoiesis.control.config import RunConfig
    from autopoiesis.control.run import simulate
    from autopoiesis.report.numbers import short

    config = RunConfig(scenario, paper=arguments.paper, store=arguments.store)
    with csv_files(table_paths(arguments)) as served, watching(arguments) as watch:
        report = simulate(config, source, watch, served, page_writer(arguments.report))
    if arguments.json is not None:
        write_whole(arguments.json, dumps(simulate_json(report)))
    tables = [operator_table([report.row])]
    if report.row.paper is not None:
        tables.append(paper_table([report.row]))
    speed = f"{report.simulated_requests_per_s:.0f} simulated requests/s"
    emit(drawn(*tables) + f"\n{short(report.wall_s)} s, {speed}, {report.peak_rss_mb:.0f} MB\n")
    return 0
