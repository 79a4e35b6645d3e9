"""The log: what it may hold, and that it holds nobody up."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

import mcp_server
from mcp_server.settings import LogFormat, LogLevel
from mcp_server.telemetry import EVENTS, MAX_VALUE_CHARS, MAX_WAITING_LINES, StderrWriter, configure, printable

PACKAGE = Path(mcp_server.__file__).parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def logged(log_format: LogFormat = LogFormat.AUTO, level: LogLevel = LogLevel.INFO, **fields: object) -> str:
    stream = io.StringIO()
    writer = configure(level, log_format, stream)
    structlog.get_logger("test").info("run.ended", **fields)
    writer.flush()
    return stream.getvalue()


def test_lines_are_json_unless_a_terminal_reads_them() -> None:
    event = json.loads(logged(run=3, status=LogLevel.INFO))
    assert event.pop("timestamp")
    assert event == {"event": "run.ended", "level": "info", "run": 3, "status": "info"}
    terminal = Terminal()
    writer = configure(LogLevel.INFO, LogFormat.AUTO, terminal)
    structlog.get_logger("test").info("run.ended", run=3)
    writer.flush()
    assert "run.ended" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
@pytest.mark.parametrize("hostile", ["\x1b]0;title\x07", "a\nforged line", "\x9b31m", "\u202egnp", "\ud800", "\x00"])
def test_what_users_control_reaches_no_terminal_as_control_characters(log_format: LogFormat, hostile: str) -> None:
    text = logged(log_format, path=hostile)
    [line] = text.splitlines()
    assert all(char.isprintable() for char in line)


def test_long_values_are_cut_and_handles_shortened() -> None:
    event = json.loads(logged(path="x" * 10_000, context_id="ctx_abcdefghijklmnopqrstuv"))
    assert len(event["path"]) < MAX_VALUE_CHARS + 50
    assert event["path"].endswith("(+8000 characters)")
    assert event["context_id"] == "ctx_abcdefgh…"


def test_an_exception_is_told_by_its_type_and_place_and_never_by_its_message() -> None:
    stream = io.StringIO()
    writer = configure(LogLevel.INFO, LogFormat.JSON, stream)
    try:
        int("the user's code")
    except ValueError:
        structlog.get_logger("test").exception("call.failed")
        logging.getLogger("mcp").exception("a handler raised")
    writer.flush()
    own, library = (json.loads(line) for line in stream.getvalue().splitlines())
    for event in (own, library):
        assert event["error"] == "ValueError"
        assert "test_telemetry.py" in event["at"]
        assert "the user's code" not in json.dumps(event)
    assert library["event"] == "library.message"
    assert library["library"] == "mcp"


def test_the_level_holds_and_libraries_are_heard_from_a_warning_on() -> None:
    assert logged(level=LogLevel.WARNING) == ""
    stream = io.StringIO()
    writer = configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    logging.getLogger("mcp").info("a request's params")
    writer.flush()
    assert stream.getvalue() == ""


def test_a_reader_that_does_not_read_loses_lines_that_are_counted() -> None:
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w") as blocked, os.fdopen(read_fd, "r") as reader:
        writer = StderrWriter(blocked)
        line, count = "x" * 1_000, MAX_WAITING_LINES + 500
        for _ in range(count):
            writer.msg(line)
        read = [reader.readline() for _ in range(500)]
        writer.flush()  # what waits is written as the pipe is read; the next line says what was lost
        writer.msg("after")
        while (last := reader.readline()) != "after\n":
            read.append(last)
        losses = [json.loads(told) for told in read if not told.startswith("x")]
        assert {loss["event"] for loss in losses} == {"log.dropped"}
        assert sum(loss["lines"] for loss in losses) + len(read) - len(losses) == count


def test_who_flushes_stderr_does_not_wait_for_a_reader_that_does_not_read() -> None:
    """The interpreter does so at its end."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w") as blocked, os.fdopen(read_fd, "r") as reader:
        writer = StderrWriter(blocked)
        for _ in range(200):
            writer.msg("x" * 1_000)

        def flush_for_a_while() -> None:
            end_s = time.monotonic() + 0.3  # the thread that writes is blocked by then
            while time.monotonic() < end_s:
                blocked.flush()

        flushing = threading.Thread(target=flush_for_a_while)
        flushing.start()
        flushing.join(5)
        waits = flushing.is_alive()
        assert {reader.readline() for _ in range(200)} == {"x" * 1_000 + "\n"}
        assert not waits


def test_a_stderr_that_is_not_to_be_blocked_gets_every_line() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    with os.fdopen(write_fd, "w") as refusing, os.fdopen(read_fd, "r") as reader:
        writer = StderrWriter(refusing)
        for number in range(200):
            writer.msg(f"{number} " + "x" * 1_000)
        assert [reader.readline().split()[0] for _ in range(200)] == [str(number) for number in range(200)]


def test_a_closed_stderr_breaks_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    writer = StderrWriter(stream)
    writer.msg("line")
    writer.msg("line")


def test_printable_text_stays_as_it_is() -> None:
    assert printable("naïve — 数字") == "naïve — 数字"


def test_every_event_that_is_logged_is_in_the_list_and_every_one_listed_is_logged() -> None:
    """Names are what operators search and count by, so none comes or goes unseen."""
    found = {"library.message", "log.dropped"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "_log"
            ):
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: an event's name is a constant"
                found.add(str(name.value))
    assert found - set(EVENTS) == set(), "each event is listed in telemetry.EVENTS"
    assert set(EVENTS) - found == set(), "what is no longer logged leaves telemetry.EVENTS"
