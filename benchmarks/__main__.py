"""The harness: every figure beside its limit and its peers, measured in one run.

    python -m benchmarks [--quick] [--only NAME …] [--save]

Prints a Markdown table. With --save the table goes into benchmarks/README.md, its JSON beside it, and the figures that
the project's README quotes into that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
import uvloop

from benchmarks import contexts, machine, memory, output, results, runs, startup, toolbox
from benchmarks.effort import Effort
from benchmarks.engines import settings
from benchmarks.results import Section
from mcp_server.sandbox import probe

HERE = Path(__file__).parent

TABLE_BEGIN = "<!-- table: written by make bench -->"
TABLE_END = "<!-- end of table -->"

QUOTATION_BEGIN = "<!-- figures: written by make bench -->"
QUOTATION_END = "<!-- end of figures -->"

BENCHES: Mapping[str, Callable[[Effort], Awaitable[Section]]] = {
    "creation": contexts.creation,
    "rates": contexts.rates,
    "first-uses": contexts.first_uses,
    "runs": runs.engine_level,
    "mcp": runs.over_mcp,
    "endings": contexts.endings,
    "streaming": output.throughput,
    "flood": output.flood,
    "shaping": output.shaped,
    "crowd": memory.crowd,
    "startup": startup.cold,
    "toolbox": toolbox.runs,
    "toolbox-streaming": toolbox.throughput,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: about a minute")
    parser.add_argument(
        "--only", nargs="+", choices=BENCHES, default=list(BENCHES), metavar="NAME", help=str([*BENCHES])
    )
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/")
    options = parser.parse_args()
    if options.save and set(options.only) != set(BENCHES):
        parser.error("--save keeps a whole run: leave out --only")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # as the command line does
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(30)
    )
    place = machine.describe(probe.probe(settings().python).tier, ", ".join(settings().preload))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sections = runner.run(measure(options.only, Effort(options.quick)))
    table = results.as_markdown(sections, place)
    print(table)
    if options.save:
        save(table, sections, place)


async def measure(names: list[str], effort: Effort) -> list[Section]:
    sections = []
    for name in names:
        began = time.monotonic()
        sections.append(await BENCHES[name](effort))
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return sections


def save(table: str, sections: list[Section], place: Mapping[str, str]) -> None:
    data = results.as_json(sections, place)
    (HERE / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    replace_between(HERE / "README.md", TABLE_BEGIN, f"\n\n{table}\n", TABLE_END)
    quoted = results.quotation(data["rows"])
    replace_between(HERE.parent / "README.md", QUOTATION_BEGIN, f"\n{quoted}\n", QUOTATION_END)


def replace_between(file: Path, begin: str, text: str, end: str) -> None:
    before, _, rest = file.read_text().partition(begin)
    _, _, after = rest.partition(end)
    file.write_text(f"{before}{begin}{text}{end}{after}")


if __name__ == "__main__":
    main()
