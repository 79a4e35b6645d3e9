"""`AsyncCodeInterpreter`: `CodeInterpreter` for asyncio, whose callbacks may be async."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self

from mcp_server.toolbox.client import CREATE_FAILED, DELETE_FAILED, LIST_FAILED, RUN_FAILED, failing, tell
from mcp_server.toolbox.client_api_async import AsyncInterpreterApi
from mcp_server.toolbox.client_provision import AsyncProvision
from mcp_server.toolbox.client_transcript import Transcript
from mcp_server.toolbox.client_types import ExecutionError, ExecutionResult, InterpreterContext, OutputMessage
from mcp_server.toolbox.wire import Close, ExecuteRequest


class AsyncCodeInterpreter:
    """Runs Python code in the contexts of a sandbox. Belongs to one event loop.

    Cancelling a `run_code` stops its code and keeps the variables.
    """

    def __init__(self, api_client: AsyncInterpreterApi, ensure_toolbox_url: Callable[[], Awaitable[None]]) -> None:
        self._api = api_client
        self._ensure_toolbox_url = ensure_toolbox_url
        self._release = api_client.close

    @classmethod
    def of(cls, provision: AsyncProvision) -> Self:
        """An interpreter over a sandbox that is made on first use, and deleted when the interpreter is closed."""
        interpreter = cls(provision.interpreter_api, provision.ensure)
        interpreter._release = provision.release
        return interpreter

    @classmethod
    def connect(cls, url: str, token: str | None = None, *, sandbox_id: str | None = None) -> Self:
        """An interpreter in a sandbox at a toolbox server, ``http://host:port``.

        Without ``sandbox_id`` the sandbox is made on first use and deleted by `close`; a sandbox that is named, by id
        or by name, stays.
        """
        return cls.of(AsyncProvision.at(url, token, sandbox_id))

    @classmethod
    def local(cls) -> Self:
        """An interpreter in the embedded engine: a server of its own on this machine, which `close` ends.

        The server is started on first use, reads the same ``CODE_INTERPRETER_…`` variables as any, and ends with this
        process at the latest.
        """
        return cls.of(AsyncProvision.local())

    async def run_code(
        self,
        code: str,
        *,
        context: InterpreterContext | None = None,
        on_stdout: Callable[[OutputMessage], object] | None = None,
        on_stderr: Callable[[OutputMessage], object] | None = None,
        on_error: Callable[[ExecutionError], object] | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - the code's, not the call's
    ) -> ExecutionResult:
        """`CodeInterpreter.run_code`; a callback that returns an awaitable is awaited before the next is called."""
        request = ExecuteRequest(code, context.id if context else "", timeout, dict(envs or {}))
        transcript = Transcript()
        with failing(RUN_FAILED):
            await self._ensure_toolbox_url()
        async with aclosing(self._api.execute_interpreter_code(request)) as events:
            while True:
                with failing(RUN_FAILED, transcript):
                    event = await anext(events)
                    if isinstance(event, Close):
                        return transcript.result(event)
                heard = transcript.take(event)
                answer = tell(heard, on_stdout, on_stderr, on_error) if heard is not None else None
                if inspect.isawaitable(answer):
                    await answer

    async def create_context(self, cwd: str | None = None) -> InterpreterContext:
        """A new context, with variables of its own, in a directory of its own or in ``cwd``."""
        with failing(CREATE_FAILED):
            await self._ensure_toolbox_url()
            return await self._api.create_interpreter_context(cwd)

    async def list_contexts(self) -> list[InterpreterContext]:
        """The contexts that `create_context` made; the default one is not among them."""
        with failing(LIST_FAILED):
            await self._ensure_toolbox_url()
            return await self._api.list_interpreter_contexts()

    async def delete_context(self, context: InterpreterContext) -> None:
        """End a context with all that it started. The default one cannot be deleted."""
        with failing(DELETE_FAILED):
            await self._ensure_toolbox_url()
            await self._api.delete_interpreter_context(context.id)

    async def close(self) -> None:
        """Let go of the connections, and of the sandbox that `connect` or `local` made. Idempotent."""
        await self._release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
