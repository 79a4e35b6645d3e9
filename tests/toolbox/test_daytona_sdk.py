"""The published `daytona` SDK, unchanged, against this server: only its api_url and api_key are ours."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx_ws
import pytest
from daytona import (
    AsyncDaytona,
    AsyncSandbox,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaAuthenticationError,
    DaytonaConfig,
    DaytonaConnectionError,
    DaytonaError,
    DaytonaNotFoundError,
    DaytonaTimeoutError,
    ListSandboxesQuery,
    Sandbox,
)

from tests.toolbox.toolbox_server import ToolboxServer, serving

TOKEN = "a-token-of-the-tests-0123"  # not a secret: the server of these tests is of this machine

LINES = 30_000
COUNT = f"for number in range({LINES}): print(number)"
COUNTED = "".join(f"{number}\n" for number in range(LINES))
SPIN = "print('so far', flush=True)\nwhile True: pass"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolboxServer]:
    """A server that asks for a token."""
    directory = tmp_path_factory.mktemp("guarded")
    tokens: Path = directory / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"# of the tests\n{TOKEN}\n")
    with serving(directory / "state", "--tokens", str(tokens), token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def config(guarded: ToolboxServer) -> DaytonaConfig:
    return DaytonaConfig(api_key=TOKEN, api_url=guarded.api_url, target="local")


@pytest.fixture(scope="module")
def daytona(config: DaytonaConfig) -> Daytona:
    return Daytona(config)


@pytest.fixture
def sandbox(daytona: Daytona) -> Iterator[Sandbox]:
    made = daytona.create()
    yield made
    daytona.delete(made)


@pytest.fixture
async def sandbox_async(config: DaytonaConfig) -> AsyncIterator[AsyncSandbox]:
    async with AsyncDaytona(config) as client:
        made = await client.create()
        yield made
        await client.delete(made)


# -- sandboxes --------------------------------------------------------------------------------------------------------


def test_a_sandbox_is_made_found_listed_and_deleted(daytona: Daytona) -> None:
    params = CreateSandboxFromSnapshotParams(name="mine", labels={"of": "test"}, env_vars={"COLOUR": "red"})
    made = daytona.create(params)
    other = daytona.create()
    assert daytona.get(made.id).name == "mine"
    assert daytona.get("mine").id == made.id
    assert {sandbox.id for sandbox in daytona.list()} >= {made.id, other.id}
    assert [sandbox.id for sandbox in daytona.list(ListSandboxesQuery(labels={"of": "test"}))] == [made.id]
    shown = made.code_interpreter.run_code("import os; print(os.environ['COLOUR'])")
    assert shown.stdout == "red\n"
    daytona.delete(made, wait=True)
    daytona.delete(other)
    with pytest.raises(DaytonaNotFoundError):
        daytona.get(made.id)


def test_a_list_of_many_sandboxes_comes_in_pages(daytona: Daytona) -> None:
    made = [daytona.create(CreateSandboxFromSnapshotParams(labels={"of": "pages"})) for _ in range(5)]
    query = ListSandboxesQuery(labels={"of": "pages"}, limit=2)
    assert [sandbox.id for sandbox in daytona.list(query)] == [sandbox.id for sandbox in made]
    for sandbox in made:
        daytona.delete(sandbox)


def test_a_wrong_token_is_an_authentication_error(guarded: ToolboxServer) -> None:
    stranger = Daytona(DaytonaConfig(api_key="another-token-0123456", api_url=guarded.api_url, target="local"))
    with pytest.raises(DaytonaAuthenticationError, match="token"):
        stranger.create()


def test_what_this_server_does_not_do_is_refused_and_named(daytona: Daytona) -> None:
    with pytest.raises(DaytonaError, match="snapshot"):
        daytona.create(CreateSandboxFromSnapshotParams(snapshot="of-mine"))


# -- the interpreter, blocking ----------------------------------------------------------------------------------------


def test_the_sdk_runs_code_and_hears_it_in_order(sandbox: Sandbox) -> None:
    heard: list[str] = []
    code = "import sys\nfor n in range(3): print(n, flush=True)\nprint('bad', file=sys.stderr, flush=True)\n1 / 0"
    result = sandbox.code_interpreter.run_code(
        code,
        on_stdout=lambda message: heard.append(message.output),
        on_stderr=lambda message: heard.append(message.output),
        on_error=lambda error: heard.append(error.name),
    )
    assert (result.stdout, result.stderr) == ("0\n1\n2\n", "bad\n")
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert heard[-1] == "ZeroDivisionError"
    assert "".join(text for text in heard[:-1] if text != "bad\n") == "0\n1\n2\n"


def test_the_sdk_keeps_contexts_apart(sandbox: Sandbox) -> None:
    interpreter = sandbox.code_interpreter
    first, second = interpreter.create_context(), interpreter.create_context(cwd="/tmp")
    assert second.cwd == "/tmp"
    interpreter.run_code("x = 1")
    interpreter.run_code("x = 2", context=first)
    assert interpreter.run_code("print(x)").stdout == "1\n"
    assert interpreter.run_code("print(x)", context=first).stdout == "2\n"
    missing = interpreter.run_code("print(x)", context=second).error
    assert missing is not None
    assert missing.name == "NameError"
    assert [context.id for context in interpreter.list_contexts()] == [first.id, second.id]
    interpreter.delete_context(first)
    assert [context.id for context in interpreter.list_contexts()] == [second.id]


def test_the_sdk_gives_envs_for_one_run(sandbox: Sandbox) -> None:
    show = "import os; print(os.environ.get('COLOUR'))"
    assert sandbox.code_interpreter.run_code(show, envs={"COLOUR": "blue"}).stdout == "blue\n"
    assert sandbox.code_interpreter.run_code(show).stdout == "None\n"


def test_the_sdks_errors_are_mapped(sandbox: Sandbox) -> None:
    interpreter = sandbox.code_interpreter
    context = interpreter.create_context()
    interpreter.delete_context(context)
    with pytest.raises(DaytonaNotFoundError, match="Failed to delete interpreter context: "):
        interpreter.delete_context(context)
    with pytest.raises(DaytonaConnectionError, match=r"Failed to run code: no context .* \(close code 1008\)"):
        interpreter.run_code("pass", context=context)
    with pytest.raises(DaytonaConnectionError, match="1008"):
        interpreter.run_code("")
    with pytest.raises(DaytonaConnectionError, match=r"signal 6.*1001"):
        interpreter.run_code("import os; os.abort()")
    with pytest.raises(DaytonaError, match="Failed to create interpreter context: "):
        interpreter.create_context(cwd="/no/such/directory")
    default = context.model_copy(update={"id": "default"})
    with pytest.raises(DaytonaError, match="default"):
        interpreter.delete_context(default)


def test_the_sdks_timeout_is_a_timeout_and_keeps_the_variables(sandbox: Sandbox) -> None:
    heard: list[str] = []
    sandbox.code_interpreter.run_code("x = 1")
    with pytest.raises(DaytonaTimeoutError):
        sandbox.code_interpreter.run_code(SPIN, timeout=1, on_stdout=lambda message: heard.append(message.output))
    assert "".join(heard) == "so far\n"
    assert sandbox.code_interpreter.run_code("print(x)").stdout == "1\n"


def test_every_line_arrives_ten_times_out_of_ten(sandbox: Sandbox) -> None:
    for _ in range(10):
        assert sandbox.code_interpreter.run_code(COUNT).stdout == COUNTED


def test_a_callback_of_the_sdk_that_raises_comes_out_and_the_code_is_stopped(sandbox: Sandbox) -> None:
    def refuse(_message: object) -> None:
        raise RuntimeError("no more")

    sandbox.code_interpreter.run_code("x = 1")
    with pytest.raises(DaytonaError, match="no more"):
        sandbox.code_interpreter.run_code("import time\nprint(1, flush=True)\ntime.sleep(300)", on_stdout=refuse)
    assert sandbox.code_interpreter.run_code("print(x)").stdout == "1\n"


# -- the interpreter, async -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_async_sdk_does_the_same(sandbox_async: AsyncSandbox) -> None:
    interpreter = sandbox_async.code_interpreter
    heard: list[str] = []
    result = await interpreter.run_code(
        "print('hi', flush=True); 1 / 0",
        on_stdout=lambda message: heard.append(message.output),
        on_error=lambda error: heard.append(error.name),
    )
    assert result.stdout == "hi\n"
    assert heard == ["hi\n", "ZeroDivisionError"]
    context = await interpreter.create_context()
    await interpreter.run_code("x = 2", context=context)
    assert (await interpreter.run_code("print(x)", context=context)).stdout == "2\n"
    assert [listed.id for listed in await interpreter.list_contexts()] == [context.id]
    await interpreter.delete_context(context)
    with pytest.raises(DaytonaConnectionError, match="1008"):
        await interpreter.run_code("pass", context=context)
    with pytest.raises(DaytonaTimeoutError):
        await interpreter.run_code(SPIN, timeout=1)
    with pytest.raises(DaytonaConnectionError, match="1001"):
        await interpreter.run_code("import os; os._exit(7)")


@pytest.mark.anyio
async def test_the_async_sdk_gets_every_line_ten_times_out_of_ten(sandbox_async: AsyncSandbox) -> None:
    for _ in range(10):
        assert (await sandbox_async.code_interpreter.run_code(COUNT)).stdout == COUNTED


@pytest.mark.anyio
async def test_the_async_sdk_makes_finds_lists_and_deletes_sandboxes(config: DaytonaConfig) -> None:
    async with AsyncDaytona(config) as client:
        made = await client.create()
        assert (await client.get(made.id)).id == made.id
        assert made.id in [sandbox.id async for sandbox in client.list()]
        await client.delete(made)
        with pytest.raises(DaytonaNotFoundError):
            await client.get(made.id)


# -- several at once, and waiting -------------------------------------------------------------------------------------


def test_two_clients_at_once(daytona: Daytona) -> None:
    made = [daytona.create(), daytona.create()]

    def work(sandbox: Sandbox) -> list[str]:
        return [sandbox.code_interpreter.run_code(f"print({number})").stdout for number in range(20)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, made))
    assert results == [[f"{number}\n" for number in range(20)]] * 2
    for sandbox in made:
        daytona.delete(sandbox)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's pings as often as they can be, so that three seconds show what it does in minutes."""
    hasty = functools.partial(
        httpx_ws.connect_ws, keepalive_ping_interval_seconds=0.2, keepalive_ping_timeout_seconds=0.5
    )
    monkeypatch.setattr(httpx_ws, "connect_ws", hasty)


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


