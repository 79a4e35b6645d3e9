"""Plays a transcript's runs again, one after another in fresh contexts, and says of each whether it came out alike."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_server.errors import CallerError, InternalError
from mcp_server.model import Conversation, Report, RunCall
from mcp_server.service import Service
from mcp_server.service.limits import MAX_OUTPUT_CHARS
from mcp_server.transcripts import lines
from mcp_server.transcripts.comparison import STOPPED, Comparison, Played, compare
from mcp_server.transcripts.lines import Transcript

NAME_CHARS = 12
"""How much of a handle names its context's directory, so that code can name it."""

LONGEST_WAIT_S = 7 * 86_400.0
"""For a run: its own time limit comes first."""

REPLAY = Conversation("replay")


@dataclass(slots=True)
class Recorded:
    """A run of the transcript that began, and all that is known of its end."""

    queued: lines.RunQueued
    ended: lines.RunEnded | None = None
    reports: list[lines.ReportGiven] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"run {self.queued.run} of {self.queued.context_id[:NAME_CHARS]}…"

    def played(self) -> Played | None:
        """None where its end is not in the transcript."""
        if self.queued.streamed and self.ended is not None:
            return Played(self.ended.status, self.ended.state, exit_code=self.ended.exit_code)
        if not self.reports or self.reports[-1].record.get("status") in ("queued", "running"):
            return None
        texts = [report.text for report in self.reports]
        images = [image.sha256 for report in self.reports for image in report.images]
        return _played(self.reports[-1].record, texts, images)


Step = lines.ContextCreated | lines.ContextDeleted | Recorded


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one run. ``comparison`` is None where it could not be compared, and ``trouble`` says why."""

    name: str
    code: str
    comparison: Comparison | None = None
    trouble: str = ""

    @property
    def same(self) -> bool:
        return self.comparison is not None and self.comparison.same


def steps(transcript: Transcript) -> list[Step]:
    """What is to be done, in the order in which it was begun. Runs that never began are left out: they did nothing."""
    runs: dict[tuple[str, int], Recorded] = {}
    found: list[Step] = []
    for line in transcript.lines:
        match line:
            case lines.ContextCreated() | lines.ContextDeleted():
                found.append(line)
            case lines.RunQueued():
                runs[line.context_id, line.run] = Recorded(line)
            case lines.RunBegan():
                if run := runs.get((line.context_id, line.run)):
                    found.append(run)
            case lines.RunEnded():
                if run := runs.get((line.context_id, line.run)):
                    run.ended = line
            case lines.ReportGiven():
                if run := runs.get((line.context_id, line.run)):
                    run.reports.append(line)
            case _:
                pass
    return found


def notes(transcript: Transcript) -> Iterator[str]:
    """What a reader must know of a transcript that is not whole."""
    lost = sum(line.lines for line in transcript.lines if isinstance(line, lines.LinesLost))
    if lost:
        yield f"{lost} lines of it could not be written then: what depends on them will differ."
    if transcript.torn:
        yield "Its last line is torn, and was left out."
    names = {
        name
        for line in transcript.lines
        if isinstance(line, lines.ContextCreated | lines.RunQueued)
        for name, value in line.envs.items()
        if value is None
    }
    if names:
        yield f"Environment variables whose values were not recorded are not set: {', '.join(sorted(names))}."


class Replay:
    """Plays a transcript on a started service."""

    def __init__(self, service: Service, transcript: Transcript) -> None:
        self._service = service
        self._header = transcript.header
        self._contexts: dict[str, str] = {}

    async def play(self, todo: list[Step], tell: Callable[[Verdict], None]) -> None:
        """Do all of it; `tell` hears of each run as soon as it has ended."""
        for step in todo:
            match step:
                case lines.ContextCreated():
                    await self._create(step)
                case lines.ContextDeleted():
                    context_id = self._contexts.pop(step.context_id, "")
                    if context_id:
                        await self._service.delete_context(REPLAY, context_id)
                case Recorded():
                    tell(await self._again(step))

    async def _create(self, created: lines.ContextCreated) -> None:
        """Default contexts are made like the others: they differ in nothing that code can see."""
        cwd = self._renamed(created.asked_cwd)
        made = await self._service.create_context(REPLAY, cwd, _known(created.envs))
        self._contexts[created.context_id] = made.context_id

    async def _again(self, run: Recorded) -> Verdict:
        queued, before = run.queued, run.played()
        context_id = self._contexts.get(queued.context_id)
        if context_id is None:
            return Verdict(run.name, queued.code, trouble="its context is not in the transcript")
        call = RunCall(
            conversation=REPLAY,
            code=self._renamed(queued.code),
            context_id=context_id,
            timeout_s=self._header.timeout_s if queued.timeout_s is None else queued.timeout_s,
            envs=_known(queued.envs),
            wait_s=LONGEST_WAIT_S,
            max_output_chars=min(queued.max_output_chars or self._header.max_output_chars, MAX_OUTPUT_CHARS),
        )
        try:
            report = await self._run(call, _stop_after_s(run))
        except (CallerError, InternalError) as error:
            return Verdict(run.name, queued.code, trouble=str(error))
        if before is None:
            return Verdict(run.name, queued.code, trouble="its end is not in the transcript")
        images = [hashlib.sha256(image.data).hexdigest() for image in report.images]
        return Verdict(run.name, queued.code, compare(before, _played(report.record, [report.text], images)))

    async def _run(self, call: RunCall, stop_after_s: float | None) -> Report:
        """Run it to its end, or for so long."""
        running = asyncio.ensure_future(self._service.run(call))
        await asyncio.wait([running], timeout=stop_after_s)
        if not running.done():
            await self._service.run(replace(call, code="", interrupt=True))
        return await running

    def _renamed(self, text: str) -> str:
        """The same text about the new contexts: code may name their directories."""
        for old, new in self._contexts.items():
            text = text.replace(old, new).replace(old[:NAME_CHARS], new[:NAME_CHARS])
        return text


def _known(envs: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in envs.items() if value is not None}


def _stop_after_s(run: Recorded) -> float | None:
    """What was stopped from outside is stopped again, when it has run for as long; what has no end, at once."""
    if run.ended is None:
        return 0.0
    return run.ended.elapsed_s if run.ended.status in STOPPED else None


def _played(record: Mapping[str, Any], reports: Sequence[str], images: Sequence[str]) -> Played:
    error = record.get("error")
    code = record.get("exit_code")
    return Played(
        status=str(record.get("status")),
        state=str(record.get("state")),
        reports=tuple(reports),
        images=tuple(images),
        error=f"{error.get('name')}: {error.get('message')}" if isinstance(error, dict) else "",
        exit_code=code if isinstance(code, int) else None,
    )
