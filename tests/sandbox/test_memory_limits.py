"""Memory of a context is limited as a whole: by a memory cgroup where one can be had, by the watchdog elsewhere."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mcp_server.sandbox import cgroups, limits, processes, scopes
from mcp_server.sandbox.limits import Ceilings, Excess, GroupKeeper, MemoryKeeper, Watchdog
from mcp_server.sandbox.processes import TaggedProcess

MIB = 1024 * 1024
LIMIT_BYTES = 256 * MIB
TAG = (1 << 41) + 12345
WAIT_S = 30

GO_THROUGH = "import os, sys\nfor door in %r: os.write(door, b'0')\n"
BOMB = "chunks = []\nwhile True: chunks.append(bytearray(8 << 20))"
CHILDREN_TOO_LARGE_TOGETHER = """
import os, signal
for _ in range(12):
    if os.fork() == 0:
        held = bytearray(48 << 20)
        signal.pause()
"""
SHARED_BY_CHILDREN = """
import os, signal, sys
held = bytearray(160 << 20)
for _ in range(4):
    if os.fork() == 0:
        os.close(1)
        signal.pause()
print("ready", flush=True)
signal.pause()
"""


class Context:
    """A tagged process of its own session, standing in for a worker; it waits for a line before it runs the code.

    It goes through the doors that it inherits.
    """

    def __init__(self, code: str, tag: int = TAG, inherited: tuple[int, ...] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GO_THROUGH % (inherited,) + "sys.stdin.readline()\n" + code],
            pass_fds=inherited,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_RTTIME, (tag, tag)),
            start_new_session=True,
        )
        self.pid = self._process.pid

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def read_line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    async def wait(self) -> int:
        return await asyncio.to_thread(self._process.wait, WAIT_S)

    def end(self) -> None:
        for members in processes.find_tagged({TAG}).values():
            for member in members:
                end(member)
        self._process.wait(WAIT_S)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def make_context() -> Iterator[Callable[..., Context]]:
    made: list[Context] = []

    def make(code: str, inherited: tuple[int, ...] = ()) -> Context:
        made.append(Context(code, inherited=inherited))
        return made[-1]

    yield make
    for context in made:
        context.end()


def group_keeper() -> MemoryKeeper:
    try:
        parent = cgroups.find_parent()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    return GroupKeeper(parent, Ceilings(LIMIT_BYTES, 64))


def watchdog() -> MemoryKeeper:
    return Watchdog(Ceilings(LIMIT_BYTES), lambda tag: None)


@pytest.fixture(params=[group_keeper, watchdog])
async def keeper(request: pytest.FixtureRequest) -> MemoryKeeper:
    made: MemoryKeeper = request.param()
    return made


@pytest.mark.anyio
async def test_a_bomb_in_one_process_is_killed_for_memory(
    keeper: MemoryKeeper, make_context: Callable[..., Context]
) -> None:
    context = make_context(BOMB)
    await keeper.admit(TAG, context.pid)
    keeper.busy(TAG)
    assert keeper.excess(TAG) is None
    context.go()
    assert await context.wait() == -9
    assert keeper.excess(TAG) is Excess.MEMORY
    keeper.release(TAG)
    keeper.close()


@pytest.mark.anyio
async def test_a_kill_in_another_group_is_no_watched_contexts(make_context: Callable[..., Context]) -> None:
    group, context = group_keeper(), make_context(BOMB)
    kills = cgroups.KillCount.of_this_process()
    everywhere, here = Watchdog(Ceilings(LIMIT_BYTES), print), Watchdog(Ceilings(LIMIT_BYTES), print, kills=kills)
    await group.admit(TAG, context.pid)
    for watching in (everywhere, here):
        watching.busy(TAG + 1)
    context.go()
    assert await context.wait() == -9
    assert (everywhere.excess(TAG + 1), here.excess(TAG + 1)) == (Excess.MEMORY, None)
    group.release(TAG)
    for keeper in (group, everywhere, here):
        keeper.close()


@pytest.mark.anyio
async def test_a_process_that_goes_in_by_the_doors_is_limited_from_there_on(
    make_context: Callable[..., Context],
) -> None:
    keeper = group_keeper()
    doors = keeper.doors(TAG)
    if not doors:
        pytest.skip("only version 1 of cgroups has doors")
    context = make_context(BOMB, inherited=doors)
    for door in doors:
        os.close(door)
    await keeper.admit(TAG, context.pid)
    keeper.busy(TAG)
    context.go()
    assert await context.wait() == -9
    assert keeper.excess(TAG) is Excess.MEMORY
    keeper.release(TAG)
    keeper.close()


@pytest.mark.anyio
async def test_the_watchdog_ends_a_bomb_over_many_children(make_context: Callable[..., Context]) -> None:
    exceeded: list[int] = []
    keeper = Watchdog(Ceilings(LIMIT_BYTES), exceeded.append)
    context = make_context(CHILDREN_TOO_LARGE_TOGETHER + "signal.pause()")
    keeper.busy(TAG)
    context.go()
    assert await context.wait() == -9
    assert exceeded == [TAG]
    assert keeper.excess(TAG) is Excess.MEMORY
    assert not keeper.looking


@pytest.mark.anyio
async def test_a_cgroup_bounds_children_together(make_context: Callable[..., Context]) -> None:
    keeper = group_keeper()
    context = make_context(CHILDREN_TOO_LARGE_TOGETHER + "os.wait()\nprint('a child', flush=True)\nsignal.pause()")
    await keeper.admit(TAG, context.pid)
    keeper.busy(TAG)
    context.go()
    assert await asyncio.to_thread(context.read_line) == b"a child\n"
    assert keeper.excess(TAG) is Excess.MEMORY
    context.end()
    keeper.release(TAG)


@pytest.mark.anyio
async def test_memory_that_children_share_is_not_counted_for_each(make_context: Callable[..., Context]) -> None:
    exceeded: list[int] = []
    keeper = Watchdog(Ceilings(LIMIT_BYTES), exceeded.append)
    context = make_context(SHARED_BY_CHILDREN)
    context.go()
    assert await asyncio.to_thread(context.read_line) == b"ready\n"
    members = processes.find_tagged({TAG})[TAG]
    assert len(members) == 5
    assert sum(member.resident_bytes for member in members) > LIMIT_BYTES
    keeper.busy(TAG)
    keeper.look()
    assert exceeded == []
    assert keeper.excess(TAG) is None
    keeper.close()


@pytest.mark.anyio
async def test_a_crash_and_an_ordinary_kill_are_not_taken_for_memory(
    keeper: MemoryKeeper, make_context: Callable[..., Context]
) -> None:
    context = make_context("import os\nos.kill(os.getpid(), 9)")
    await keeper.admit(TAG, context.pid)
    keeper.busy(TAG)
    context.go()
    assert await context.wait() == -9
    assert keeper.excess(TAG) is None
    keeper.release(TAG)
    keeper.close()


@pytest.mark.anyio
async def test_a_share_that_passes_on_while_processes_die_is_counted_once(
    make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(SHARED_BY_CHILDREN)
    context.go()
    assert await asyncio.to_thread(context.read_line) == b"ready\n"
    members = processes.find_tagged({TAG})[TAG]
    members.sort(key=lambda member: member.pid == context.pid)
    measured = processes.proportional_bytes
    together = sum(map(measured, members))
    read: list[int] = []

    def measured_while_they_die(process: TaggedProcess) -> int:
        found = measured(process)
        read.append(found)
        if process.pid != context.pid:
            end(process)
        return found

    monkeypatch.setattr(processes, "proportional_bytes", measured_while_they_die)
    assert processes.bytes_together(members) <= together
    assert sum(read[: len(members)]) > 1.5 * together


def test_a_process_that_died_since_it_was_found_holds_nothing(make_context: Callable[..., Context]) -> None:
    context = make_context("")
    (found,) = processes.find_tagged({TAG})[TAG]
    assert processes.proportional_bytes(found) > 0
    end(found)
    assert processes.proportional_bytes(found) == 0
    assert processes.bytes_together([found]) == 0
    context.end()


def end(process: TaggedProcess) -> None:
    """It is dead, if not yet reaped, when this returns."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:  # a child that its parent has reaped meanwhile
        return
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], WAIT_S)[0]
    os.close(pidfd)


