"""A run becomes the text that a model reads, the images it sees, and a record for machines.

    first line        status · run · time · context · what happened
    ⟦statements⟧      how to go on, notices, why the context was reset
    stdout            without a heading
    ⟦stderr⟧ ⟦late output⟧ ⟦displayed⟧ ⟦result⟧ ⟦error⟧ ⟦files⟧
                      each only where there is something

The whole text keeps within its budget, and an error's type and message are always in it. Sections share the rest:
error first, then values, then the streams; what one does not use another may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcp_server.model import DisplayChunk, ErrorInfo, FileChange, Report, State, Status, StoredOutput
from mcp_server.shaping.failure import NAME_CHARS, shape_failure, without_surrogates
from mcp_server.shaping.fatal import without_own_frames
from mcp_server.shaping.heading import first_line, is_the_stop_itself, statements
from mcp_server.shaping.marks import counted, note, one_line
from mcp_server.shaping.sections import FAILURE, STREAMS, VALUES, Section, arrange
from mcp_server.shaping.values import ShownValues, show_values, size
from mcp_server.shaping.window import NOTHING, Excerpt, ShapedText

MIN_BUDGET_CHARS = 1000
"""The smallest budget: room for the first line, an error's type and message, and a gap line for each section."""

OPENING_CHARS = 680
"""What the first line, statements in the smallest budget, an error's type and headings may take, at the very most."""

MAX_FILES = 20
"""Listed by name; the rest is counted."""

RECORD_MESSAGE_CHARS = 2000
"""Of an error's message in the machine record."""

