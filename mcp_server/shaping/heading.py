"""The first line of a report, and the statements below it: what became of the run, and how to go on."""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING

from mcp_server.model import State, Status
from mcp_server.shaping.failure import stopped_at
from mcp_server.shaping.marks import counted, one_line

if TYPE_CHECKING:
    from mcp_server.shaping.report import RunRecord

STATEMENT_CHARS = 300
"""Of one statement that comes from elsewhere (why a context was reset, a notice)."""

GO_ON = "run_code with empty code and this context_id waits for"

_STOPPED = (Status.TIMEOUT, Status.INTERRUPTED, Status.CANCELLED)


def seconds(elapsed_s: float) -> str:
    """``0.02 s``, ``12.3 s``, ``3,600 s``."""
    if elapsed_s < 10:
        return f"{elapsed_s:.2f} s"
    return f"{elapsed_s:.1f} s" if elapsed_s < 100 else f"{elapsed_s:,.0f} s"


def first_line(record: RunRecord) -> str:
    """Status, run, time and context; whether the code ran, and what it did to the variables."""
    run = f"run {record.run}{' (continued)' if record.continued else ''}"
    facts = [record.status.value, run, _time(record), one_line(record.context_id, 100), _what_happened(record)]
    if record.state is State.RESET:
        facts.append("variables lost: the context is empty again")
    elif record.status.ended and record.status is not Status.OK:
        facts.append("variables kept")
    if record.lost_before:
        facts.append("the context had been reset before this run")
    return " · ".join(filter(None, facts))


def statements(record: RunRecord) -> list[str]:
    """What else must be said before the output, the most important first."""
    said = []
    if record.status is Status.RUNNING:
        said.append(f"the code goes on: {GO_ON} the rest; interrupt=true stops it")
    elif record.status is Status.QUEUED:
        said.append(f"the code waits its turn: {GO_ON} its report")
    said.extend(record.notices)
    if record.lost_before:
        said.append(f"reset before this run, so variables of earlier runs were gone: {record.lost_before}")
    if record.detail:
        said.append(record.detail)
    if record.status in _STOPPED and record.error is not None and (place := stopped_at(record.error)):
        said.append(f"stopped at {place}")
    return [one_line(text, STATEMENT_CHARS) for text in said]


def is_the_stop_itself(record: RunRecord) -> bool:
    """Whether the error is only how the code was stopped, and not one of its own."""
    return record.status in _STOPPED and record.error is not None and record.error.name == "KeyboardInterrupt"


def _time(record: RunRecord) -> str:
    if record.status is Status.QUEUED:
        return f"waited {seconds(record.elapsed_s)}"
    return f"{seconds(record.elapsed_s)} so far" if record.status is Status.RUNNING else seconds(record.elapsed_s)


def _what_happened(record: RunRecord) -> str:
    match record.status:
        case Status.OK:
            return "" if record.exit_code is None else f"ended by exit({record.exit_code})"
        case Status.ERROR:
            return "stopped by its exception"
        case Status.TIMEOUT:
            return (
                f"stopped at its limit of {_limit(record.limit_s)}" if record.limit_s else "stopped at its time limit"
            )
        case Status.INTERRUPTED:
            return "stopped by an interrupt"
        case Status.CANCELLED:
            return "stopped because its call was cancelled"
        case Status.OUT_OF_MEMORY:
            return "killed: out of memory"
        case Status.CRASHED:
            return _how_it_died(record)
        case Status.QUEUED:
            ahead = counted(record.queued_behind, "run")
            return f"not started: {ahead} ahead" if record.queued_behind else "not started"
        case Status.RUNNING:
            return "still running"


def _limit(limit_s: float) -> str:
    return f"{limit_s:,.10g} s"


def _how_it_died(record: RunRecord) -> str:
    if record.signal is not None:
        try:
            return f"killed by {signals.Signals(record.signal).name} (signal {record.signal})"
        except ValueError:
            return f"killed by signal {record.signal}"
    return "the process died" if record.exit_code is None else f"the process exited with code {record.exit_code}"
