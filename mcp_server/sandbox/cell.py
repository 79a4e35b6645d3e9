"""The host's side of a cell: starts it, asks its zygote for workers, hears of their ends, and ends it.

All methods belong to one event loop. Nothing polls: the loop watches the zygote's socket, its process and its stderr.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox import launch
from mcp_server.sandbox.channel import Channel
from mcp_server.sandbox.launch import Interpreter
from mcp_server.sandbox.limits import MemoryKeeper, Unlimited
from mcp_server.sandbox.places import OutputPlaces
from mcp_server.sandbox.policy import FIRST_CELL_UID, OWN_VIEW, CellPlan, Tier, worker_plan
from mcp_server.sandbox.spares import Spares
from mcp_server.sandbox.workers import HostedWorker, Prepared, Spawned, WorkerEnds, WorkerExit, pid_of
from mcp_server.shielding import shielded
from mcp_server.worker import frames

END_TIMEOUT_S = 10.0
"""For a zygote that was told to end; then it is killed. It may have thousands of processes to end first."""

__all__ = ["Cell", "Spawned", "Warmth", "WorkerExit"]

# As worker.rooms mounts them.
WORK_INSIDE = "/work"
OUTPUTS_INSIDE = "/outputs"

_NO_OUTPUTS = "No place for the outputs of a context can be made"
_NOT_LIMITED = "The memory of a new context cannot be limited"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Warmth:
    """What the zygote said when it was ready. ``failed`` maps modules that could not be preloaded to why.

    ``installed`` are those to preload that there are; a bare cell has them without having preloaded any.
    """

    python: str
    installed: tuple[str, ...]
    preloaded: tuple[str, ...]
    failed: Mapping[str, str]
    threads: int
    warm_s: float


class Cell:
    """One cell. Start it once; a cell that was lost or closed is replaced by another.

    `on_lost` is called when the zygote dies unexpectedly, after every worker's `on_exit`, when nothing is left of it.
    `memory` takes each worker in before any foreign code runs; the one that a worker was given to releases it.
    """

    def __init__(self, plan: CellPlan) -> None:
        """To be made inside the running loop."""
        self.plan = plan
        self.warmth: Warmth | None = None
        self.on_lost: Callable[[], None] = lambda: None
        self.memory: MemoryKeeper = Unlimited()
        self._loop = asyncio.get_running_loop()
        self._has_rooms = plan.tier is Tier.STRONG
        self._has_own_view = plan.tier in OWN_VIEW
        self._cell_dir = os.path.join(plan.state_dir, f"cell-{secrets.token_hex(8)}")
        # Above 2**40 a tag limits nothing; below 2**62 every architecture takes it.
        self._first_tag = (1 << 40) + secrets.randbelow(1 << 36) * frames.TAGS_PER_CELL
        self._worker_ids = itertools.count(1)
        self._workers: dict[int, HostedWorker] = {}
        self._sandbox_numbers = itertools.count(1)
        self._sandbox_names: dict[str, str] = {}
        self._asked: dict[tuple[str, str], asyncio.Future[tuple[str, list[int]]]] = {}
        self._first_process_gone: asyncio.Future[None] | None = None
        self._places = OutputPlaces(rooms=self._has_rooms)
        self._channel: Channel | None = None
        self._zygote: Interpreter | None = None
        self._ready: asyncio.Future[Warmth] = self._loop.create_future()
        self._burial: asyncio.Task[None] | None = None
        self._closing = False
        self._spares = Spares(self._prepare, plan.spare_workers)

    async def start(self) -> None:
        """Start the interpreter and wait until it can be forked. Raises SetupFailed with the mend in its text."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs_fd = theirs.fileno()
        with theirs:
            try:
                self._zygote = launch.start_zygote(self.plan, theirs_fd)
            except SetupFailed:
                ours.close()
                raise
        self._channel = Channel(ours, self._on_packet, self._on_channel_end)
        self._burial = asyncio.create_task(self._bury(self._zygote))
        own = {
            "cell_dir": self._cell_dir,
            "first_tag": self._first_tag,
            "first_uid": FIRST_CELL_UID if os.geteuid() == 0 else 0,
        }
        if self._has_own_view:
            self._channel.send({"op": "build", **own, **launch.building_plan(self.plan, theirs_fd)})
        self._channel.send({"op": "begin", **own, **worker_plan(self.plan)})
        try:
            async with asyncio.timeout(self.plan.start_timeout_s):
                self.warmth = await shielded(self._ready)
        except TimeoutError:
            self._zygote.kill()
            await self.close()
            raise SetupFailed(
                f"The interpreter {self.plan.python} was not ready after {self.plan.start_timeout_s:g} s "
                f"(it preloads {', '.join(self.plan.preload) or 'nothing'}). Preload less."
            ) from None
        except BaseException:
            await self.close()
            raise
        self._spares.refill_later()

    @property
    def is_sandbox(self) -> bool:
        """Whether the cell is one sandbox's own: no other can have workers in it, and it ends with that sandbox."""
        return self.plan.tier is Tier.STRONG_CELL

    def work_dir(self, sandbox: str) -> str:
        """The sandbox's own directory, or the workspace, as its code sees it."""
        if self._has_own_view:
            return WORK_INSIDE
        if self.plan.workspace is not None:
            return self.plan.workspace.path
        return os.path.join(self._cell_dir, self._sandbox_name(sandbox), "work")

    async def spawn(
        self, sandbox: str, on_exit: Callable[[WorkerExit], None], name: str = "", *, own_directory: bool = True
    ) -> Spawned:
        """Send a worker into a sandbox; it is there when it is `housed`. `name` is what its context is called there:
        the outputs of its runs go by it, and with `own_directory` one of that name is made in `work_dir` for it to
        start in.

        `on_exit` is called once, when the worker ends after it was housed and before it is destroyed. Raises
        EngineUnavailable where a worker cannot be had. Safe to cancel.
        """
        self._running_channel()
        prepared = await self._take_prepared()
        worker_id, worker, ends = prepared.worker_id, prepared.worker, prepared.ends
        try:
            channel = self._running_channel()
            outputs_there = self._give_outputs(worker_id, sandbox, name)
            worker.sandbox, worker.on_exit = sandbox, on_exit
            housed = worker.housed = self._loop.create_future()
            place = {
                "sandbox": self._sandbox_name(sandbox),
                "outputs": "" if outputs_there else name,
                "directory": name if own_directory else "",
            }
            channel.send({"op": "house", "worker": worker_id, **place})
        except BaseException:
            self._discard(prepared)
            raise
        return Spawned(
            worker_id,
            ends.control,
            ends.stdout_fd,
            ends.stderr_fd,
            prepared.pidfd,
            prepared.pid,
            self._tag(worker_id),
            housed,
        )

    @property
    def stores_outputs(self) -> bool:
        """Whether the outputs of runs can be put where the code itself can read them."""
        return self._places.are_there

    def open_outputs(self, sandbox: str, name: str) -> int:
        """The directory for the outputs of the context that was spawned by that name; the caller closes it.

        Raises OSError.
        """
        return self._places.open(self._sandbox_name(sandbox), name)

    def outputs_dir(self, sandbox: str, name: str) -> str:
        """What the code calls that directory, which it may read."""
        if self._has_rooms:
            return OUTPUTS_INSIDE
        if self.is_sandbox:
            return f"{OUTPUTS_INSIDE}/{self._sandbox_name(sandbox)}/{name}"
        return os.path.join(self._cell_dir, "outputs", self._sandbox_name(sandbox), name)

    async def open_work(self, sandbox: str) -> int:
        """The sandbox's directory, as a descriptor for `files`; the caller closes it. Raises EngineUnavailable."""
        text, fds = await self._ask("reach", self._sandbox_name(sandbox))
        if text:
            raise EngineUnavailable(f"The sandbox's files cannot be reached: {text}.")
        return fds[0]

    def destroy(self, worker_id: int) -> asyncio.Future[None]:
        """End everything that the worker started, however it hides; done when that is gone. Unknown ids pass.

        It is under way when this returns. Safe to cancel.
        """
        worker = self._workers.get(worker_id)
        if worker is not None:
            return asyncio.shield(self._ask_to_destroy(worker_id, worker))
        nothing: asyncio.Future[None] = self._loop.create_future()
        nothing.set_result(None)
        return nothing

    async def delete_sandbox(self, sandbox: str) -> None:
        """Destroy the sandbox's workers and remove its files; close the cell, where that is the sandbox.

        Unknown ids pass.
        """
        if self.is_sandbox and sandbox in self._sandbox_names:
            await self.close()
            return
        inside = [worker_id for worker_id, worker in self._workers.items() if worker.sandbox == sandbox]
        await asyncio.gather(*(self.destroy(worker_id) for worker_id in inside))
        name = self._sandbox_names.pop(sandbox, None)
        if name is None or self._closing:
            return
        self._places.remove(name)
        text, _ = await self._ask("forget", name)
        if text:
            _log.error("sandbox.files_left", reason=text)

    async def close(self) -> None:
        """End the cell with all that it ever started. Idempotent; `on_exit` and `on_lost` are not called any more."""
        self._closing = True
        if self._channel is not None:
            self._channel.close()
        if self._zygote is None or self._burial is None:
            return
        if not self._ready.done():  # it may be within an import for long, and has no worker yet
            self._zygote.kill()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await asyncio.shield(self._burial)
        except TimeoutError:
            self._zygote.kill()
            await asyncio.shield(self._burial)

    # -- its end ----------------------------------------------------------------------------------------------------

    async def _bury(self, zygote: Interpreter) -> None:
        """When the zygote ends: leave nothing of the cell, and let everyone hear of it who waits."""
        end = await asyncio.shield(zygote.ended)
        if self._channel is not None:
            self._channel.finish()
        if self._first_process_gone is not None:
            await asyncio.shield(self._first_process_gone)
        if end.status != 0 and not self._has_rooms:
            await launch.clear_leftovers(self.plan)
        if not self._ready.done():
            self._closing = True
            self._ready.set_exception(launch.explain(self.plan.python, end))
            self._ready.exception()  # after a timeout nobody asks for it
        for worker in self._workers.values():
            self._lose(worker)
        self._workers.clear()
        for prepared in self._spares.close():
            prepared.close()
            self.memory.release(self._tag(prepared.worker_id))
        for answer in self._asked.values():
            answer.set_result(("the cell has ended", []))
        self._asked.clear()
        self._places.close()
        if not self._closing:
            self._closing = True
            _log.error("cell.lost", status=end.status, stderr=end.stderr[-2000:])
            self.on_lost()

    def _lose(self, worker: HostedWorker) -> None:
        if worker.is_coming:
            worker.refuse("The process that makes contexts died; try again.")
        elif not worker.exited and not self._closing:
            worker.on_exit(WorkerExit(None, signal.SIGKILL))
        if worker.gone is not None:
            worker.gone.set_result(None)

    def _on_channel_end(self, why: str) -> None:
        if self._zygote is not None and not self._closing:
            if self._ready.done():  # a start that fails says so itself
                _log.error("cell.hung_up", reason=why)
            self._zygote.kill()

    # -- the zygote's words -----------------------------------------------------------------------------------------

    def _on_packet(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["op"]:
            case "alive":
                self._watch_first_process(fds[0])
            case "outputs":
                self._on_outputs(fds[0])
            case "ready":
                self._on_ready(message)
            case "born":
                self._workers[message["worker"]].born.set_result(fds[0])
            case "spawned":
                self._workers[message["worker"]].be_housed()
            case "failed":
                self._on_failed(message["worker"], message["text"])
            case "exited":
                self._on_exited(message["worker"], message["status"])
            case "destroyed":
                self._on_destroyed(message["worker"], message["survivors"])
            case "reached":
                self._asked.pop(("reach", message["sandbox"])).set_result((message["text"], fds))
            case "forgotten":
                self._asked.pop(("forget", message["sandbox"])).set_result((message["text"], fds))

    def _on_ready(self, facts: dict[str, Any]) -> None:
        installed, preloaded, failed = tuple(facts["installed"]), tuple(facts["preloaded"]), facts["failed"]
        for module, reason in failed.items():
            if module not in self.plan.optional or not reason.startswith("ModuleNotFoundError"):
                _log.warning("preload.failed", module=module, reason=reason)
        if facts["unshared"]:
            _log.warning("cell.unshared", reason=facts["unshared"])
        warmth = Warmth(facts["python"], installed, preloaded, failed, facts["threads"], facts["warm_s"])
        self._ready.set_result(warmth)

    def _watch_first_process(self, pidfd: int) -> None:
        """What runs as zygote; where there are rooms that is not the process that was started, but its child."""
        gone = self._first_process_gone = self._loop.create_future()

        def on_end() -> None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
            gone.set_result(None)

        self._loop.add_reader(pidfd, on_end)

    def _on_outputs(self, directory_fd: int) -> None:
        try:
            self._places.take(directory_fd)
        except OSError as error:
            _log.warning("cell.no_outputs", reason=str(error))

    def _on_failed(self, worker_id: int | None, text: str) -> None:
        if worker_id is None:
            self._closing = True
            self._ready.set_exception(SetupFailed(text))
            self._ready.exception()
        else:
            self._workers[worker_id].refuse(f"A context could not be made: {text}.")

    def _on_exited(self, worker_id: int, status: int) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        worker.exited = True
        code = os.waitstatus_to_exitcode(status)
        if worker.is_coming:
            self._on_failed(worker_id, f"it ended ({code}) while it was made")
        elif not worker.born.exception():
            # After the step in which the task that awaits `spawn` gets its worker.
            ended = WorkerExit(code, None) if code >= 0 else WorkerExit(None, -code)
            self._loop.call_soon(worker.on_exit, ended)

    def _on_destroyed(self, worker_id: int, survivors: int) -> None:
        worker = self._workers.pop(worker_id, None)
        if worker is None:  # its room ended by itself, and was said to be gone then
            return
        self._places.drop_spare(worker_id)
        if survivors:
            _log.error("context.survivors", processes=survivors)
        if worker.gone is not None:
            # In the order of calls, so that on_exit comes first.
            self._loop.call_soon(worker.gone.set_result, None)

    # -- workers ahead ----------------------------------------------------------------------------------------------

    async def _prepare(self) -> Prepared:
        """Fork a worker that can go into any sandbox, and limit its memory. Raises EngineUnavailable."""
        channel = self._running_channel()
        worker_id = next(self._worker_ids)
        ends = self._make_ends(worker_id)
        worker = self._workers[worker_id] = HostedWorker(self._loop.create_future())
        try:
            outputs = self._make_spare_outputs(worker_id)
            channel.send({"op": "prepare", "worker": worker_id, "outputs": outputs}, ends.theirs)
            pidfd = await shielded(worker.born)
            prepared = Prepared(worker_id, worker, ends, pidfd, pid_of(pidfd))
        except BaseException:
            ends.close_ours()
            self.memory.release(self._tag(worker_id))
            self._abandon(worker_id, worker)
            raise
        finally:
            ends.close_theirs()
        try:
            await self.memory.admit(self._tag(worker_id), prepared.pid)
        except OSError as error:
            self._discard(prepared)
            raise EngineUnavailable(f"{_NOT_LIMITED}: {error}.") from error
        except BaseException:
            self._discard(prepared)
            raise
        if worker.failure:
            self._discard(prepared)
            raise EngineUnavailable(worker.failure)
        return prepared

    def _make_ends(self, worker_id: int) -> WorkerEnds:
        """What a worker shall be born with. Raises EngineUnavailable, with nothing left."""
        try:
            doors = self.memory.doors(self._tag(worker_id))
        except OSError as error:
            raise EngineUnavailable(f"{_NOT_LIMITED}: {error}.") from error
        try:
            return WorkerEnds.make(doors)
        except OSError as error:
            for door in doors:
                os.close(door)
            self.memory.release(self._tag(worker_id))
            raise EngineUnavailable(f"No descriptors for another context: {error.strerror}.") from error

    async def _take_prepared(self) -> Prepared:
        while True:
            prepared = await self._spares.take()
            if not (prepared.worker.exited or prepared.worker.failure):
                return prepared
            self._discard(prepared)

    def _discard(self, prepared: Prepared) -> None:
        prepared.close()
        self.memory.release(self._tag(prepared.worker_id))
        prepared.worker.on_exit = lambda _: None
        if prepared.worker_id in self._workers:
            self._ask_to_destroy(prepared.worker_id, prepared.worker)

    def _tag(self, worker_id: int) -> int:
        return self._first_tag + worker_id

    # -- small steps ------------------------------------------------------------------------------------------------

    async def _ask(self, what: str, name: str) -> tuple[str, list[int]]:
        """Ask the zygote about a sandbox, each thing once at a time: a text that says what failed, and descriptors."""
        channel = self._running_channel()
        while (previous := self._asked.get((what, name))) is not None:
            await asyncio.wait([previous])
        answer = self._asked[what, name] = self._loop.create_future()
        channel.send({"op": what, "sandbox": name})
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_close_unclaimed)
            raise

    def _make_spare_outputs(self, worker_id: int) -> str:
        """Raises EngineUnavailable."""
        try:
            return self._places.make_spare(worker_id)
        except OSError as error:
            raise EngineUnavailable(f"{_NO_OUTPUTS}: {error}.") from error

    def _give_outputs(self, worker_id: int, sandbox: str, name: str) -> bool:
        """Raises EngineUnavailable."""
        try:
            return self._places.give(worker_id, self._sandbox_name(sandbox), name)
        except OSError as error:
            raise EngineUnavailable(f"{_NO_OUTPUTS}: {error}.") from error

    def _running_channel(self) -> Channel:
        if self._channel is None or self._channel.closed or self.warmth is None or self._closing:
            raise EngineUnavailable("The cell that makes contexts is not running.")
        return self._channel

    def _sandbox_name(self, sandbox: str) -> str:
        name = self._sandbox_names.get(sandbox)
        if name is None:
            if self.is_sandbox and self._sandbox_names:
                raise RuntimeError("this cell is another sandbox's own")
            name = self._sandbox_names[sandbox] = f"s{next(self._sandbox_numbers)}"
        return name

    def _ask_to_destroy(self, worker_id: int, worker: HostedWorker) -> asyncio.Future[None]:
        if worker.gone is None:
            worker.gone = self._loop.create_future()
            if self._channel is not None and not self._closing:
                self._channel.send({"op": "destroy", "worker": worker_id})
        return worker.gone

    def _abandon(self, worker_id: int, worker: HostedWorker) -> None:
        """Nobody will use this worker: it goes as soon as it is there."""
        worker.abandon()
        if worker_id in self._workers:
            self._ask_to_destroy(worker_id, worker)


def _close_unclaimed(answer: asyncio.Future[tuple[str, list[int]]]) -> None:
    for fd in answer.result()[1]:
        os.close(fd)
