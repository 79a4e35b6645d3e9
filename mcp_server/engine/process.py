"""One worker's I/O: its control socket, its output, its signals. What it may say, and when, are `turn`'s rules.

A run ends with its END frame plus what is in the pipes at that moment, or with the worker's death; never with an end of
file, because a daemon of the user's may hold the pipes open for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from mcp_server.engine.pipes import OutputPipes
from mcp_server.engine.turn import Ended, Event, Ready, Refused, Turn
from mcp_server.errors import EngineUnavailable, InvalidArgument, ProtocolViolation
from mcp_server.model import DisplayChunk, RunRequest, Sink, Stream
from mcp_server.sandbox.cell import Spawned, WorkerExit
from mcp_server.worker import frames
from mcp_server.worker.frames import Decoder, Frame, FrameError

RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Died:
    """The worker is gone. ``violation`` says what it did on the wire, where that is why it was killed.

    ``unreached``: it was gone before what was sent could reach it, so no code of that request ran.
    """

    exit: WorkerExit
    violation: str = ""
    unreached: bool = False

    def __str__(self) -> str:
        if self.violation:
            return f"it broke the wire's rules ({self.violation}) and was killed"
        if self.exit.out_of_memory:
            return "killed for using too much memory"
        if self.exit.too_many_processes:
            return "killed for having too many processes"
        if self.exit.signal is not None:
            return f"killed by signal {self.exit.signal} ({_signal_name(self.exit.signal)})"
        return f"exit code {self.exit.exit_code}"


class WorkerProcess:
    """Speaks with one worker. All methods belong to the event loop that made it.

    `late` takes the output that arrives while no run is on. `died` is done once the worker is gone.
    """

    def __init__(self, spawned: Spawned, late: Sink) -> None:
        self._loop = asyncio.get_running_loop()
        self._spawned = spawned
        self._control = spawned.control
        self._late = late
        self._turn = Turn()
        self._decoder = Decoder()
        self._violation = ""
        self._answer: asyncio.Future[Event | Died] = self._loop.create_future()
        self.died: asyncio.Future[Died] = self._loop.create_future()
        pipes = {spawned.stdout_fd: Stream.STDOUT, spawned.stderr_fd: Stream.STDERR}
        self._output = OutputPipes(pipes, late, self._on_sink_failure)
        self._loop.add_reader(self._control.fileno(), self._on_control)

    @property
    def worker_id(self) -> int:
        return self._spawned.worker_id

    async def begin(self, cwd: str, envs: Mapping[str, str]) -> str:
        """Give the worker its directory and environment; returns the directory as the code sees it.

        Both are sent while its sandbox is made ready for it to move in. Raises InvalidArgument where the worker refuses
        them, EngineUnavailable where it is not housed, or dies instead of answering.
        """
        self._spawned.housed.add_done_callback(self._on_housed)
        answer = await self._exchange(Frame(frames.INIT, {"cwd": cwd, "envs": dict(envs)}))
        if isinstance(answer, Refused):
            raise InvalidArgument(answer.message)
        if not isinstance(answer, Ready):
            if self._spawned.housed.done():
                self._spawned.housed.result()  # raises the better reason, where there is one
            raise EngineUnavailable(f"The interpreter ended while it started: {answer}.")
        return answer.cwd

    async def run(self, request: RunRequest, sink: Sink) -> Ended | Died:
        """Send code and deliver its chunks to `sink` until it ends or the worker dies.

        Where this is cancelled the code goes on and nothing more can be run: kill the worker.
        """
        await self._output.drain()  # what came before belongs to `late`
        self._turn.begin(request.number)
        self._output.sink = sink
        try:
            body = request.code.encode("utf-8", "surrogatepass")
            header = {"run": request.number, "envs": dict(request.envs)}
            answer = await self._exchange(Frame(frames.RUN, header, body))
            await self._output.drain()
        finally:
            self._output.sink = self._late
        if not isinstance(answer, Ended | Died):
            raise ProtocolViolation(f"a run was answered by {answer!r}")  # the turn table lets nothing else end a run
        return answer

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the worker, and send SIGINT to its foreground children."""
        if not self.died.done():
            with suppress(ProcessLookupError):
                os.killpg(self._spawned.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the worker, at once and surely. What it started is the cell's to find."""
        if not self.died.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._spawned.pidfd, signal.SIGKILL)

    def on_exit(self, worker_exit: WorkerExit) -> None:
        """The cell's word that the worker is gone."""
        if not self.died.done():
            died = Died(worker_exit, self._violation)
            self.died.set_result(died)
            if not self._answer.done():
                self._answer.set_result(died)

    async def close(self) -> None:
        """Deliver the last output and let go of every descriptor. Idempotent."""
        if self._control.fileno() == -1:
            return
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        os.close(self._spawned.pidfd)
        try:
            await self._output.drain()
        finally:
            self._output.close()

    async def _exchange(self, request: Frame) -> Event | Died:
        """Send one request and wait for what ends it: the worker's answer or its death."""
        self._answer = self._loop.create_future()
        data = frames.encode(request)
        try:
            try:
                sent = self._control.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                await self._loop.sock_sendall(self._control, data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            self.kill()  # where its code has closed our socket, it lives
            return replace(await self.died, unreached=True)
        return await self._answer

    def _on_housed(self, housed: asyncio.Future[None]) -> None:
        if housed.exception() is not None:
            self.kill()
            self.on_exit(WorkerExit(exit_code=None, signal=signal.SIGKILL))

    def _on_control(self) -> None:
        try:
            data = self._control.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._hang_up("")  # the worker is dead, or its code closed our socket
            return
        try:
            for frame in self._decoder.feed(data):
                self._on_frame(frame)
        except (FrameError, ProtocolViolation) as error:
            self._hang_up(str(error))

    def _on_sink_failure(self, failure: BaseException) -> None:
        """Nobody takes the output of this run any more: whoever waits for it gets the reason."""
        if not self._answer.done():
            self._answer.set_exception(failure)

    def _hang_up(self, violation: str) -> None:
        self._violation = violation
        self._loop.remove_reader(self._control.fileno())
        self.kill()

    def _on_frame(self, frame: Frame) -> None:
        event = self._turn.receive(frame)
        if isinstance(event, DisplayChunk):
            self._output.sweep()  # what was written before it comes before it
            self._output.deliver(event)
        elif not self._answer.done():
            self._answer.set_result(event)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unnamed"
