"""Where the sandbox of a `CodeInterpreter` comes from: made at a server on first use, and deleted again at the end."""

from __future__ import annotations

import asyncio
from threading import Lock

from mcp_server.errors import CodeInterpreterConnectionError, CodeInterpreterNotFoundError, ToolboxError
from mcp_server.toolbox.client_address import Address
from mcp_server.toolbox.client_api import InterpreterApi
from mcp_server.toolbox.client_api_async import AsyncInterpreterApi
from mcp_server.toolbox.client_local import LocalServer
from mcp_server.toolbox.client_sandboxes import AsyncSandboxApi, RemoteSandbox, SandboxApi, main_api

LOCAL_URL = "http://localhost"
"""The name of a server on a Unix socket, which only its Host header shows."""


class Provision:
    """A sandbox at a server, blocking: one of its own, or with ``sandbox_id`` one that is there already, and stays.

    For ``mux`` see `InterpreterApi`.
    """

    def __init__(
        self, api: Address, sandbox_id: str | None = None, server: LocalServer | None = None, *, mux: bool = True
    ) -> None:
        self._api = SandboxApi(api)
        self._wanted_id = sandbox_id
        self._server = server
        self._lock = Lock()
        self._remote: RemoteSandbox | None = None
        self._released = False
        self.interpreter_api = InterpreterApi.at(api, mux=mux)

    @classmethod
    def at(cls, url: str, token: str | None, sandbox_id: str | None = None, *, mux: bool = True) -> Provision:
        return cls(main_api(url, token), sandbox_id, mux=mux)

    @classmethod
    def local(cls) -> Provision:
        server = LocalServer()
        return cls(main_api(LOCAL_URL, unix_socket=server.unix_socket), None, server)

    def ensure(self) -> None:
        """Have the sandbox. Raises ToolboxError."""
        self.sandbox()

    def sandbox(self) -> RemoteSandbox:
        with self._lock:
            if self._released:
                raise CodeInterpreterConnectionError("the interpreter was closed")
            if self._remote is None:
                if self._server is not None:
                    self._server.start()
                try:
                    self._remote = self._api.get(self._wanted_id) if self._wanted_id else self._api.create({})
                except CodeInterpreterConnectionError as error:
                    raise explained(error, self._server) from error
                self.interpreter_api.move_to(self._remote.toolbox)
            return self._remote

    def release(self) -> None:
        """Delete what was made. Idempotent."""
        with self._lock:
            remote, self._remote = self._remote, None
            already, self._released = self._released, True
            if already:
                return
            try:
                if remote is not None and not self._wanted_id and self._server is None:
                    self._api.delete(remote.sandbox_id)
            except CodeInterpreterNotFoundError:
                pass
            finally:
                self.interpreter_api.close()
                self._api.close()
                if self._server is not None:
                    self._server.stop()

    def delete(self) -> None:
        """Delete the sandbox, also one that was there before. Raises ToolboxError."""
        self._api.delete(self.sandbox().sandbox_id)
        with self._lock:
            self._remote = None


class AsyncProvision:
    """`Provision` for asyncio. Belongs to one event loop."""

    def __init__(
        self, api: Address, sandbox_id: str | None = None, server: LocalServer | None = None, *, mux: bool = True
    ) -> None:
        self._api = AsyncSandboxApi(api)
        self._wanted_id = sandbox_id
        self._server = server
        self._lock = asyncio.Lock()
        self._remote: RemoteSandbox | None = None
        self._released = False
        self.interpreter_api = AsyncInterpreterApi.at(api, mux=mux)

    @classmethod
    def at(cls, url: str, token: str | None, sandbox_id: str | None = None, *, mux: bool = True) -> AsyncProvision:
        return cls(main_api(url, token), sandbox_id, mux=mux)

    @classmethod
    def local(cls) -> AsyncProvision:
        server = LocalServer()
        return cls(main_api(LOCAL_URL, unix_socket=server.unix_socket), None, server)

    async def ensure(self) -> None:
        """Have the sandbox. Raises ToolboxError."""
        await self.sandbox()

    async def sandbox(self) -> RemoteSandbox:
        async with self._lock:
            if self._released:
                raise CodeInterpreterConnectionError("the interpreter was closed")
            if self._remote is None:
                if self._server is not None:
                    self._server.start()
                try:
                    getting = self._api.get(self._wanted_id) if self._wanted_id else self._api.create({})
                    self._remote = await getting
                except CodeInterpreterConnectionError as error:
                    raise await asyncio.to_thread(explained, error, self._server) from error
                await self.interpreter_api.move_to(self._remote.toolbox)
            return self._remote

    async def release(self) -> None:
        """Delete what was made. Idempotent."""
        async with self._lock:
            remote, self._remote = self._remote, None
            already, self._released = self._released, True
            if already:
                return
            try:
                if remote is not None and not self._wanted_id and self._server is None:
                    await self._api.delete(remote.sandbox_id)
            except CodeInterpreterNotFoundError:
                pass
            finally:
                await self.interpreter_api.close()
                await self._api.close()
                if self._server is not None:
                    await asyncio.to_thread(self._server.stop)

    async def delete(self) -> None:
        """Delete the sandbox, also one that was there before. Raises ToolboxError."""
        await self._api.delete((await self.sandbox()).sandbox_id)
        self._remote = None


def explained(error: ToolboxError, server: LocalServer | None) -> ToolboxError:
    """Why an embedded server does not answer, in its own words where it has any."""
    said = server.explain() if server is not None else ""
    return CodeInterpreterConnectionError(said) if said else error
