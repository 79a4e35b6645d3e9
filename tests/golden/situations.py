"""The situations whose reports are kept as files: captured from real code, or scripted where code alone cannot say."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_server.model import DisplayChunk, ErrorInfo, FileChange, Representation, State, Status, StoredOutput
from mcp_server.shaping.report import RunRecord
from mcp_server.shaping.stream import ShapedText, StreamShaper

CONTEXT = "ctx_Zx81kQ4mRt0vBn5cYh2LpA"
BUDGET = 9_000
STORED = StoredOutput(f"run://{CONTEXT}/4/stdout", "/outputs/run-4/stdout")
STORED_STDERR = StoredOutput(f"run://{CONTEXT}/4/stderr", "/outputs/run-4/stderr")
INTERRUPT = ErrorInfo(
    "KeyboardInterrupt",
    "",
    'Traceback (most recent call last):\n  File "<cell 4>", line 9, in <module>\n    train(epochs=100)\n'
    '  File "<cell 4>", line 5, in train\n    step(batch)\n'
    "  trainer/loop.py:88, in step\nKeyboardInterrupt",
)


@dataclass(frozen=True, slots=True)
class Situation:
    about: str
    record: Callable[[], RunRecord]
    budget_chars: int = BUDGET


def shaped(*chunks: bytes) -> ShapedText:
    shaper = StreamShaper(BUDGET)
    for chunk in chunks:
        shaper.feed(chunk)
    return shaper.finish()


def run(status: Status = Status.OK, elapsed_s: float = 0.02, **more: Any) -> RunRecord:
    return RunRecord(status, CONTEXT, 4, elapsed_s, **more)


def captured(name: str, **more: Any) -> RunRecord:
    """The record of a run as `tests.golden.capture` kept it."""
    kept = json.loads((Path(__file__).parent / "captured" / f"{name}.json").read_text())
    streams = {stream: shaped(kept[stream].encode("utf-8", "surrogateescape")) for stream in ("stdout", "stderr")}
    displays = [
        DisplayChunk(display["is_result"], tuple(representation(form) for form in display["forms"]))
        for display in kept["displays"]
    ]
    known = {
        "displays": displays,
        "error": kept["error"] and ErrorInfo(**kept["error"]),
        "exit_code": kept["exit_code"],
    }
    return run(Status(kept["status"]), **{**streams, **known, **more})


def representation(form: dict[str, Any]) -> Representation:
    data = bytes(form["bytes"]) if "bytes" in form else form["text"].encode("utf-8", "surrogateescape")
    return Representation(form["mime"], data, form["alt"], form["original_bytes"])


def log(lines: int, trouble_at: int = -1) -> Iterator[bytes]:
    for n in range(lines):
        yield f"2026-01-05 12:{n // 60 % 60:02}:{n % 60:02} INFO  worker.{n % 8} step {n} done\n".encode()
        if n == trouble_at:
            yield (
                b"2026-01-05 12:00:00 ERROR worker.3 payment 8812 refused\n"
                b"Traceback (most recent call last):\n"
                b'  File "/work/pay.py", line 31, in charge\n    gateway.send(order)\n'
                b"ConnectionError: gateway closed the connection\n"
            )


def huge_log() -> RunRecord:
    lines = log(1_800_000, trouble_at=900_000)
    chunks = iter(lambda: b"".join(itertools.islice(lines, 1_000)), b"")
    return run(elapsed_s=95.31, stdout=shaped(*chunks, b"1,800,000 steps done, 1 failed\n"), stored_stdout=STORED)


def windows(*parts: bytes) -> list[ShapedText]:
    """What a yielding run's calls show, one after another."""
    shaper = StreamShaper(BUDGET)
    texts = []
    for part in parts:
        shaper.feed(part)
        texts.append(shaper.cut())
    return texts


BARS = [f"\r{n:3}%|{'█' * (n // 5):20}| {n * 12}/1200".encode() for n in range(101)]


def binary_garbage() -> RunRecord:
    return run(stdout=shaped(random.Random(5).randbytes(40_000)), stored_stdout=STORED)


def flood_everywhere() -> RunRecord:
    return replace(
        captured("chained"),
        stdout=shaped(*log(5_000)),
        stderr=shaped(*(b"warning %d: slow\n" % n for n in range(5_000))),
        stored_stdout=STORED,
        stored_stderr=STORED_STDERR,
    )


def from_capture(about: str, name: str, **more: Any) -> Situation:
    return Situation(about, lambda: captured(name, **more))


