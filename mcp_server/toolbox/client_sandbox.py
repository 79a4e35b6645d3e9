"""`Sandbox` and `AsyncSandbox`: a sandbox at a server, with the interpreter that runs code in it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from mcp_server.toolbox.client import CodeInterpreter
from mcp_server.toolbox.client_async import AsyncCodeInterpreter
from mcp_server.toolbox.client_provision import AsyncProvision, Provision


class Sandbox:
    """A sandbox: ``sandbox.code_interpreter.run_code(…)``. As a context manager it is deleted at the end."""

    def __init__(self, provision: Provision) -> None:
        self._provision = provision
        self.code_interpreter = CodeInterpreter.of(provision)

    @classmethod
    def connect(cls, url: str, token: str | None = None, *, sandbox_id: str | None = None) -> Self:
        """A sandbox at a toolbox server: a new one, or the one of that id or name."""
        return cls(Provision.at(url, token, sandbox_id))

    @classmethod
    def local(cls) -> Self:
        """A sandbox on this machine, in the embedded engine."""
        return cls(Provision.local())

    @property
    def id(self) -> str:
        """Made on first use. Raises ToolboxError."""
        return self._provision.sandbox().sandbox_id

    def delete(self) -> None:
        """End the sandbox with all its contexts and files. Raises ToolboxError."""
        try:
            self._provision.delete()
        finally:
            self.code_interpreter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.code_interpreter.close()


class AsyncSandbox:
    """`Sandbox` for asyncio. Its ``id`` is known from `start` or ``async with`` on."""

    def __init__(self, provision: AsyncProvision) -> None:
        self._provision = provision
        self.id = ""
        self.code_interpreter = AsyncCodeInterpreter.of(provision)

    @classmethod
    def connect(cls, url: str, token: str | None = None, *, sandbox_id: str | None = None) -> Self:
        """A sandbox at a toolbox server: a new one, or the one of that id or name."""
        return cls(AsyncProvision.at(url, token, sandbox_id))

    @classmethod
    def local(cls) -> Self:
        """A sandbox on this machine, in the embedded engine."""
        return cls(AsyncProvision.local())

    async def start(self) -> Self:
        """Have the sandbox. Raises ToolboxError."""
        self.id = (await self._provision.sandbox()).sandbox_id
        return self

    async def delete(self) -> None:
        """End the sandbox with all its contexts and files. Raises ToolboxError."""
        try:
            await self._provision.delete()
        finally:
            await self.code_interpreter.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.code_interpreter.close()
