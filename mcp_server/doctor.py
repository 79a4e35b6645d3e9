"""`mcp-code-interpreter doctor`: what this machine offers, layer by layer, and the mend of what it lacks."""

from __future__ import annotations

import platform

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcp_server.sandbox.cell import Warmth
from mcp_server.sandbox.policy import Tier
from mcp_server.sandbox.probe import GAPS, ProbeResult, rows


def show(console: Console, result: ProbeResult, warmth: Warmth | None, python: str) -> None:
    """Print the findings. ``warmth`` is None where no interpreter could be started."""
    console.print(_machine(python, warmth))
    console.print(_layers(result))
    console.print(Text.assemble("Sandbox tier here: ", (str(result.tier), "bold " + _colour(result.tier))))
    for gap in GAPS[result.tier]:
        console.print(Text("- " + gap))
    for row in rows(result):
        if not row.works and row.mend:
            console.print(Text.assemble(("\n" + row.layer, "bold"), ": ", row.mend))


def _machine(python: str, warmth: Warmth | None) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("system", Text(f"{platform.system()} {platform.release()}, {platform.machine()}"))
    table.add_row("server", Text(f"Python {platform.python_version()}"))
    if warmth is None:
        table.add_row("contexts", Text(f"{python}: cannot be started", "red"))
        return table
    table.add_row("contexts", Text(f"Python {warmth.python}, {python}"))
    loaded = ", ".join(warmth.preloaded) or "nothing"
    table.add_row("preloaded", Text(f"{loaded} in {warmth.warm_s:.2f} s"))
    for module, reason in warmth.failed.items():
        table.add_row("", Text(f"{module}: {reason}", "yellow"))
    return table


def _layers(result: ProbeResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "layer", "found", "needed by"):
        table.add_column(heading, overflow="fold")
    for row in rows(result):
        mark = Text("ok", "green") if row.works else Text("no", "red" if result.tier in row.tiers else "yellow")
        table.add_row(mark, Text(row.layer), Text(row.detail), Text(", ".join(row.tiers)))
    return table


def _colour(tier: Tier) -> str:
    return {Tier.STRONG: "green", Tier.NONE: "red"}.get(tier, "yellow")