def of_size(*sizes_bytes: int, threads: int = 1) -> list[TaggedProcess]:
    """Processes that do not exist: no finer measure of them can be had than this one."""
    return [TaggedProcess(2**22 + at, TAG, size, threads) for at, size in enumerate(sizes_bytes)]


def resident_together(members: Sequence[TaggedProcess]) -> int:
    return sum(member.resident_bytes for member in members)


class Machine:
    """What the watchdog finds when it looks."""

    def __init__(self, members: list[TaggedProcess]) -> None:
        self.members = members
        self.looks = 0

    def find(self, tags: Collection[int]) -> Mapping[int, list[TaggedProcess]]:
        self.looks += 1
        return dict.fromkeys(tags, self.members)


@pytest.mark.anyio
async def test_the_watchdog_looks_only_while_there_is_something_to_see() -> None:
    machine = Machine(of_size(MIB))
    keeper = Watchdog(Ceilings(LIMIT_BYTES), lambda tag: None, machine.find, resident_together)
    assert not keeper.looking
    keeper.busy(TAG)
    assert keeper.looking
    keeper.look()
    keeper.idle(TAG)
    keeper.look()
    assert not keeper.looking
    assert machine.looks == 2


@pytest.mark.anyio
@pytest.mark.parametrize("members", [of_size(MIB, MIB), of_size(MIB, threads=2)])
async def test_threads_and_processes_that_a_run_left_behind_are_watched_on(members: list[TaggedProcess]) -> None:
    machine = Machine(members)
    exceeded: list[int] = []
    keeper = Watchdog(Ceilings(LIMIT_BYTES), exceeded.append, machine.find, resident_together)
    keeper.busy(TAG)
    keeper.idle(TAG)
    keeper.look()
    assert keeper.looking
    machine.members = of_size(LIMIT_BYTES + 1)
    keeper.look()
    assert exceeded == [TAG]
    assert not keeper.looking


