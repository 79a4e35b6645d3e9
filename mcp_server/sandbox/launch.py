"""Starting an interpreter that loads the worker's code by path, with nothing of ours on its module path."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import structlog

from mcp_server.errors import SetupFailed
from mcp_server.sandbox.policy import OWN_VIEW, CellPlan, Tier, workspace_plan

WORKER_DIR = Path(__file__).parent.parent / "worker"

WORKER_DIR_INSIDE = "/.worker"
"""Where a cell shows it (`worker.view`)."""

OLDEST_PYTHON = "3.9"

OWN_FLAGS = ("-I", "-S")
"""For our own interpreter where it runs the worker's code: it needs nothing but the standard library."""

STDERR_KEPT_BYTES = 16 * 1024

_log = structlog.get_logger(__name__)

BOOTSTRAP = """
import sys
if sys.version_info < (3, 9):
    sys.exit("Python %d.%d" % sys.version_info[:2])
from importlib.util import module_from_spec, spec_from_file_location
directory, entry, argument = sys.argv[1:]
del sys.argv[1:]
name = "_code_interpreter_worker"
spec = spec_from_file_location(name, directory + "/__init__.py", submodule_search_locations=[directory])
package = sys.modules[name] = module_from_spec(spec)
spec.loader.exec_module(package)
module, function = entry.split(":")
getattr(__import__(name + "." + module, fromlist=[function]), function)(argument)
"""
"""Parsed by any Python 3 so that one too old can say so."""


def command(python: str, entry: str, argument: str, worker_dir: str = "", flags: Sequence[str] = ()) -> list[str]:
    """The command line that runs `entry` ("module:function" of the worker's package) with one string."""
    return [python, *flags, "-c", BOOTSTRAP, worker_dir or os.fspath(WORKER_DIR), entry, argument]


def start(command: Sequence[str], environment: Mapping[str, str], pass_fds: Sequence[int] = ()) -> Interpreter:
    """Start an interpreter: a session of its own (no Ctrl-C of our terminal), this environment, a pipe as stderr.

    Raises SetupFailed where it cannot be executed.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(environment),
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise SetupFailed(
            f"The interpreter {command[0]} cannot be executed: {error.strerror}. "
            "Install Python there, or name another interpreter with --python."
        ) from error
    return Interpreter(process)


def start_zygote(plan: CellPlan, control_fd: int) -> Interpreter:
    """Start what becomes the zygote of a cell: the interpreter itself, or what builds the cell around it.

    That runs on our own interpreter: the one of the contexts is foreign, and is executed inside only.
    """
    argument = str(control_fd)
    if plan.tier in OWN_VIEW:
        entry = "builder:main" if plan.tier is Tier.STRONG else "bubble:main"
        own = command(sys.executable, entry, argument, flags=OWN_FLAGS)
        return start(own, {}, (control_fd,))
    return start(command(plan.python, "start:main", argument), plan.environment, (control_fd,))


def building_plan(plan: CellPlan, control_fd: int) -> dict[str, Any]:
    """What the builder needs to make the cell and to become its zygote, ready for JSON."""
    return {
        "python": plan.python,
        "worker_dir": os.fspath(WORKER_DIR),
        "command": command(plan.python, "start:main", str(control_fd), WORKER_DIR_INSIDE),
        "environment": dict(plan.environment),
        "outputs_bytes": plan.limits.outputs_bytes,
        "disk_bytes": plan.limits.disk_bytes,
        "scratch_bytes": plan.limits.scratch_bytes,
        "bubblewrap": find_bubblewrap(),
        **workspace_plan(plan),
    }


def find_bubblewrap() -> str:
    """Its path; empty where there is none on the PATH."""
    return shutil.which("bwrap") or ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an interpreter ended: its status as `subprocess` gives it, and the end of its stderr."""

    status: int
    stderr: str


class Interpreter:
    """A started interpreter, watched by the loop. `ended` is done once the process is gone and collected."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._stderr = cast("IO[bytes]", process.stderr)  # it was asked for
        self._last_words = bytearray()
        self._pidfd = os.pidfd_open(process.pid)
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        os.set_blocking(self._stderr.fileno(), False)
        self._loop.add_reader(self._stderr, self._read_stderr)
        self._loop.add_reader(self._pidfd, self._on_end)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """With its process group: of a bwrap that is killed as it starts, a child would wait for it for ever."""
        if self._process.returncode is None:  # not collected yet: the number is its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr.fileno(), STDERR_KEPT_BYTES)
        except BlockingIOError:
            return
        self._last_words += data
        del self._last_words[:-STDERR_KEPT_BYTES]
        if not data:
            self._loop.remove_reader(self._stderr)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._read_stderr()
        self._loop.remove_reader(self._stderr)
        self._stderr.close()
        self.ended.set_result(Ended(self._process.wait(), self._last_words.decode("utf-8", "replace")))


async def clear_leftovers(plan: CellPlan) -> None:
    """What a killed zygote cannot clean up after itself, a passing process does: our own interpreter, which answers."""
    clearing = start(command(sys.executable, "plain:clear", plan.state_dir, flags=OWN_FLAGS), {})
    end = await clearing.ended
    if end.status:
        _log.error("cell.leftovers", reason=end.stderr[-2000:])


def explain(python: str, end: Ended) -> SetupFailed:
    """Why an interpreter ended before it answered, in words with a mend."""
    last = end.stderr.strip().splitlines()[-1][:500] if end.stderr.strip() else "it printed nothing"
    if end.status == 1 and last.startswith("Python ") and len(last.split()) == 2:
        return SetupFailed(
            f"The interpreter {python} is {last}; contexts need CPython {OLDEST_PYTHON} or newer. "
            "Name another interpreter with --python."
        )
    if last.startswith("bwrap: "):
        return SetupFailed(f"The sandbox cannot be built: {last}. `mcp-code-interpreter doctor` shows what works here.")
    how = f"was killed by signal {-end.status}" if end.status < 0 else f"ended with exit code {end.status}"
    return SetupFailed(
        f"The interpreter {python} {how} before it was ready: {last}. "
        f"Try `{python} -c pass`, or name another interpreter with --python."
    )
