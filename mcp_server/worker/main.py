"""The worker's door: a process that was forked for one context takes its `Post` and serves it to the end."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time
import traceback
from typing import Any, NoReturn, Optional

from . import forkhooks, frames, rebirth
from .channel import Channel
from .interrupts import Interrupts
from .runner import Context
from .streams import Streams

_REHEARSALS = 10
"""Python makes its code quicker where it has gone by so often (3.11: eight times), and writes into it to do so."""

_exit_process = os._exit
_write = os.write


class Post:
    """Everything that a context needs and that can be made before anything is known of it.

    Made where descriptors 1 and 2 are pipes; to be taken by the main thread of a process that has no other, which may
    be a fork of the one that made it.
    """

    def __init__(self) -> None:
        self._interrupts = Interrupts()
        self._channel = Channel(self._interrupts)
        self._streams = Streams()
        self._blas = rebirth.BlasThreads()
        self._identity = rebirth.Identity()
        os.environ.setdefault("MPLBACKEND", "Agg")
        self._context = Context(self._channel, self._streams, self._interrupts, self._blas)
        faulthandler.enable(file=2, all_threads=False)

    def take(self, control: socket.socket, random_seed: Optional[int] = None) -> None:
        """Be the worker that the host knows by `control`, a connected stream socket that no exec inherits.

        Descriptor 0 is /dev/null, 1 and 2 are pipes that the host reads. With a `random_seed` contexts draw the same
        numbers.
        """
        self._interrupts.take_over()
        self._channel.open(control)
        self._identity.renew()
        rebirth.reseed(random_seed)
        self._streams.open(control.fileno())
        self._context.begin()
        forkhooks.do_in_forks()
        os.register_at_fork(after_in_child=self._channel.abandon)
        os.register_at_fork(after_in_child=self._interrupts.arm_child)

    def rehearse(self) -> None:
        """Go through the first steps with nothing at stake.

        Whatever a fork touches for the first time is copied, a page in microseconds, and at the birth of a context
        that is most of the time. So it is done now, and not when somebody waits.
        """
        frame = frames.encode(frames.Frame(frames.INIT, {"cwd": "/", "envs": {}}))
        for first in frames.Decoder().feed(frame):
            _enter(first.header)
        rebirth.start_children_here()
        frames.encode(frames.Frame(frames.READY, _about()))

    def rehearse_run(self) -> None:
        """The same of a run, in the zygote: what only is looked up and remembered is so for all contexts."""
        frame = frames.encode(frames.Frame(frames.RUN, {"run": 0, "envs": {}}, b"0"))
        for request in frames.Decoder().feed(frame):
            self._context.rehearse(request)

    def receive(self) -> Optional[frames.Frame]:
        """Wait for what the host says first; None where it hangs up. The process ends as with `serve`."""
        try:
            return self._channel.receive()
        except BaseException as error:
            _end_process(error)

    def begin(self, first: Optional[frames.Frame]) -> None:
        """Take on what the host said first, which is INIT, and answer it. The process ends as with `serve`."""
        try:
            self._begin(first)
        except BaseException as error:
            _end_process(error)

    def serve(self) -> NoReturn:
        """Be the worker of one context until the host closes the socket; then the process ends at once.

        Exit codes: 0 at the end of the stream or after REFUSED, 76 where the host sends what is no frame or not the one
        that is due, 74 where a descriptor is lost, 70 for a fault of its own, told on stderr.
        """
        try:
            self._run_all()
        except BaseException as error:
            _end_process(error)
        _exit_process(0)

    def _begin(self, first: Optional[frames.Frame]) -> None:
        if first is None:
            _exit_process(0)
        if first.kind != frames.INIT:
            raise frames.FrameError("INIT is due first")
        refusal = _enter(first.header)
        if refusal:
            self._channel.answer(frames.encode(frames.Frame(frames.REFUSED, {"message": refusal})))
            _exit_process(0)
        rebirth.start_children_here()
        self._blas.heed(first.header["envs"])
        self._channel.answer(frames.encode(frames.Frame(frames.READY, _about())))

    def _run_all(self) -> None:
        while True:
            request = self._channel.receive()
            if request is None:
                return
            if request.kind != frames.RUN:
                raise frames.FrameError("RUN is due")
            self._context.run(request)


_prepared: list[Post] = []


def prepare() -> None:
    """In the zygote: make the post of all its workers, once; each has its own by the fork."""
    kept = {number: os.dup(number) for number in (1, 2)}
    reading, writing = os.pipe()
    try:
        for number in kept:
            os.dup2(writing, number)
        rebirth.prepare_generators()
        post = Post()
        for _ in range(_REHEARSALS):
            post.rehearse()
            post.rehearse_run()
        _prepared.append(post)
    finally:
        for number, file in kept.items():
            os.dup2(file, number)
            os.close(file)
        os.close(reading)
        os.close(writing)


def prepared() -> Post:
    return _prepared[0]


def _enter(header: dict[str, Any]) -> str:
    """Take on the context's directory and environment; what is wrong with them, in a sentence."""
    cwd = header["cwd"]
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        return "The directory %s does not exist." % cwd
    except NotADirectoryError:
        return "%s is not a directory." % cwd
    except PermissionError:
        return "The directory %s may not be entered." % cwd
    except (OSError, ValueError) as error:
        return "The directory %r cannot be entered: %s." % (cwd, error)
    try:
        for name, value in header["envs"].items():  # `update` asks ABCs, which writes to 20 pages that contexts share
            os.environ[name] = value
    except ValueError as error:
        return "The environment cannot be set: %s." % error
    # What Python itself reads only as it starts.
    if "TZ" in header["envs"]:
        time.tzset()
    sys.path[1:1] = filter(None, header["envs"].get("PYTHONPATH", "").split(os.pathsep))
    return ""


def _end_process(error: BaseException) -> NoReturn:
    try:
        raise error  # noqa: TRY301  (told apart below by what user code cannot replace)
    except frames.FrameError:
        _exit_process(os.EX_PROTOCOL)
    except OSError:  # the host is gone, or user code closed what the worker stands on
        _exit_process(os.EX_IOERR)
    except BaseException:  # user code took apart what the worker stands on; nothing may return to the zygote's code
        try:
            _write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        finally:
            _exit_process(os.EX_SOFTWARE)


def _about() -> dict[str, Any]:
    return {"cwd": os.getcwd(), "pid": os.getpid(), "python": "%d.%d.%d" % sys.version_info[:3]}