@pytest.mark.anyio
async def test_a_context_with_too_many_processes_is_told_from_one_with_too_much_memory() -> None:
    exceeded: list[int] = []
    machine = Machine(of_size(MIB, MIB, threads=4))
    keeper = Watchdog(Ceilings(LIMIT_BYTES, 8), exceeded.append, machine.find, resident_together)
    keeper.busy(TAG)
    keeper.look()
    assert keeper.excess(TAG) is None
    machine.members = of_size(MIB, MIB, MIB, threads=3)
    keeper.look()
    assert exceeded == [TAG]
    assert keeper.excess(TAG) is Excess.PROCESSES


@pytest.mark.anyio
async def test_one_context_over_its_ceiling_leaves_the_others_alone() -> None:
    exceeded: list[int] = []
    other = TAG + 1

    def find(tags: Collection[int]) -> Mapping[int, list[TaggedProcess]]:
        return {TAG: of_size(LIMIT_BYTES + 1), other: of_size(LIMIT_BYTES)}

    keeper = Watchdog(Ceilings(LIMIT_BYTES), exceeded.append, find, resident_together)
    keeper.busy(TAG)
    keeper.busy(other)
    keeper.look()
    assert exceeded == [TAG]
    assert (keeper.excess(TAG), keeper.excess(other)) == (Excess.MEMORY, None)
    keeper.busy(TAG)
    assert keeper.excess(TAG) is None
    keeper.close()
    assert not keeper.looking