_NOTHING_SHOWN = Excerpt("")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a report says.

    `limit_s` is the run's timeout in seconds, 0 for none. `stdout` and `stderr` are what this report is to show: where
    it is `continued`, only what is new since the report before. `late` is output that came after earlier runs had
    ended. `stored_…` say where all of a stream is, None where it was not kept. `notices` are sentences for the reader,
    such as that a context was newly made and must be named to go on in it. `queued_behind` counts the runs ahead.
    """

    status: Status
    context_id: str
    run: int
    elapsed_s: float
    state: State = State.KEPT
    limit_s: float = 0.0
    error: ErrorInfo | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    lost_before: str = ""
    displays: Sequence[DisplayChunk] = ()
    stdout: ShapedText = NOTHING
    stderr: ShapedText = NOTHING
    late: ShapedText | None = None
    stored_stdout: StoredOutput | None = None
    stored_stderr: StoredOutput | None = None
    stored_late: StoredOutput | None = None
    notices: Sequence[str] = ()
    continued: bool = False
    queued_behind: int = 0
    files: Sequence[FileChange] = ()


def compose(record: RunRecord, budget_chars: int) -> Report:
    """The report of a run, its text at most `budget_chars` long.

    Raises ValueError for a budget below `MIN_BUDGET_CHARS`.
    """
    if budget_chars < MIN_BUDGET_CHARS:
        raise ValueError(f"a report needs a budget of at least {MIN_BUDGET_CHARS} characters, not {budget_chars}")
    if record.status is Status.CRASHED:
        record = replace(record, stderr=without_own_frames(record.stderr))
    values = show_values(record.displays, budget_chars)
    opening = _opening(record, budget_chars)
    sections = _sections(record, values, budget_chars)
    body = arrange(sections, budget_chars - len(opening) - 1)
    text = f"{opening}\n{body.text}" if body.text else _without_output(record, opening)
    excerpts = iter(body.excerpts)  # those of the streams come first
    stdout, stderr = (next(excerpts) if shaped.rows else _NOTHING_SHOWN for shaped in (record.stdout, record.stderr))
    late = _NOTHING_SHOWN if record.late is None else next(excerpts)
    return Report(text, values.images, _machine_record(record, stdout, stderr, late))


def _sections(record: RunRecord, values: ShownValues, budget_chars: int) -> list[Section]:
    """In the order of the report, without those that have nothing: most have one or two."""
    sections = []
    if record.stdout.rows:
        sections.append(Section("", record.stdout, STREAMS, _where(record.stored_stdout)))
    if record.stderr.rows:
        sections.append(Section(note("stderr"), record.stderr, STREAMS, _where(record.stored_stderr)))
    if record.late is not None:
        sections.append(
            Section(note("output from after earlier runs had ended"), record.late, STREAMS, _where(record.stored_late))
        )
    if values.displayed.rows:
        sections.append(Section(note("displayed"), values.displayed, VALUES))
    if values.result.rows:
        sections.append(Section(note("result"), values.result, VALUES))
    sections += _failure_sections(record, budget_chars)
    if record.files:
        sections.append(Section(note("files"), NOTHING, VALUES, fixed=_files(record.files, budget_chars)))
    return sections


def _opening(record: RunRecord, budget_chars: int) -> str:
    lines = [first_line(record)]
    room = budget_chars // 5
    for statement in map(note, statements(record)):
        room -= len(statement) + 1
        if room < 0:
            break
        lines.append(statement)
    return "\n".join(lines)


def _without_output(record: RunRecord, opening: str) -> str:
    if record.status is Status.QUEUED:
        return opening
    if record.continued:
        said = "nothing new was printed"
    elif record.status is Status.RUNNING:
        said = "printed nothing so far"
    else:
        said = "printed nothing, no result" if record.status is Status.OK else "printed nothing"
    return f"{opening}\n{note(said)}"


def _where(stored: StoredOutput | None) -> str:
    if stored is None:
        return "the rest was not kept"
    place = f"all of it: {one_line(stored.path or stored.uri, 200)}"
    return place if stored.complete else f"more of it (its own middle is missing too): {place.partition(': ')[2]}"


def _failure_sections(record: RunRecord, budget_chars: int) -> list[Section]:
    if record.error is None or is_the_stop_itself(record):
        return []
    failure = shape_failure(record.error, budget_chars, min(budget_chars * 9 // 20, budget_chars - OPENING_CHARS))
    heading = note("error")
    if failure.before.blank:
        return [Section(heading, NOTHING, FAILURE, fixed=failure.message), Section("", failure.after, FAILURE)]
    return [
        Section(heading, failure.before, FAILURE),
        Section("", NOTHING, FAILURE, fixed=failure.message),
        Section("", failure.after, FAILURE),
    ]


def _files(files: Sequence[FileChange], budget_chars: int) -> str:
    lines: list[str] = []
    room = budget_chars // 10
    for number, file in enumerate(files):
        line = f"{one_line(file.path, 200)} · {file.kind} · {size(file.size_bytes)}"
        line = f"{line} · {one_line(file.mime, 60)}" if file.mime else line
        room -= len(line) + 1
        if number == MAX_FILES or room < 0:
            lines.append(note(f"… {counted(len(files) - number, 'more file')}"))
            break
        lines.append(line)
    return "\n".join(lines)


def _machine_record(record: RunRecord, stdout: Excerpt, stderr: Excerpt, late: Excerpt) -> dict[str, Any]:
    """`late` is in it where there is any."""
    shown_late = {} if record.late is None else {"late": _stream_record(record.late, late, record.stored_late)}
    error = None if record.error is None or is_the_stop_itself(record) else record.error
    return {
        "status": str(record.status),
        "context_id": one_line(record.context_id, 100),
        "run": record.run,
        "elapsed_s": round(record.elapsed_s, 3),
        "state": str(record.state),
        "continued": record.continued,
        "truncated": not (stdout.complete and stderr.complete and late.complete),
        "stdout": _stream_record(record.stdout, stdout, record.stored_stdout),
        "stderr": _stream_record(record.stderr, stderr, record.stored_stderr),
        **shown_late,
        "error": error and {"name": one_line(error.name, NAME_CHARS), "message": _short_message(error.message)},
        "exit_code": record.exit_code,
        "signal": record.signal,
    }


def _stream_record(shaped: ShapedText, excerpt: Excerpt, stored: StoredOutput | None) -> dict[str, Any]:
    return {
        "shown_lines": excerpt.shown_lines,
        "shown_chars": excerpt.shown_chars - excerpt.elided_chars,
        "total_lines": shaped.total_lines,
        "total_chars": shaped.total_chars,
        "total_bytes": shaped.total_bytes,
        "resource": stored.uri if stored else None,
    }


def _short_message(message: str) -> str:
    clean = without_surrogates(message)
    return clean if len(clean) <= RECORD_MESSAGE_CHARS else clean[:RECORD_MESSAGE_CHARS] + "…"