# The SDK's thread may still want to ping as the connection ends; a ping without an answer ends its run with an error.
@pytest.mark.filterwarnings(
    "ignore:Exception in thread .*_background_keepalive_ping:pytest.PytestUnhandledThreadExceptionWarning"
)
@pytest.mark.usefixtures("impatient")
def test_pings_are_answered_while_code_runs_and_while_it_waits_for_its_turn(sandbox: Sandbox) -> None:
    started = threading.Event()
    running, first = in_thread(
        lambda: sandbox.code_interpreter.run_code(
            "import time; print('started', flush=True); time.sleep(3)", on_stdout=lambda _: started.set()
        )
    )
    assert started.wait(20)
    assert sandbox.code_interpreter.run_code("print('my turn')").stdout == "my turn\n"
    running.join(20)
    assert first[0].error is None


def test_a_run_that_waits_sixty_seconds_for_its_turn_does_not_fail(sandbox: Sandbox, config: DaytonaConfig) -> None:
    started = threading.Event()
    running, _ = in_thread(
        lambda: sandbox.code_interpreter.run_code(
            "import time; print('started', flush=True); time.sleep(61)", on_stdout=lambda _: started.set()
        )
    )
    assert started.wait(20)

    async def wait_in_line() -> str:
        async with AsyncDaytona(config) as client:
            queued = await client.get(sandbox.id)
            return str((await queued.code_interpreter.run_code("print('async')")).stdout)

    waiting, results = in_thread(lambda: asyncio.run(wait_in_line()))
    assert sandbox.code_interpreter.run_code("print('sync')").stdout == "sync\n"
    for thread in (running, waiting):
        thread.join(30)
    assert results == ["async\n"]


def test_a_reader_that_is_slow_gets_everything(sandbox: Sandbox) -> None:
    size = 8 * 1024 * 1024
    received = 0

    def take(message: Any) -> None:
        nonlocal received
        received += len(message.output)
        pause.wait(0.01)

    pause = threading.Event()
    sandbox.code_interpreter.run_code(f"print('x' * {size}, end='')", on_stdout=take)
    assert received == size