def waiting_process() -> subprocess.Popen[bytes]:
    """Ends when it is given a line."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def own_groups(parent: cgroups.Parent) -> set[str]:
    """Those of this process: others may come and go beside it."""
    return {name for name in os.listdir(parent.memory) if name.startswith(f"{cgroups.PREFIX}{os.getpid()}-")}


@pytest.mark.anyio
async def test_a_cgroup_is_gone_when_its_context_is() -> None:
    keeper = group_keeper()
    parent = cgroups.find_parent()
    before = own_groups(parent)
    with waiting_process() as process:
        await keeper.admit(TAG, process.pid)
        keeper.busy(TAG)
        assert len(own_groups(parent) - before) == 1
        process.communicate(b"\n")
    keeper.release(TAG)
    assert own_groups(parent) == before


@pytest.mark.anyio
async def test_a_group_whose_processes_are_still_dying_is_removed_with_the_next() -> None:
    keeper = group_keeper()
    parent = cgroups.find_parent()
    before = own_groups(parent)
    with waiting_process() as process:
        await keeper.admit(TAG, process.pid)
        keeper.release(TAG)
        assert len(own_groups(parent) - before) == 1
        process.communicate(b"\n")
    keeper.release(TAG + 1)
    assert own_groups(parent) == before


def test_groups_of_servers_that_are_gone_are_cleared_and_others_left(tmp_path: Path) -> None:
    gone = f"{cgroups.PREFIX}{os.getpid()}-1-7"  # this pid, but started at another time
    living = f"{cgroups.PREFIX}{os.getppid()}-{processes.start_time(os.getppid())}-7"
    foreign = "user.slice"
    for name in (gone, living, foreign):
        (tmp_path / name).mkdir()
    cgroups.clear_stale(cgroups.Parent(2, str(tmp_path), str(tmp_path)))
    assert sorted(os.listdir(tmp_path)) == sorted([living, foreign])


MOUNTS = """\
24 1 0:22 / {unified} rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate
30 1 0:28 /docker/abc {memory} rw shared:9 - cgroup cgroup rw,memory
"""


def test_a_group_of_version_2_gets_its_ceilings(tmp_path: Path) -> None:
    own = tmp_path / "unified" / "user.slice" / "app.scope"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("cpu memory pids\n")
    parent = cgroups.Parent(2, str(own), str(own))
    before = set(own.iterdir())
    with pytest.raises(FileNotFoundError):  # the plain directory has no control files, as the kernel's would
        cgroups.make(parent, "9", LIMIT_BYTES, 64)
    assert set(own.iterdir()) == before
    group = cgroups.Group(parent, "made")
    (own / "made").mkdir()
    (own / "made" / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n")
    kills = cgroups.KillCount.of(group)
    assert kills.now() == 2
    kills.close()


def test_our_place_in_mounted_hierarchies_is_found(tmp_path: Path) -> None:
    """As in a container: the hierarchy of version 1 is mounted from our own group on, that of version 2 as a whole."""
    unified, memory = tmp_path / "unified", tmp_path / "memory"
    (unified / "app.scope").mkdir(parents=True)
    memory.mkdir()
    (tmp_path / "own").write_text("5:memory:/docker/abc\n0::/app.scope\n")
    (tmp_path / "mounts").write_text(MOUNTS.format(unified=unified, memory=memory))
    with pytest.raises(OSError, match="No such file") as refusal:
        cgroups.find_parent(str(tmp_path / "own"), str(tmp_path / "mounts"))
    # Version 2 was tried and refused; then version 1, at the top of what is mounted. Neither is a real hierarchy.
    assert str(memory) in str(refusal.value)


def test_a_server_that_has_moved_into_its_leaf_finds_its_group_again(tmp_path: Path) -> None:
    """Each engine of a process looks for it, and so does what a server starts."""
    scope = tmp_path / "unified" / "app.scope"
    (scope / "mcp-code-interpreter-server").mkdir(parents=True)
    (scope / "cgroup.subtree_control").write_text("memory pids\n")
    (tmp_path / "own").write_text("0::/app.scope/mcp-code-interpreter-server\n")
    (tmp_path / "mounts").write_text(MOUNTS.format(unified=tmp_path / "unified", memory=tmp_path))
    with pytest.raises(FileNotFoundError) as refusal:  # of the control files that a plain directory has not
        cgroups.find_parent(str(tmp_path / "own"), str(tmp_path / "mounts"))
    assert Path(refusal.value.filename).parent.parent == scope


def test_without_a_hierarchy_the_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("")
    (tmp_path / "mounts").write_text("")
    with pytest.raises(OSError, match="no memory controller is mounted"):
        cgroups.find_parent(str(tmp_path / "own"), str(tmp_path / "mounts"))


@pytest.mark.anyio
async def test_the_better_keeper_is_taken_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> cgroups.Parent:
        raise OSError("not here")

    monkeypatch.setattr(scopes, "divisible_group", refuse)
    assert limits.memory_keeper(Ceilings(LIMIT_BYTES), lambda tag: None).name == "watchdog"
