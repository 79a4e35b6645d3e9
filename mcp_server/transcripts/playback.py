"""`mcp-code-interpreter replay`: what a replay looks like on a terminal, or in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from mcp_server.service import Service
from mcp_server.telemetry import printable
from mcp_server.transcripts.lines import Transcript
from mcp_server.transcripts.replay import Recorded, Replay, Verdict, notes, steps

CODE_CHARS = 60

_MARKS = {True: "same", False: "different", None: "not compared"}


async def play(service: Service, transcript: Transcript, console: Console) -> int:
    """Replay on a started service and show each run. Exit status: 0 where all came out alike, else 1."""
    todo = steps(transcript)
    for note in notes(transcript):
        console.print(Text(note, style="yellow"))
    verdicts: list[Verdict] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("replaying", total=sum(isinstance(step, Recorded) for step in todo))

        def tell(verdict: Verdict) -> None:
            verdicts.append(verdict)
            progress.advance(task)
            for line in _told(verdict):
                console.print(line, soft_wrap=True)

        await Replay(service, transcript).play(todo, tell)
    different = sum(not verdict.same for verdict in verdicts)
    said = f"{len(verdicts)} runs: {'all alike' if not different else f'{different} different'}"
    console.print(Text(said, style="red" if different else "green"))
    return 1 if different else 0


def _told(verdict: Verdict) -> list[Text]:
    """Nothing of what code printed then or now acts on the terminal."""
    code = printable(next((line for line in verdict.code.splitlines() if line.strip()), "")[:CODE_CHARS])
    head = f"{'✓' if verdict.same else '✗'} {verdict.name} · {code}"
    style = "" if verdict.same else "red"
    if verdict.comparison is None:
        return [Text(head, style=style), Text(f"    {printable(verdict.trouble)}")]
    parts = " · ".join(f"{name} {_MARKS[part]}" for name, part in verdict.comparison.parts.items())
    note = f" ({verdict.comparison.note})" if verdict.comparison.note else ""
    return [Text(head, style=style), Text(f"    {parts}{note}"), *map(_coloured, verdict.comparison.diff)]


def _coloured(line: str) -> Text:
    return Text(f"    {printable(line)}", style={"-": "red", "+": "green"}.get(line[:1], ""))
