"""Workers through a real cell: how they are born, what they see, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import pytest

from mcp_server.errors import EngineUnavailable
from mcp_server.sandbox.cell import WorkerExit
from mcp_server.sandbox.policy import FIRST_CELL_UID, OWN_VIEW, Limits, Tier, Workspace
from mcp_server.sandbox.processes import find_tagged
from mcp_server.worker import linux
from tests.sandbox.cell_scenes import DAEMON, Scene, Stage, descendants, enter, play, require_tier

Perform = Callable[[Scene], None]

_CAP_SYS_ADMIN = 21


@pytest.fixture(params=[Tier.NONE, Tier.STANDARD, Tier.STRONG_CELL, Tier.STRONG])
def tier(request: pytest.FixtureRequest) -> Tier:
    found: Tier = request.param
    return found


@pytest.fixture(params=["as this user", "as an ordinary user"])
def perform(request: pytest.FixtureRequest, tier: Tier) -> Perform:
    ordinary = request.param == "as an ordinary user"
    require_tier(tier, ordinary)
    return lambda scene: play(scene, tier, ordinary)


@pytest.fixture
def perform_shared(perform: Perform, tier: Tier) -> Perform:
    """Where sandboxes share a cell."""
    if tier is Tier.STRONG_CELL:
        pytest.skip("a cell of this tier has one sandbox")
    return perform


@pytest.fixture(params=["as this user", "as an ordinary user"])
def perform_strong(request: pytest.FixtureRequest) -> Perform:
    ordinary = request.param == "as an ordinary user"
    require_tier(Tier.STRONG, ordinary)
    return lambda scene: play(scene, Tier.STRONG, ordinary)


def test_a_worker_starts_clean_in_its_sandbox(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        os.environ["SECRET"] = "of the server"
        async with stage.cell() as cell:
            worker = await enter(cell, directory="one")
            work = cell.work_dir("sandbox")
            assert await worker.do("import os; answer = os.getcwd()") == f"{work}/one"
            environment = await worker.do("answer = dict(os.environ)")
            assert environment.pop("HOME") == work
            environment.pop("TMPDIR", None)
            path = environment.pop("PATH").replace("/.python", "")  # an interpreter below /work is shown elsewhere
            assert {**environment, "PATH": path} == dict(stage.plan.environment)
            listing = await worker.do("answer = sorted(map(int, os.listdir('/proc/self/fd')))")
            assert [fd for fd in listing if fd < 100] == [0, 1, 2, 3]  # 3 is the listing's own
            high = 2 if stage.tier is Tier.STANDARD else 1  # the control socket, and under Landlock /proc/self
            assert len([fd for fd in listing if fd > 100]) == high
            assert await worker.do("answer = os.getsid(0) == os.getpid()")
            assert await worker.do("import signal; answer = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL")
            os.set_blocking(worker.spawned.stdout_fd, True)
            await worker.do("os.write(1, b'out')")
            assert os.read(worker.spawned.stdout_fd, 10) == b"out"

    perform(scene)


def test_a_worker_can_gain_nothing(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            status = await worker.do("answer = open('/proc/self/status').read()")
            facts = dict(line.split(":\t", 1) for line in status.splitlines())
            assert facts["CapEff"] == facts["CapPrm"] == facts["CapAmb"] == "0" * 16
            assert facts["NoNewPrivs"] == "1"
            assert facts["Seccomp"] == ("0" if stage.tier is Tier.NONE else "2")
            if stage.tier in OWN_VIEW:
                assert facts["CapBnd"] == "0" * 16

    perform(scene)


def test_the_first_process_of_a_room_is_small_and_sealed_and_reaps(perform_strong: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            status = await worker.do("answer = open('/proc/1/status').read()")
            facts = dict(line.split(":\t", 1) for line in status.splitlines())
            assert facts["CapEff"] == facts["CapPrm"] == facts["CapBnd"] == facts["SigCgt"] == "0" * 16
            assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
            assert int(facts["VmRSS"].split()[0]) < 256  # kB
            for name in ("mem", "maps", "environ", "fd"):
                with pytest.raises(RuntimeError, match="Permission denied"):
                    await worker.do(f"import os; answer = os.open('/proc/1/{name}', os.O_RDONLY)")
            await worker.do(
                "import os, time\n"
                "read, write = os.pipe()\n"
                "if os.fork() == 0:\n"
                "    if os.fork():\n"
                "        os._exit(0)\n"
                "    os.write(write, b'%d' % os.getpid())\n"
                "    os._exit(0)\n"
                "os.wait()\n"
                "orphan = int(os.read(read, 20))\n"
                "while os.path.exists('/proc/%d' % orphan):\n"
                "    time.sleep(0.001)\n"
            )
            for number in range(1, signal.SIGRTMAX + 1):
                if number != signal.SIGCONT:
                    await worker.do(f"try: os.kill(1, {number})\nexcept PermissionError: pass")
            assert await worker.do("answer = os.path.exists('/proc/1')")

    perform_strong(scene)


def test_the_host_sees_how_a_worker_ended(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            for code, expected in (
                ("import os; os._exit(7)", WorkerExit(7, None)),
                ("import os; os.kill(os.getpid(), 9)", WorkerExit(None, signal.SIGKILL)),
                ("import ctypes; ctypes.string_at(0)", WorkerExit(None, signal.SIGSEGV)),
            ):
                worker = await enter(cell)
                assert await worker.fall(code) == expected
                await cell.destroy(worker.spawned.worker_id)

    perform(scene)


def test_destroying_ends_daemons_too(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker, bystander = await enter(cell), await enter(cell)
            await worker.do(DAEMON)
            await bystander.do(DAEMON)
            await cell.destroy(worker.spawned.worker_id)
            assert worker.everything_is_gone()
            assert worker.exited.result() == WorkerExit(None, signal.SIGKILL)
            assert not bystander.everything_is_gone()
            assert await bystander.do("answer = 1 + 1") == 2

    perform(scene)


def test_a_dead_workers_daemons_live_until_it_is_destroyed(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            await worker.do(DAEMON)
            await worker.fall("os._exit(1)")
            assert not worker.everything_is_gone()
            await cell.destroy(worker.spawned.worker_id)
            assert worker.everything_is_gone()
            await cell.destroy(worker.spawned.worker_id)

    perform(scene)


def test_a_fork_bomb_ends_with_its_worker(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            await worker.do(
                "import os\n"
                "def fork():\n"
                "    try: return os.fork()\n"
                "    except BlockingIOError: return -1\n"  # as many as the limit allows are enough
                "for number in range(40):\n"
                "    if fork() == 0:\n"
                "        while True:\n"
                "            if fork(): os._exit(0)\n"  # each leaves a child and goes
                "            os.setsid()"
            )
            await cell.destroy(worker.spawned.worker_id)
            assert worker.everything_is_gone()

    perform(scene)


def test_many_workers_at_once_are_told_apart(perform_shared: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            workers = await asyncio.gather(*(enter(cell, f"sandbox {number}") for number in range(20)))
            await asyncio.gather(*(worker.do(f"mine = {number}") for number, worker in enumerate(workers)))
            answers = await asyncio.gather(*(worker.do("answer = mine") for worker in workers))
            assert answers == list(range(20))
            assert len({worker.spawned.tag for worker in workers}) == 20

    perform_shared(scene)


def test_a_cancelled_spawn_leaves_no_worker(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell(spare_workers=0, spare_rooms=0) as cell:
            kept = await enter(cell)
            open_before = len(os.listdir("/proc/self/fd"))
            spawning = [asyncio.create_task(enter(cell)) for _ in range(5)]
            await asyncio.sleep(0)
            for task in spawning:
                task.cancel()
            await asyncio.wait(spawning)
            assert all(task.cancelled() for task in spawning)
            tags = range(kept.spawned.tag, kept.spawned.tag + 6)
            await asyncio.gather(*(cell.destroy(kept.spawned.worker_id + number) for number in range(1, 6)))
            assert set(find_tagged(tags)) == {kept.spawned.tag}
            assert len(os.listdir("/proc/self/fd")) == open_before

    perform(scene)


def test_a_sandbox_is_shared_by_its_workers_alone(perform_shared: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            first, second, stranger = await enter(cell, "a"), await enter(cell, "a"), await enter(cell, "b")
            path = cell.work_dir("a") + "/note"
            await first.do(f"open({path!r}, 'w').write('hello')")
            assert await second.do(f"answer = open({path!r}).read()") == "hello"
            if stage.tier is not Tier.NONE:
                with pytest.raises(RuntimeError, match=r"FileNotFound|Permission"):
                    await stranger.do(f"open({path!r})")
            await second.do(f"open({path!r}, 'a').write(' again')")

    perform_shared(scene)


def test_the_host_reads_a_sandbox_through_a_descriptor(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell, "a")
            await worker.do("open('note', 'w').write('hello')")
            work = await cell.open_work("a")
            note = os.open("note", os.O_RDONLY, dir_fd=work)
            assert os.read(note, 100) == b"hello"
            os.close(note)
            os.close(work)

    perform(scene)


def test_what_the_host_stores_the_code_reads_but_cannot_change(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            assert cell.stores_outputs
            worker = await enter(cell, "a", "one")
            stored = cell.open_outputs("a", "one")
            with os.fdopen(os.open("stdout", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=stored), "w") as file:
                file.write("all of it")
            path = cell.outputs_dir("a", "one") + "/stdout"
            assert await worker.do(f"answer = open({path!r}).read()") == "all of it"
            if stage.tier is not Tier.NONE:
                for change in (f"open({path!r}, 'w')", f"import os; os.unlink({path!r})"):
                    with pytest.raises(RuntimeError, match=r"Read-only|Permission"):
                        await worker.do(change)
                if stage.tier is Tier.STRONG_CELL:  # its contexts are one party
                    os.close(stored)
                    return
                other = await enter(cell, "a", "two")
                look = f"import os; answer = os.listdir({cell.outputs_dir('a', 'one')!r})"
                if stage.tier is Tier.STRONG:
                    assert await other.do(look) == []
                else:
                    with pytest.raises(RuntimeError, match="Permission"):
                        await other.do(look)
            os.close(stored)

    perform(scene)


def test_a_deleted_sandbox_takes_its_files_and_workers_with_it(perform_shared: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            listing = "import os; answer = sorted(os.listdir('.'))"
            untouched = await (await enter(cell, "untouched")).do(listing)
            worker = await enter(cell, "a", "one")
            await worker.do(
                "import os\n"
                "for depth in range(1500):\n"
                "    os.mkdir('d'); os.chdir('d')\n"
                "open('file', 'w').close()\n"
                "os.chmod('.', 0)"
            )
            await cell.delete_sandbox("a")
            assert worker.everything_is_gone()
            await cell.delete_sandbox("a")
            again = await enter(cell, "a")
            assert await again.do(listing) == untouched
            if stage.tier is not Tier.STRONG:
                cell_dir = os.path.dirname(os.path.dirname(cell.work_dir("a")))
                assert len(os.listdir(cell_dir)) == 4  # lock, outputs, two sandboxes

    perform_shared(scene)


def test_a_hundred_workers_leave_nothing(perform_shared: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell(spare_workers=0) as cell:

            async def live(number: int) -> None:
                worker = await enter(cell, f"sandbox {number}")
                if number % 3 == 0:
                    await worker.do(DAEMON)
                elif number % 3 == 1:
                    await worker.fall("import os; os._exit(1)")
                await cell.delete_sandbox(f"sandbox {number}")
                worker.let_go()

            def left() -> tuple[int, int, str]:
                rooms_may_be_building = descendants(os.getpid()) if stage.tier is not Tier.STRONG else set()
                with open("/proc/self/mounts") as mounts:
                    return len(os.listdir("/proc/self/fd")), len(rooms_may_be_building), mounts.read()

            await live(0)
            before = left()
            for number in range(100):
                await live(number)
            assert left() == before
            ours = 4  # shim, zygote, undertaker, nursery
            assert len(descendants(os.getpid())) <= ours + stage.plan.spare_rooms + 1
            probe = await enter(cell)
            if stage.tier is Tier.STRONG:
                assert await probe.do("answer = open('/proc/self/mounts').read().count(' tmpfs ')") <= 10

    perform_shared(scene)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may see what the undertaker holds")
def test_no_namespace_of_a_room_that_ended_is_held_for_long() -> None:
    require_tier(Tier.STRONG, ordinary_user=False)

    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            undertaker, *others = [pid for pid in descendants(os.getpid()) if _name_of(pid) == "undertaker"]
            assert not others
            held = len(os.listdir(f"/proc/{undertaker}/fd"))
            workers = [await enter(cell, f"sandbox {number}") for number in range(5)]
            await asyncio.gather(*(cell.destroy(worker.spawned.worker_id) for worker in workers))
            assert all(worker.everything_is_gone() for worker in workers)
            async with asyncio.timeout(10):
                while len(os.listdir(f"/proc/{undertaker}/fd")) > held:  # noqa: ASYNC110  (the kernel tells nobody)
                    await asyncio.sleep(0.01)

    play(scene, Tier.STRONG, ordinary_user=False)


def _name_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as name:
        return name.read().strip()


def test_after_the_end_of_a_cell_nothing_can_be_had(perform: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker = await enter(cell)
            await worker.do(DAEMON)
        await cell.close()
        assert worker.everything_is_gone()
        assert descendants(os.getpid()) == set()
        state = stage.directory / "state"
        assert not state.exists() or list(state.iterdir()) == []
        assert not worker.exited.done()
        await cell.destroy(worker.spawned.worker_id)
        with pytest.raises(EngineUnavailable, match="not running"):
            await enter(cell)

    perform(scene)


def test_disk_limits_hold_for_files_and_for_their_number(perform_strong: Perform) -> None:
    async def scene(stage: Stage) -> None:
        limits = Limits(disk_bytes=4 * 1024 * 1024, disk_inodes=100, scratch_bytes=1024 * 1024)
        async with stage.cell(limits=limits) as cell:
            worker = await enter(cell)
            for place in ("/work", "/tmp", "/dev/shm"):
                with pytest.raises(RuntimeError, match="No space left"):
                    await worker.do(f"open({place!r} + '/big', 'wb').write(bytes(5 * 1024 * 1024))")
                await worker.do(f"import os; os.unlink({place!r} + '/big')")
            with pytest.raises(RuntimeError, match="No space left"):
                await worker.do("for number in range(101): open('/work/%d' % number, 'w').close()")

    perform_strong(scene)


def test_each_room_knows_the_user_of_its_sandbox(perform_strong: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            users = []
            for sandbox in ("a", "a", "b", "a", "b", "c"):  # some rooms were made ready for the user of another
                worker = await enter(cell, sandbox)
                user = "import grp, os, pwd; user = pwd.getpwuid(os.getuid())\n"
                await worker.do(user + "assert user.pw_gid == os.getgid() == grp.getgrgid(user.pw_gid).gr_gid")
                owns = "os.stat('/work').st_uid == user.pw_uid"
                users.append(await worker.do(f"answer = [user.pw_name, user.pw_dir, {owns}]"))
            assert users == [[users[0][0], "/work", True]] * 6

    perform_strong(scene)


def test_a_room_has_its_own_processes_network_and_users(perform_strong: Perform) -> None:
    async def scene(stage: Stage) -> None:
        async with stage.cell() as cell:
            worker, other = await enter(cell), await enter(cell)
            await other.do(DAEMON)
            pids = await worker.do("import os; answer = [n for n in os.listdir('/proc') if n.isdigit()]")
            assert pids == ["1", "2"]
            assert await worker.do("answer = os.listdir('/sys') if os.path.exists('/sys') else None") is None
            assert await worker.do("import socket; answer = [name for _, name in socket.if_nameindex()]") == ["lo"]
            assert await worker.do(
                "server = socket.create_server(('127.0.0.1', 0))\n"
                "client = socket.create_connection(server.getsockname())\n"
                "server.accept()[0].send(b'x'); answer = client.recv(1).decode()"
            ) == "x"  # fmt: skip
            assert await worker.do("import pwd; answer = pwd.getpwuid(os.getuid()).pw_dir") == "/work"
            to_python = sys.prefix.split("/")[2:3] if sys.prefix.startswith("/home/") else []
            assert await worker.do("answer = os.listdir('/home')") == to_python
            # Where the cell has what belongs to all.
            for hidden in ("/.outputs", "/.sandboxes", "/.workspace"):
                assert await worker.do(f"answer = [os.path.ismount({hidden!r}), *os.listdir({hidden!r})]") == [False]
            for forbidden in ("/", "/usr", "/etc", "/outputs", "/dev", "/proc/sys/kernel"):
                assert not await worker.do(f"answer = os.access({forbidden!r}, os.W_OK)")

    perform_strong(scene)


@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
def test_a_workspace_stands_in_for_every_sandbox(perform_shared: Perform, read_only: bool) -> None:
    async def scene(stage: Stage) -> None:
        workspace = stage.directory / "project"
        workspace.mkdir(0o700)
        (workspace / "input").write_text("given")
        async with stage.cell(workspace=Workspace(str(workspace), read_only)) as cell:
            assert cell.work_dir("a") == ("/work" if stage.tier is Tier.STRONG else str(workspace))
            first, second = await enter(cell, "a"), await enter(cell, "b")
            assert await first.do("answer = open('input').read()") == "given"
            if not read_only:
                await first.do("open('made', 'w').write('by a')")
                assert await second.do("answer = open('made').read()") == "by a"
                assert (workspace / "made").read_text() == "by a"
                assert (workspace / "made").stat().st_uid == os.geteuid()
            elif stage.tier is not Tier.NONE:
                with pytest.raises(RuntimeError, match=r"Read-only|Permission"):
                    await first.do("open('made', 'w')")
            await cell.delete_sandbox("a")
            third = await enter(cell, "a")
            assert await third.do("answer = open('input').read()") == "given"
            if stage.tier is Tier.STRONG:
                assert await third.do("import os; answer = os.listdir('/.workspace')") == []
        assert (workspace / "input").read_text() == "given"

    perform_shared(scene)


def test_root_that_may_not_mount_gets_rooms_all_the_same() -> None:
    """As in a container with user namespaces and without CAP_SYS_ADMIN; the interpreter may lie under root's home."""
    if os.geteuid() != 0:
        pytest.skip("only root has something to lose")

    async def scene(stage: Stage) -> None:
        linux.prctl(linux.PR_CAPBSET_DROP, _CAP_SYS_ADMIN)
        async with stage.cell() as cell:
            worker = await enter(cell)
            uids = await worker.do("import os; answer = open('/proc/self/uid_map').read().split()")
            assert uids == ["0", str(FIRST_CELL_UID), "65536"]
            await worker.do("open('note', 'w').write('hello')")
            assert not cell.stores_outputs
            work = await cell.open_work("sandbox")
            assert os.stat("note", dir_fd=work).st_uid > FIRST_CELL_UID
            os.close(work)

    play(scene, Tier.STRONG, ordinary_user=False)
