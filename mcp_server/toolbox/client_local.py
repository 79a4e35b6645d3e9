"""The embedded engine: `mcp-code-interpreter serve --toolbox` as a child, on a Unix socket that is nobody else's.

The socket listens before the child is started, so that a client need not wait for it to be ready. The child ends with
this process, however that ends: it watches its parent (`server_parent`).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Lock

from mcp_server.toolbox.server_parent import LOG_NAME

STOP_TIMEOUT_S = 15.0
"""For a child that was told to end, which ends its contexts first; then it is killed."""

END_TIMEOUT_S = 5.0
"""How long a child that has closed its socket may take to be gone."""

BACKLOG = 512
"""Connections that may wait while the child starts."""

SHOWN_CHARS = 2_000
"""How much of what a failed child said is repeated."""


class LocalServer:
    """One child. It is started by `start`, once, and can be stopped for good. Safe to share between threads."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="code-interpreter-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._stopped = False

    @property
    def unix_socket(self) -> str:
        return str(self._directory / "toolbox.sock")

    @property
    def pid(self) -> int | None:
        """Of the child, where it was started."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the child. Idempotent; returns at once."""
        with self._lock:
            if self._stopped or self._process is not None:
                return
            with socket.socket(socket.AF_UNIX) as listener, self._log.open("wb") as log:
                listener.bind(self.unix_socket)
                listener.listen(BACKLOG)
                command = [sys.executable, "-m", "mcp_server.cli", "serve", "--toolbox"]
                inherited = ["--listener-fd", str(listener.fileno()), "--parent", str(os.getpid())]
                inherited += ["--stop-grace-s", "0"]  # whoever closes the interpreter ends what it runs
                self._process = subprocess.Popen(
                    [*command, *inherited],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,  # Ctrl-C is for the parent, which then stops the child in order
                )

    def explain(self) -> str:
        """What a child that no longer answers said last; empty where it goes on. Blocks while it is ending."""
        if self._process is None:
            return ""
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return ""
        said = self._log.read_text(encoding="utf-8", errors="replace").strip()[-SHOWN_CHARS:]
        return f"the embedded server ended with status {self._process.returncode}: {said or 'it said nothing'}"

    def stop(self) -> None:
        """End the child with all its contexts, and remove its socket. Idempotent."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._directory / LOG_NAME
