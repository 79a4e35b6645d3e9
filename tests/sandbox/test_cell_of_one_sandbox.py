"""Cells that bubblewrap builds: each is one sandbox, whose workers share processes and scratch space."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import Limits, Tier, Workspace
from mcp_server.worker import preload
from tests.sandbox.cell_scenes import DAEMON, Scene, Stage, descendants, enter, play, require_tier

Perform = Callable[[Scene], None]


@pytest.fixture
def perform() -> Perform:
    ordinary = os.geteuid() == 0
    require_tier(Tier.STRONG_CELL, ordinary)
    return lambda scene: play(scene, Tier.STRONG_CELL, ordinary)


def test_workers_share_files_processes_and_scratch_space(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            first, second = await enter(cell, "a"), await enter(cell, "a")
            for place in ("/work", "/tmp", "/dev/shm"):
                await first.do(f"open('{place}/note', 'w').write('hello')")
                assert await second.do(f"answer = open('{place}/note').read()") == "hello"
            pid = await first.do("import os; answer = os.getpid()")
            assert await second.do(f"import os; os.kill({pid}, 0); answer = True")
            assert {first.spawned.tag, second.spawned.tag} != {first.spawned.tag}

    perform(scene)


def test_no_worker_reaches_into_another_or_into_the_zygote(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell(spare_workers=2) as cell:
            worker, other = await enter(cell, "a"), await enter(cell, "a")
            await worker.do("import os, resource, signal")
            theirs = await other.do("import os; answer = os.getpid()")
            everyone = await worker.do("answer = [int(n) for n in os.listdir('/proc') if n.isdigit()]")
            mine = await worker.do("answer = os.getpid()")
            assert {1, theirs} < set(everyone)
            for pid in set(everyone) - {mine}:
                for forbidden in ("mem", "environ", "root/etc", "fd"):
                    reach = "os.listdir" if forbidden in ("root/etc", "fd") else "open"
                    with pytest.raises(RuntimeError, match="Permission"):
                        await worker.do(f"{reach}('/proc/{pid}/{forbidden}')")
                with pytest.raises(RuntimeError, match=r"Permission|not permitted"):
                    await worker.do(f"resource.prlimit({pid}, resource.RLIMIT_NOFILE, (3, 3))")
            await worker.do("for number in set(signal.Signals): os.kill(1, number)")
            assert await (await enter(cell, "a")).do("answer = 1 + 1") == 2

    perform(scene)


def test_a_sandbox_that_comes_second_is_refused_and_a_deleted_one_ends_the_cell(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell, "a", "one")
            with pytest.raises(RuntimeError, match="another sandbox"):
                await enter(cell, "b")
            await worker.do(DAEMON)
            await cell.delete_sandbox("unknown")
            assert not worker.everything_is_gone()
            await cell.delete_sandbox("a")
            assert worker.everything_is_gone()
            assert descendants(os.getpid()) == set()
            assert list((stage.directory / "state").iterdir()) == []
            with pytest.raises(EngineUnavailable):
                await enter(cell, "a")

    perform(scene)


def test_cells_side_by_side_share_nothing(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell(spare_workers=0) as one, stage.cell(spare_workers=0) as two:
            first, stranger = await enter(one, "a"), await enter(two, "b")
            for place in ("/work", "/tmp", "/dev/shm"):
                await first.do(f"open('{place}/note', 'w').write('hello')")
                assert await stranger.do(f"import os; answer = os.path.exists('{place}/note')") is False
            assert await stranger.do("answer = [n for n in os.listdir('/proc') if n.isdigit()]") == ["1", "2"]
            assert await stranger.do("answer = os.listdir('/outputs')") in ([], ["s1"])
            assert abs(first.spawned.tag - stranger.spawned.tag) > 1000

    perform(scene)


def test_starting_and_ending_cells_do_not_get_into_each_others_way(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async def live() -> None:
            for _ in range(4):
                async with stage.cell(spare_workers=0) as cell:
                    assert cell.stores_outputs
                    await enter(cell, "a", "one")

        await asyncio.gather(*(live() for _ in range(4)))
        assert list((stage.directory / "state").iterdir()) == []

    perform(scene)


def test_disk_and_processes_are_limited(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        limits = Limits(disk_bytes=4 * 1024 * 1024, scratch_bytes=1024 * 1024, processes=20)
        async with stage.cell(limits=limits) as cell:
            worker = await enter(cell)
            for place in ("/work", "/tmp", "/dev/shm"):
                with pytest.raises(RuntimeError, match="No space left"):
                    await worker.do(f"open({place!r} + '/big', 'wb').write(bytes(5 * 1024 * 1024))")
            with pytest.raises(RuntimeError, match="BlockingIOError"):
                await worker.do(
                    "import os, signal\nfor number in range(30):\n    if os.fork() == 0:\n        signal.pause()\n"
                )

    perform(scene)


def test_what_is_seen_is_the_system_alone_and_cannot_be_changed(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            await worker.do("import os, pwd, socket")
            for forbidden in ("/", "/usr", "/etc", "/run", "/outputs", "/dev", "/.worker", "/proc/sys/kernel"):
                assert not await worker.do(f"answer = os.access({forbidden!r}, os.W_OK)")
            assert await worker.do("answer = os.path.exists('/sys')") is False
            to_python = sys.prefix.split("/")[2:3] if sys.prefix.startswith("/home/") else []
            assert await worker.do("answer = os.listdir('/home')") == to_python
            assert await worker.do("answer = [name for _, name in socket.if_nameindex()]") == ["lo"]
            assert await worker.do("answer = socket.gethostname()") == "sandbox"
            assert await worker.do("answer = pwd.getpwuid(os.getuid()).pw_dir") == "/work"

    perform(scene)


@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
def test_a_workspace_stands_at_work(perform: Perform, read_only: bool) -> None:
    async def scene(stage: Stage) -> None:
        workspace = stage.directory / "project"
        workspace.mkdir(0o700)
        (workspace / "input").write_text("given")
        async with stage.cell(workspace=Workspace(str(workspace), read_only)) as cell:
            worker = await enter(cell, "a")
            assert await worker.do("answer = open('/work/input').read()") == "given"
            if read_only:
                with pytest.raises(RuntimeError, match="Read-only"):
                    await worker.do("open('made', 'w')")
            else:
                await worker.do("open('made', 'w').write('by a')")
                assert (workspace / "made").stat().st_uid == os.geteuid()
        assert sorted(path.name for path in workspace.iterdir()) == (["input"] if read_only else ["input", "made"])

    perform(scene)


def test_a_machine_without_bwrap_is_told(perform: Perform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    async def scene(stage: Stage) -> None:
        with pytest.raises(SetupFailed, match="bwrap is not on the PATH"):
            await Cell(stage.plan).start()
        assert not (stage.directory / "state").exists()

    perform(scene)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is root")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_root_is_refused_since_its_code_could_change_the_hosts_settings() -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(SetupFailed, match="start the server as an ordinary user"):
            await Cell(stage.plan).start()

    play(scene, Tier.STRONG_CELL, ordinary_user=False)


def test_a_home_for_warming_is_as_empty_afterwards_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/of/the/test")
    (tmp_path / "kept").write_text("of the user's")
    with preload.emptied_home(str(tmp_path)):
        assert os.environ["HOME"] == str(tmp_path)
        (tmp_path / ".cache" / "fonts").mkdir(parents=True)
        (tmp_path / ".cache" / "fonts" / "list").write_text("x")
        (tmp_path / "link").symlink_to("kept")
        (tmp_path / "file").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "of the user's"
    assert "HOME" not in os.environ
