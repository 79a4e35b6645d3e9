"""One long log, cut by our report and by the rules that other agents publish: which facts survive?

    python benchmarks/cut_comparison.py            prints the page
    python benchmarks/cut_comparison.py --write    writes docs/cutting.md

The log is the same on every machine. A fact survives where the text that the model would read contains it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcp_server.model import Status, StoredOutput
from mcp_server.shaping.report import RunRecord, compose
from mcp_server.shaping.stream import StreamShaper

PAGE = Path(__file__).parent.parent / "docs" / "cutting.md"
STORED_PATH = "/outputs/run-4/stdout"
LOG_BYTES = 2_000_000
FAILURE = [
    "2026-01-05 13:11:02 ERROR payments order 48213 could not be charged",
    "Traceback (most recent call last):",
    '  File "/work/payments.py", line 88, in charge',
    "    gateway.send(order)",
    "ConnectionResetError: gateway closed the connection after 30 s",
]
SUMMARY = ["imported 24,117 of 24,118 orders, 1 failed", "report written to /work/out/orders.csv", "exit: 1 failure"]


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    signs: tuple[str, ...]

    def survives(self, text: str) -> bool:
        return all(sign in text for sign in self.signs)


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    cut: Callable[[str], str]


def build_log() -> str:
    """About 2 MB: a start, a bar redrawn in place, thousands of orders, a failure in the middle, a summary."""
    rng = random.Random(2026)
    start = ["orders 3.2 starting with settings from /work/orders.toml", "database: 24,118 orders to import"]
    bar = "".join(f"\r\x1b[32mloading\x1b[0m {n:3}%|{'#' * (n // 4):25}|" for n in range(101)) + "\n"
    orders: list[str] = []
    length = 0
    while length < LOG_BYTES:
        order = 20_000 + len(orders)
        orders.append(f"2026-01-05 13:{order // 60 % 60:02}:{order % 60:02} INFO  orders order {order} "
                      f"imported, {rng.randrange(1, 40)} items, total {rng.random() * 900:.2f} EUR")  # fmt: skip
        length += len(orders[-1]) + 1
    middle = len(orders) // 2
    lines = [*orders[:middle], *FAILURE, *orders[middle:], *SUMMARY]
    return "\n".join(start) + "\n" + bar + "\n".join(lines) + "\n"


def our_report(budget_chars: int) -> Callable[[str], str]:
    def cut(log: str) -> str:
        shaper = StreamShaper(budget_chars)
        shaper.feed(log.encode())
        stored = StoredOutput("run://ctx_example/4/stdout", STORED_PATH)
        record = RunRecord(Status.OK, "ctx_example", 4, 12.0, stdout=shaper.finish(), stored_stdout=stored)
        return compose(record, budget_chars).text

    return cut


def head_and_tail(head_chars: int, tail_chars: int) -> Callable[[str], str]:
    """As most do it: two cuts anywhere, a mark between them."""

    def cut(log: str) -> str:
        left_out = len(log) - head_chars - tail_chars
        return (
            f"{log[:head_chars]}\n[... {left_out} characters truncated ...]\n{log[-tail_chars:] if tail_chars else ''}"
        )

    return cut


RULES = (
    Rule("this server, 9,000 characters (the default)", our_report(9_000)),
    Rule("this server, 3,000 characters", our_report(3_000)),
    Rule("16 KiB, half from each end", head_and_tail(8_192, 8_192)),
    Rule("30,000 characters, half from each end", head_and_tail(15_000, 15_000)),
    Rule("40,000 characters, 20 % head and 80 % tail", head_and_tail(8_000, 32_000)),
    Rule("30,000 characters, head only", head_and_tail(30_000, 0)),
)


def facts(log: str) -> tuple[Fact, ...]:
    lines = log.count("\n")
    return (
        Fact("how it started", ("settings from /work/orders.toml", "24,118 orders to import")),
        Fact("the bar's last state", ("100%|#########################|",)),
        Fact("that something failed, and which order", (FAILURE[0],)),
        Fact("where and why it failed", tuple(FAILURE[1:])),
        Fact("the summary", tuple(SUMMARY)),
        Fact("where the whole output is", (STORED_PATH,)),
        Fact(f"every line of the {lines:,} is shown or counted", ("\0",)),
    )


def counts_every_line(log: str, text: str) -> bool:
    """Whether lines shown and lines stated as left out add up to the log's."""
    shown = set(log.replace("\x1b[32m", "").replace("\x1b[0m", "").replace("\r", "\n").split("\n")) - {""}
    stated = 0
    seen = 0
    for line in text.split("\n"):
        if line.startswith("⟦… "):
            stated += int(line.split()[1].replace(",", ""))
        elif line in shown:
            seen += 1
    return stated > 0 and seen + stated == log.count("\n")


def page() -> str:
    log = build_log()
    texts = {rule: rule.cut(log) for rule in RULES}
    rows = []
    for fact in facts(log):
        exact = fact.signs == ("\0",)
        marks = [
            "yes" if (counts_every_line(log, text) if exact else fact.survives(text)) else "–"
            for text in texts.values()
        ]
        rows.append([fact.name, *marks])
    rows.append(["characters the model reads", *(f"{len(text):,}" for text in texts.values())])
    table = ["| fact | " + " | ".join(rule.name for rule in RULES) + " |", "| --- |" + " :-: |" * len(RULES)]
    table += ["| " + " | ".join(row) + " |" for row in rows]
    return (
        PROLOGUE.format(megabytes=len(log.encode()) / 1e6, lines=log.count("\n")) + "\n".join(table) + "\n" + EPILOGUE
    )


PROLOGUE = """# How output is cut

<!-- Written by benchmarks/cut_comparison.py --write; change it there. -->

One log of {megabytes:.1f} MB and {lines:,} lines: a start, a progress bar, orders, **a failure in the middle**, more
orders and a summary at the end. It is cut by this server's report and by rules that other agents publish (the rule
alone: what an agent may do beside it is not counted). A fact survives where the text that the model reads contains it.

"""

EPILOGUE = """
What makes the difference:

- **Redrawn lines cost nothing.** A progress bar is shown as its last state, colours are removed, repeats are counted.
- **Cuts fall between lines**, and a gap is a line of its own that says how many lines and characters are missing.
- **The first line in a gap that tells of a failure is shown**, with what follows it. The search is for plain words such
  as `ERROR` or `Traceback`, in the first 64 MiB that are left out; what it means is for the reader to judge.
- **Nothing is gone.** The gap names the file from which the same code can read all of it.

Everything that the server says itself stands between `⟦` and `⟧`. No program can print these: its own are shown as `〚`
and `〛`. Control characters are shown as symbols (`␀`, `␛`), bytes that are no UTF-8 as `�`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/cutting.md instead of printing")
    if parser.parse_args().write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
