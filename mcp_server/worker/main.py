"""The worker's door: a process that was forked for one context calls `serve` and never returns."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

from . import frames, rebirth
from .channel import Channel
from .interrupts import Interrupts
from .runner import Context
from .streams import Streams

_exit_process = os._exit
_write = os.write


def serve(control: socket.socket, *, reseed: bool = True) -> NoReturn:
    """Be the worker of one context until the host closes the socket; then the process ends at once.

    Expects descriptor 0 to be /dev/null, 1 and 2 pipes that the host reads, and `control` a connected stream socket;
    to be called in the main thread of a process that has no other. With `reseed` false the random generators go on as
    the zygote left them, so that contexts are alike. Exit codes: 0 at the end of the stream or after
    REFUSED, 76 where the host sends what is no frame or not the one that is due, 74 where a descriptor is lost, 70 for
    a fault of its own, told on stderr.
    """
    try:
        _serve(control, reseed)
    except frames.FrameError:
        _exit_process(os.EX_PROTOCOL)
    except OSError:  # the host is gone, or user code closed what the worker stands on
        _exit_process(os.EX_IOERR)
    except BaseException:  # user code took apart what the worker stands on; nothing may return to the zygote's code
        _write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        _exit_process(os.EX_SOFTWARE)


def _serve(control: socket.socket, reseed: bool) -> NoReturn:
    interrupts = Interrupts()
    interrupts.take_over()
    channel = Channel(control, interrupts)
    first = channel.receive()
    if first is None:
        _exit_process(0)
    if first.kind != frames.INIT:
        raise frames.FrameError("INIT is due first")
    refusal = _enter(first.header)
    if refusal:
        channel.answer(frames.encode(frames.Frame(frames.REFUSED, {"message": refusal})))
        _exit_process(0)
    rebirth.renew_multiprocessing()
    if reseed:
        rebirth.reseed()
    context = Context(channel, Streams(control.fileno()), interrupts, rebirth.BlasThreads(first.header["envs"]))
    os.register_at_fork(after_in_child=channel.abandon)
    os.register_at_fork(after_in_child=interrupts.arm_child)
    faulthandler.enable(file=2, all_threads=False)
    channel.answer(frames.encode(frames.Frame(frames.READY, _about())))
    while True:
        request = channel.receive()
        if request is None:
            _exit_process(0)
        if request.kind != frames.RUN:
            raise frames.FrameError("RUN is due")
        context.run(request)


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
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        os.environ.update(header["envs"])
    except ValueError as error:
        return "The environment cannot be set: %s." % error
    # What Python itself reads only as it starts.
    if "TZ" in header["envs"]:
        time.tzset()
    sys.path[:0] = filter(None, header["envs"].get("PYTHONPATH", "").split(os.pathsep))
    return ""


def _about() -> dict[str, Any]:
    return {"cwd": os.getcwd(), "pid": os.getpid(), "python": "%d.%d.%d" % sys.version_info[:3]}