CAPTURED = {
    "progress_bar_tqdm": from_capture("A tqdm bar on stderr is its last state.", "tqdm"),
    "progress_bars_nested": from_capture("Two tqdm bars, the inner one moving the cursor up.", "tqdm_nested"),
    "progress_bars_rich": from_capture("Three bars drawn by rich for a terminal.", "rich_progress"),
    "pip_output": from_capture("pip finds one package and not the other.", "pip_install"),
    "pytest_failure": from_capture("A coloured pytest run with two failures.", "pytest_failure"),
    "unittest_failure": from_capture("unittest in a child process, on stderr.", "unittest_failure"),
    "logging_to_stderr": from_capture("Log lines on stderr, a line on stdout.", "logging"),
    "warnings": from_capture("Warnings, and a result.", "warnings"),
    "mixed_streams": from_capture("stdout and stderr by turns.", "mixed_streams"),
    "data_frame": from_capture("A data frame as the result.", "data_frame"),
    "data_frame_printed": from_capture("A small data frame, printed.", "data_frame_printed"),
    "array": from_capture("A large array as the result.", "array"),
    "deep_recursion": from_capture("Endless recursion.", "deep_recursion"),
    "chained_exception": from_capture("An exception with its cause.", "chained"),
    "exception_group": from_capture("A group of exceptions with notes.", "exception_group"),
    "syntax_error": from_capture("Code that does not compile.", "syntax_error"),
    "module_not_found": from_capture("A module that is not installed.", "module_not_found"),
    "huge_message": from_capture("An exception with a very long message.", "huge_message"),
    "library_frames": from_capture("An exception from deep inside a library.", "library_frames"),
    "only_an_error": from_capture("Nothing but an error.", "name_error"),
    "keyboard_interrupt_raised": from_capture(
        "KeyboardInterrupt raised by the code is its error.", "keyboard_interrupt"
    ),
    "memory_error": from_capture("An uncaught MemoryError is an error like others.", "memory_error"),
    "one_figure": from_capture("A matplotlib figure.", "one_figure"),
    "ten_figures": from_capture("Twelve figures, of which ten are seen.", "ten_figures"),
    "html_object": from_capture("A value whose own text says nothing, but whose Markdown does.", "html_object"),
    "displayed_values": from_capture("Three calls of display, then a result.", "displayed"),
    "large_result": from_capture("A result that does not fit.", "large_result"),
    "escapes_in_a_result": from_capture("A result with half a character, as repr shows it.", "surrogates"),
    "base64_in_a_line": from_capture("An image printed as base64 within JSON.", "base64_printed", stored_stdout=STORED),
    "json_in_one_line": from_capture("A large JSON document in a single line.", "json_line", stored_stdout=STORED),
    "exit_with_code": from_capture("exit(3) ends the run and keeps the context.", "exit_code"),
    "nothing_printed": from_capture("An assignment.", "nothing"),
    "only_a_result": from_capture("An expression.", "only_result"),
    "wide_characters": from_capture("Characters that fill two columns, redrawn in place.", "wide_characters"),
    "right_to_left": from_capture("Hebrew and Arabic.", "right_to_left"),
    "imitated_statements": from_capture("Code that prints what looks like our own lines.", "imitation"),
}

