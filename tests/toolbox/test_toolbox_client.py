"""`CodeInterpreter` and `AsyncCodeInterpreter` against a server in another process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from mcp_server.errors import (
    CodeInterpreterConnectionError,
    CodeInterpreterError,
    CodeInterpreterNotFoundError,
    CodeInterpreterTimeoutError,
    CodeInterpreterValidationError,
)
from mcp_server.toolbox.client import CodeInterpreter
from mcp_server.toolbox.client_api import InterpreterApi
from mcp_server.toolbox.client_api_async import AsyncInterpreterApi
from mcp_server.toolbox.client_async import AsyncCodeInterpreter
from mcp_server.toolbox.client_types import ExecutionError, InterpreterContext, OutputMessage
from tests.toolbox.toolbox_server import ToolboxServer


class NoSuchThing(Exception):
    """Raised by callbacks of tests."""


@pytest.fixture
async def interpreter_async(server: ToolboxServer, sandbox_id: str, mux: bool) -> AsyncIterator[AsyncCodeInterpreter]:
    async def nothing() -> None:
        return None

    async with AsyncCodeInterpreter(AsyncInterpreterApi(server.toolbox(sandbox_id), mux=mux), nothing) as client:
        yield client


# -- sync -------------------------------------------------------------------------------------------------------------


def test_a_run_gives_what_the_code_printed(interpreter: CodeInterpreter) -> None:
    result = interpreter.run_code("import sys; print('out'); print('err', file=sys.stderr)")
    assert (result.stdout, result.stderr, result.error) == ("out\n", "err\n", None)


def test_the_value_of_the_last_expression_is_not_printed(interpreter: CodeInterpreter) -> None:
    assert interpreter.run_code("1 + 1").stdout == ""


def test_variables_stay_and_contexts_do_not_share_them(interpreter: CodeInterpreter) -> None:
    interpreter.run_code("x = 1")
    other = interpreter.create_context()
    interpreter.run_code("x = 2", context=other)
    assert interpreter.run_code("print(x)").stdout == "1\n"
    assert interpreter.run_code("print(x)", context=other).stdout == "2\n"


def test_an_exception_is_in_the_result_and_told_to_the_callback(interpreter: CodeInterpreter) -> None:
    told: list[ExecutionError] = []
    result = interpreter.run_code("print('before')\n1 / 0", on_error=told.append)
    assert result.stdout == "before\n"
    assert result.error == told[0]
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert result.error.traceback.endswith("ZeroDivisionError: division by zero")


def test_callbacks_hear_the_output_in_order_while_the_code_runs(interpreter: CodeInterpreter) -> None:
    heard: list[str] = []

    def on_stdout(message: OutputMessage) -> None:
        heard.append(message.output)
        if message.output == "ready\n":
            release.start()

    def go() -> None:
        context_id = interpreter.run_code("print('x')", context=other)
        assert context_id.stdout == "x\n"
        interpreter.run_code("import pathlib; pathlib.Path(flag).touch()", context=other)

    other = interpreter.create_context()
    flag = f"{other.cwd}/flag"
    interpreter.run_code(f"flag = {flag!r}", context=other)
    release = threading.Thread(target=go)
    code = (
        "import os, sys, time\nprint('ready', flush=True)\n"
        f"while not os.path.exists({flag!r}): time.sleep(0.01)\n"
        "print('error', file=sys.stderr, flush=True)\n"
    )
    result = interpreter.run_code(code, on_stdout=on_stdout, on_stderr=lambda message: heard.append(message.output))
    release.join()
    assert heard == ["ready\n", "error\n"]
    assert (result.stdout, result.stderr) == ("ready\n", "error\n")


def test_envs_hold_for_one_run_and_the_sandboxs_own_for_all(server: ToolboxServer, mux: bool) -> None:
    show = "import os; print(os.environ.get('A'), os.environ.get('B'))"
    with server.interpreter(server.create_sandbox(env={"A": "1"}), mux=mux) as interpreter:
        assert interpreter.run_code(show, envs={"B": "2"}).stdout == "1 2\n"
        assert interpreter.run_code(show).stdout == "1 None\n"


def test_a_timeout_raises_with_what_was_printed_and_keeps_the_variables(interpreter: CodeInterpreter) -> None:
    interpreter.run_code("x = 1")
    with pytest.raises(CodeInterpreterTimeoutError, match=r"^Failed to run code: ") as caught:
        interpreter.run_code("print('so far', flush=True)\nwhile True: pass", timeout=1)
    assert caught.value.stdout == "so far\n"
    assert interpreter.run_code("print(x)").stdout == "1\n"


def test_a_worker_that_dies_is_a_connection_error_with_what_was_printed(interpreter: CodeInterpreter) -> None:
    with pytest.raises(CodeInterpreterConnectionError, match="signal 6") as caught:
        interpreter.run_code("import os; print('so far', flush=True); os.abort()")
    assert caught.value.stdout == "so far\n"
    assert interpreter.run_code("print('again')").stdout == "again\n"


def test_a_callback_that_raises_stops_the_code_and_its_exception_comes_out(interpreter: CodeInterpreter) -> None:
    def refuse(message: OutputMessage) -> None:
        raise NoSuchThing(message.output)

    interpreter.run_code("x = 1")
    with pytest.raises(NoSuchThing, match="started"):
        interpreter.run_code("print('started', flush=True)\nwhile True: pass", on_stdout=refuse, timeout=0)
    assert interpreter.run_code("print(x)").stdout == "1\n"


def test_contexts_are_made_listed_and_deleted(interpreter: CodeInterpreter) -> None:
    interpreter.run_code("pass")
    assert interpreter.list_contexts() == []
    made = interpreter.create_context()
    assert (made.active, made.language) == (True, "python")
    assert made.cwd.startswith("/")
    assert interpreter.list_contexts() == [made]
    interpreter.delete_context(made)
    assert interpreter.list_contexts() == []


def test_a_context_is_made_in_the_directory_that_is_asked_for(interpreter: CodeInterpreter) -> None:
    assert interpreter.create_context("/tmp").cwd == "/tmp"
    with pytest.raises(CodeInterpreterValidationError, match=r"^Failed to create interpreter context: "):
        interpreter.create_context("/no/such/directory")


def test_an_unknown_context_and_the_default_one_cannot_be_deleted(interpreter: CodeInterpreter) -> None:
    made = interpreter.create_context()
    interpreter.delete_context(made)
    with pytest.raises(CodeInterpreterNotFoundError, match=r"^Failed to delete interpreter context: "):
        interpreter.delete_context(made)
    with pytest.raises(CodeInterpreterNotFoundError, match=r"^Failed to run code: "):
        interpreter.run_code("pass", context=made)
    default = made.model_copy(update={"id": "default"})
    with pytest.raises(CodeInterpreterValidationError, match="default"):
        interpreter.delete_context(default)


@pytest.mark.parametrize(("code", "timeout"), [("", None), ("  \n", None), ("pass", -1)])
def test_what_cannot_be_run_is_a_validation_error(interpreter: CodeInterpreter, code: str, timeout: int | None) -> None:
    with pytest.raises(CodeInterpreterValidationError, match=r"^Failed to run code: "):
        interpreter.run_code(code, timeout=timeout)


def test_an_unknown_sandbox_is_said_for_every_call(server: ToolboxServer, mux: bool) -> None:
    context = InterpreterContext(id="x", cwd="/", created_at="", active=True, language="python")
    with server.interpreter("00000000-0000-0000-0000-000000000000", mux=mux) as nowhere:
        calls: list[tuple[str, Callable[[], object]]] = [
            ("Failed to run code: ", lambda: nowhere.run_code("pass")),
            ("Failed to create interpreter context: ", nowhere.create_context),
            ("Failed to list interpreter contexts: ", nowhere.list_contexts),
            ("Failed to delete interpreter context: ", lambda: nowhere.delete_context(context)),
        ]
        for prefix, call in calls:
            with pytest.raises(CodeInterpreterNotFoundError, match=f"^{prefix}No sandbox"):
                call()


def test_no_server_is_a_connection_error(mux: bool) -> None:
    with CodeInterpreter(InterpreterApi("http://127.0.0.1:9/toolbox/x", mux=mux), lambda: None) as nobody:
        with pytest.raises(CodeInterpreterConnectionError, match=r"^Failed to run code: no connection to"):
            nobody.run_code("pass")
        with pytest.raises(
            CodeInterpreterConnectionError, match=r"^Failed to list interpreter contexts: no connection"
        ):
            nobody.list_contexts()


def test_the_toolbox_is_made_sure_of_before_each_request(server: ToolboxServer, sandbox_id: str) -> None:
    asked: list[int] = []
    with CodeInterpreter(InterpreterApi(server.toolbox(sandbox_id)), lambda: asked.append(1)) as interpreter:
        interpreter.run_code("pass")
        interpreter.delete_context(interpreter.create_context())
        interpreter.list_contexts()
    assert len(asked) == 4


def test_threads_may_share_an_interpreter(interpreter: CodeInterpreter) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        context = interpreter.create_context()
        results[number] = interpreter.run_code(f"print({number})", context=context).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(5)}


# -- async ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_async_class_does_the_same(interpreter_async: AsyncCodeInterpreter) -> None:
    result = await interpreter_async.run_code("print('hi')\n1 / 0")
    assert result.stdout == "hi\n"
    assert result.error is not None
    made = await interpreter_async.create_context()
    assert await interpreter_async.list_contexts() == [made]
    await interpreter_async.delete_context(made)
    with pytest.raises(CodeInterpreterNotFoundError):
        await interpreter_async.delete_context(made)
    with pytest.raises(CodeInterpreterTimeoutError) as caught:
        await interpreter_async.run_code("print('so far', flush=True)\nwhile True: pass", timeout=1)
    assert caught.value.stdout == "so far\n"


@pytest.mark.anyio
async def test_async_callbacks_are_awaited_one_after_another(interpreter_async: AsyncCodeInterpreter) -> None:
    heard: list[str] = []

    async def on_stdout(message: OutputMessage) -> None:
        heard.append("begin")
        await asyncio.sleep(0)
        heard.append(message.output)

    async def on_error(error: ExecutionError) -> None:
        heard.append(error.name)

    await interpreter_async.run_code("print('x', flush=True); 1 / 0", on_stdout=on_stdout, on_error=on_error)
    assert heard == ["begin", "x\n", "ZeroDivisionError"]


@pytest.mark.anyio
async def test_an_async_callback_that_raises_stops_the_code(interpreter_async: AsyncCodeInterpreter) -> None:
    async def refuse(message: OutputMessage) -> None:
        raise NoSuchThing(message.output)

    await interpreter_async.run_code("x = 1")
    with pytest.raises(NoSuchThing):
        await interpreter_async.run_code("print(1, flush=True)\nwhile True: pass", on_stdout=refuse, timeout=0)
    assert (await interpreter_async.run_code("print(x)")).stdout == "1\n"


@pytest.mark.anyio
async def test_cancelling_a_call_stops_its_code_and_keeps_the_variables(
    interpreter_async: AsyncCodeInterpreter,
) -> None:
    started = asyncio.Event()
    await interpreter_async.run_code("x = 1")
    running = asyncio.create_task(
        interpreter_async.run_code(
            "print('started', flush=True)\nwhile True: pass", on_stdout=lambda _: started.set(), timeout=0
        )
    )
    async with asyncio.timeout(20):
        await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await interpreter_async.run_code("print(x)")).stdout == "1\n"


def test_every_error_of_the_api_is_a_code_interpreter_error() -> None:
    for kind in (CodeInterpreterTimeoutError, CodeInterpreterConnectionError, CodeInterpreterNotFoundError):
        assert issubclass(kind, CodeInterpreterError)
