"""Cells that do not start, and cells that end badly: what is said, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell, WorkerExit
from mcp_server.sandbox.policy import OWN_VIEW, CellPlan, Tier
from tests.sandbox.cell_scenes import (
    DAEMON,
    Scene,
    Stage,
    descendants,
    enter,
    kill,
    play,
    require_tier,
    wait_until_gone,
)

Perform = Callable[[Scene], None]


@pytest.fixture(params=[Tier.NONE, Tier.STRONG_CELL, Tier.STRONG])
def tier(request: pytest.FixtureRequest) -> Tier:
    found: Tier = request.param
    return found


@pytest.fixture(params=["as this user", "as an ordinary user"])
def perform(request: pytest.FixtureRequest, tier: Tier) -> Perform:
    ordinary = request.param == "as an ordinary user"
    require_tier(tier, ordinary)
    return lambda scene: play(scene, tier, ordinary)


async def _refusal(plan: CellPlan) -> str:
    fds = len(os.listdir("/proc/self/fd"))
    cell = Cell(plan)
    with pytest.raises(SetupFailed) as refused:
        await cell.start()
    assert len(os.listdir("/proc/self/fd")) == fds
    return str(refused.value)


def _script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.anyio
async def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    text = await _refusal(CellPlan(str(tmp_path / "python"), str(tmp_path / "state")))
    assert str(tmp_path / "python") in text
    assert "No such file" in text
    assert "--python" in text


@pytest.mark.anyio
async def test_an_interpreter_that_may_not_be_executed_is_named(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("")
    assert "Permission denied" in await _refusal(CellPlan(str(tmp_path / "python"), str(tmp_path / "state")))


@pytest.mark.anyio
async def test_an_interpreter_that_is_too_old_is_told_by_its_version(tmp_path: Path) -> None:
    python = _script(tmp_path, "echo 'Python 3.6' >&2; exit 1")
    text = await _refusal(CellPlan(python, str(tmp_path / "state")))
    assert "is Python 3.6" in text
    assert "3.9" in text


@pytest.mark.anyio
async def test_the_last_words_of_a_broken_interpreter_are_passed_on(tmp_path: Path) -> None:
    python = _script(tmp_path, "echo 'libpython3.so: cannot open' >&2; exit 127")
    text = await _refusal(CellPlan(python, str(tmp_path / "state")))
    assert "exit code 127" in text
    assert "libpython3.so: cannot open" in text


@pytest.mark.anyio
async def test_an_interpreter_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    python = _script(tmp_path, "exec sleep 1000")
    text = await _refusal(CellPlan(python, str(tmp_path / "state"), start_timeout_s=0.2))
    assert "not ready after 0.2 s" in text


@pytest.mark.anyio
async def test_a_state_directory_of_everyones_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(0o700)
    state.chmod(0o755)
    assert "mode 0700" in await _refusal(CellPlan(sys.executable, str(state)))


def test_a_missing_interpreter_is_named_by_a_cell_with_rooms(tier: Tier) -> None:
    async def scene(stage: Stage) -> None:
        python = str(stage.directory / "python")
        text = await _refusal(CellPlan(python, str(stage.directory / "state"), stage.tier))
        assert python in text
        assert "No such file" in text

    ordinary = tier is Tier.STRONG_CELL and os.geteuid() == 0
    require_tier(tier, ordinary)
    play(scene, tier, ordinary)


def test_modules_that_cannot_be_preloaded_are_told_and_others_are_there(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell(preload=("no_such_module", "sqlite3")) as cell:
            assert cell.warmth is not None
            assert cell.warmth.preloaded == ("sqlite3",)
            assert "no_such_module" in cell.warmth.failed["no_such_module"]
            assert cell.warmth.threads == 1
            worker = await enter(cell)
            assert await worker.do("import sys; answer = 'sqlite3' in sys.modules")

    perform(scene)


def test_a_cell_that_may_make_no_file_for_its_memory_serves_and_says_so(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, resource.RLIM_INFINITY))
        with structlog.testing.capture_logs() as log:
            async with stage.cell(preload=("sqlite3",)) as cell:
                worker = await enter(cell)
                assert await worker.do("import sys; answer = 'sqlite3' in sys.modules")
        (told,) = [entry for entry in log if entry["event"] == "cell.unshared"]
        assert "File too large" in told["reason"]

    perform(scene)


def test_a_venv_under_a_private_home_works(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        home = stage.directory / "home"
        packages = home / "venv" / "lib" / f"python{_version(stage.python)}" / "site-packages"
        packages.mkdir(parents=True)
        (home / "secret").write_text("x")
        home.chmod(0o700)
        (home / "venv" / "bin").mkdir()
        base = _real(stage.python)
        (home / "venv" / "bin" / "python").symlink_to(base)
        (home / "venv" / "pyvenv.cfg").write_text(f"home = {os.path.dirname(base)}\n")
        (packages / "of_the_venv.py").write_text("where = __file__")
        python = str(home / "venv" / "bin" / "python")
        async with stage.cell(python=python, preload=("of_the_venv",)) as cell:
            worker = await enter(cell)
            assert await worker.do("import sys, os, of_the_venv; answer = sys.prefix") == str(home / "venv")
            if stage.tier in OWN_VIEW:
                assert await worker.do(f"answer = os.listdir({str(home)!r})") == ["venv"]
                assert not await worker.do("answer = os.access(of_the_venv.where, os.W_OK)")

    perform(scene)


def _real(python: str) -> str:
    return os.path.realpath(python)


def _version(python: str) -> str:
    return _real(python).rpartition("python")[2]


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_killed_zygote_is_reported_once_nothing_is_left_of_it(perform: Perform, tier: Tier, generation: int) -> None:
    if generation > {Tier.NONE: 1, Tier.STRONG: 2, Tier.STRONG_CELL: 3}[tier]:
        pytest.skip("the zygote is of an earlier generation")

    async def scene(stage: Stage) -> None:
        lost = asyncio.Event()
        async with stage.cell() as cell:
            cell.on_lost = lost.set
            worker = await enter(cell)
            await worker.do(DAEMON)
            victim = os.getpid()
            for _ in range(generation):
                (victim,) = _children(victim)
            kill(victim)
            await lost.wait()
            assert worker.exited.result() == WorkerExit(None, 9)
            assert worker.everything_is_gone()
            assert descendants(os.getpid()) == set()
            state = stage.directory / "state"
            assert not state.exists() or list(state.iterdir()) == []
            with pytest.raises(EngineUnavailable):
                await enter(cell)

    perform(scene)


def test_a_killed_server_leaves_nothing(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        server = _start_server(stage)
        everything = {os.pidfd_open(pid) for pid in descendants(server)}
        assert len(everything) > 2
        kill(server)
        wait_until_gone(everything)
        _collect(server)
        state = stage.directory / "state"
        assert not state.exists() or list(state.iterdir()) == []

    perform(scene)


def test_what_a_server_and_its_zygote_left_the_next_cell_clears(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        server = _start_server(stage)
        everything = {os.pidfd_open(pid) for pid in descendants(server)}
        (zygote,) = _children(server)
        os.kill(server, 19)  # stopped, so that it cannot act on its zygote's end
        kill(zygote)
        kill(server)
        _collect(server)
        async with stage.cell():
            wait_until_gone(everything)
            own = 0 if stage.tier is Tier.STRONG else 1
            assert len(list((stage.directory / "state").glob("*"))) == own

    perform(scene)


def _start_server(stage: Stage) -> int:
    """A process with a cell, in which a worker and a daemon live, that goes on until it is killed."""
    readable, writable = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(readable)
        os._exit(_serve_until_killed(stage, writable))
    os.close(writable)
    with open(readable, "rb") as ready:
        ready.read()
    return server


def _collect(server: int) -> None:
    os.waitpid(server, 0)


def _serve_until_killed(stage: Stage, ready: int) -> int:
    async def serve() -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            await worker.do(DAEMON)
            os.close(ready)
            await asyncio.Event().wait()

    asyncio.new_event_loop().run_until_complete(serve())
    return 0


def _children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in text.split()}