STREAMS = {
    "log_of_100_mb": Situation("1,800,000 lines with a failure in the middle and a summary at the end.", huge_log),
    "binary_garbage": Situation("Random bytes on stdout.", binary_garbage),
    "endless_line": Situation(
        "One line of 5 MB.",
        lambda: run(stdout=shaped(b"0123456789," * 500_000), stored_stdout=STORED),
    ),
    "repeated_lines": Situation(
        "The same warning ten thousand times, then another line.",
        lambda: run(stdout=shaped(b"connection refused, trying again\n" * 10_000 + b"connected\n")),
    ),
    "curl_progress": Situation(
        "curl's meter, redrawn, with CR LF line ends before it.",
        lambda: run(
            stdout=shaped(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n"),
            stderr=shaped(
                b"  % Total    % Received % Xferd  Average Speed\n",
                *(b"\r%3d   900  %3d   %3d    0     0   1200      0" % (n, n, n * 9) for n in range(0, 101, 4)),
                b"\n",
            ),
        ),
    ),
    "spinner": Situation(
        "A spinner that goes back by backspaces.",
        lambda: run(stdout=shaped(b"solving  " + b"\b|\b/\b-\b\\" * 300 + b"\b done\n")),
    ),
    "screen_painted_again": Situation(
        "A program like watch, which clears the screen for each frame.",
        lambda: run(stdout=shaped(*(b"\x1b[H\x1b[2Jjobs: %d\nqueue: %d\n" % (n, 9 - n) for n in range(3)))),
    ),
    "broken_escape_sequence": Situation(
        "A title sequence that never ends, a link, colours, a bell and a NUL.",
        lambda: run(
            stdout=shaped(
                b"\x1b]0;half a title\nall the rest\n\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\\n"
                b"\x1b[1;31mred\x1b[0m \x07 nul:\0 tab:\t.\n"
            )
        ),
    ),
    "invalid_utf8": Situation(
        "Latin-1 bytes and a character cut in two.",
        lambda: run(stdout=shaped("größe ".encode("latin-1") + b"\xe6\xbc")),
    ),
    "stored_copy_incomplete": Situation(
        "A flood beyond the quota for stored outputs.",
        lambda: run(stdout=shaped(*log(20_000)), stored_stdout=replace(STORED, complete=False)),
        3_000,
    ),
    "resource_only": Situation(
        "An engine whose code cannot read stored outputs.",
        lambda: run(stdout=shaped(*log(20_000)), stored_stdout=replace(STORED, path="")),
        3_000,
    ),
    "not_stored": Situation("A flood of which nothing was stored.", lambda: run(stdout=shaped(*log(20_000))), 3_000),
    "flood_on_both_streams_and_an_error": Situation("Everything at once in a small budget.", flood_everywhere, 3_000),
    "smallest_budget": Situation("The same in the smallest budget.", flood_everywhere, 1_000),
}

OUTCOMES = {
    "timeout_with_partial_output": Situation(
        "A loop stopped at its limit.",
        lambda: run(
            Status.TIMEOUT,
            10.004,
            limit_s=10,
            error=INTERRUPT,
            stdout=shaped(b"epoch 1\nepoch 2\n"),
            stderr=shaped(*BARS[:40]),
        ),
    ),
    "timeout_that_had_to_kill": Situation(
        "Code that ignored its interrupt.",
        lambda: run(
            Status.TIMEOUT,
            12.01,
            limit_s=10,
            state=State.RESET,
            detail="The code ignored the interrupt for 2 s, so the process was killed.",
        ),
    ),
    "interrupted": Situation(
        "Stopped by interrupt=true.",
        lambda: run(Status.INTERRUPTED, 33.4, error=INTERRUPT, stdout=shaped(b"epoch 1\n")),
    ),
    "cancelled": Situation(
        "Stopped because the client cancelled its call.", lambda: run(Status.CANCELLED, 5.2, error=INTERRUPT)
    ),
    "error_while_being_stopped": Situation(
        "The clean-up that the interrupt set off failed itself.",
        lambda: run(
            Status.TIMEOUT,
            10.2,
            limit_s=10,
            error=ErrorInfo("OSError", "disk full", INTERRUPT.traceback + "\n\nOSError: disk full"),
        ),
    ),
    "out_of_memory": Situation(
        "Killed for its memory.",
        lambda: run(
            Status.OUT_OF_MEMORY,
            3.1,
            state=State.RESET,
            signal=9,
            stdout=shaped(b"loading part 1\nloading part 2\n"),
            detail="The context may use 2,048 MB; it wanted more.",
        ),
    ),
    "crash_by_signal": Situation(
        "A segmentation fault.",
        lambda: run(
            Status.CRASHED,
            0.4,
            state=State.RESET,
            signal=11,
            stderr=shaped(
                b"Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
                b'  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n'
                b'  File "<cell 7>", line 1 in <module>\n'
                b'  File "/.worker/runner.py", line 190 in _evaluate_cell\n'
                b'  File "/.worker/main.py", line 98 in serve\n'
                b'  File "<string>", line 13 in <module>\n'
            ),
            stored_stderr=STORED_STDERR,
        ),
    ),
    "crash_by_exit_code": Situation(
        "os._exit(7).", lambda: run(Status.CRASHED, 0.1, state=State.RESET, exit_code=7, stdout=shaped(b"before\n"))
    ),
    "after_a_reset": Situation(
        "The first run after a crash.",
        lambda: replace(captured("name_error"), lost_before="The process was killed by SIGSEGV in run 3."),
    ),
    "yielded": Situation(
        "The call yields while the bar stands at 39 %.",
        lambda: run(Status.RUNNING, 50.0, stdout=windows(b"fetching 1,200 files\n" + b"".join(BARS[:40]))[0]),
    ),
    "continued": Situation(
        "Waiting for the rest: only what is new.",
        lambda: run(
            elapsed_s=81.7,
            continued=True,
            stdout=windows(b"fetching 1,200 files\n" + b"".join(BARS[:40]), b"".join(BARS[40:]) + b"\nall fetched\n")[
                1
            ],
        ),
    ),
    "continued_without_news": Situation("Still nothing new.", lambda: run(Status.RUNNING, 100.0, continued=True)),
    "queued": Situation("Waiting behind two runs.", lambda: run(Status.QUEUED, 50.0, queued_behind=2)),
    "late_output": Situation(
        "A thread of an earlier run went on printing.",
        lambda: run(stdout=shaped(b"now\n"), late=shaped(b"job 17 finished\njob 18 finished\n")),
    ),
    "new_context": Situation(
        "No conversation is known, so a context was made.",
        lambda: replace(
            captured("only_result"),
            notices=[f"A new context was made for this call; pass context_id={CONTEXT!r} to go on in it."],
        ),
    ),
    "files_made": Situation(
        "Files that the run made and changed.",
        lambda: run(
            stdout=shaped(b"saved\n"),
            files=[
                FileChange("/work/report.csv", "new", 48_213, "text/csv"),
                FileChange("/work/model.bin", "changed", 1_400_000),
                *(FileChange(f"/work/plots/{n}.png", "new", 20_000 + n, "image/png") for n in range(40)),
            ],
        ),
    ),
    "surrogates_in_an_error": Situation(
        "A message with half a character and control characters.",
        lambda: run(
            Status.ERROR,
            error=ErrorInfo(
                "ValueError",
                "bad \ud800 name \x1b[31m",
                "Traceback (most recent call last):\nValueError: bad \ud800 name \x1b[31m",
            ),
        ),
    ),
}

SITUATIONS: dict[str, Situation] = {**CAPTURED, **STREAMS, **OUTCOMES}
