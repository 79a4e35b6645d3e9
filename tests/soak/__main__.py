"""`python -m tests.soak`: a table of what happened; exit status 0 where every invariant held."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.census import MIB, Census
from tests.soak.soak import Options, Result, soak


def main(arguments: Sequence[str] | None = None) -> int:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--duration", type=float, default=defaults.duration_s, metavar="SECONDS")
    parser.add_argument("--warm-up", type=float, default=None, metavar="SECONDS", help="default: a tenth")
    parser.add_argument("--conversations", type=int, default=defaults.conversations, metavar="NUMBER")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="the same for programs")
    given = parser.parse_args(arguments)
    options = Options(
        duration_s=given.duration,
        warm_up_s=given.warm_up if given.warm_up is not None else given.duration / 10,
        conversations=given.conversations,
        seed=given.seed if given.seed is not None else random.SystemRandom().getrandbits(32),
    )
    console = Console()
    result = asyncio.run(soak(options, lambda text: console.print(text, markup=False, highlight=False)))
    _show(console, result)
    if given.json is not None:
        given.json.write_text(json.dumps(_for_programs(result), indent=2) + "\n")
    return 1 if result.faults else 0


def _for_programs(result: Result) -> dict[str, object]:
    return {**asdict(replace(result, counts=Counter())), "counts": dict(result.counts)}


def _show(console: Console, result: Result) -> None:
    counts = Table("what", "how often", title=f"Soak of {result.options.duration_s:g} s, seed {result.options.seed}")
    for name, count in sorted(result.counts.items()):
        counts.add_row(name, f"{count:,}")
    counts.add_row("calls answered", f"{result.calls:,}")
    counts.add_row("slowest call", f"{result.slowest_call_s:.2f} s")
    counts.add_row("stop", f"{result.stop_s:.2f} s")
    console.print(counts)
    takes = Table("at rest", "server RSS", "descriptors", "threads", "processes", "their PSS")
    for name, census in (("at the start", result.idle), ("warmed up", result.warmed), ("at the end", result.ended)):
        if census is not None:
            takes.add_row(name, *_columns(census))
    console.print(takes)
    for fault in result.faults:
        console.print(f"✗ {fault}", style="red", markup=False, highlight=False)
    if not result.faults:
        console.print("✓ every call answered or cancelled, no mix-up, flat, nothing left", style="green")


def _columns(census: Census) -> list[str]:
    pss = "not told" if census.descendants_pss is None else f"{census.descendants_pss / MIB:.1f} MiB"
    facts = (census.server_descriptors, census.server_threads, census.processes)
    return [f"{census.server_rss / MIB:.1f} MiB", *map(str, facts), pss]


if __name__ == "__main__":
    sys.exit(main())
