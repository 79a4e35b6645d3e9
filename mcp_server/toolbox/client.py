"""`CodeInterpreter`: code run in a sandbox's contexts, its output streamed through callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Self

from mcp_server.errors import ToolboxError
from mcp_server.toolbox.client_api import InterpreterApi
from mcp_server.toolbox.client_provision import Provision
from mcp_server.toolbox.client_transcript import Heard, Transcript, prefixed
from mcp_server.toolbox.client_types import ExecutionError, ExecutionResult, InterpreterContext, OutputMessage
from mcp_server.toolbox.wire import Close, ExecuteRequest, FrameType

RUN_FAILED = "Failed to run code: "
CREATE_FAILED = "Failed to create interpreter context: "
LIST_FAILED = "Failed to list interpreter contexts: "
DELETE_FAILED = "Failed to delete interpreter context: "


class CodeInterpreter:
    """Runs Python code in the contexts of a sandbox, blocking. Safe to share between threads.

    ``ensure_toolbox_url`` is called before each request, and may make the sandbox ready. What goes wrong is a
    `ToolboxError` (`mcp_server.errors`) whose message begins with what failed.
    """

    def __init__(self, api_client: InterpreterApi, ensure_toolbox_url: Callable[[], None]) -> None:
        self._api = api_client
        self._ensure_toolbox_url = ensure_toolbox_url
        self._release = api_client.close

    @classmethod
    def of(cls, provision: Provision) -> Self:
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
        return cls.of(Provision.at(url, token, sandbox_id))

    @classmethod
    def local(cls) -> Self:
        """An interpreter in the embedded engine: a server of its own on this machine, which `close` ends.

        The server is started on first use, reads the same ``CODE_INTERPRETER_…`` variables as any, and ends with this
        process at the latest.
        """
        return cls.of(Provision.local())

    def run_code(
        self,
        code: str,
        *,
        context: InterpreterContext | None = None,
        on_stdout: Callable[[OutputMessage], object] | None = None,
        on_stderr: Callable[[OutputMessage], object] | None = None,
        on_error: Callable[[ExecutionError], object] | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: int | None = None,
    ) -> ExecutionResult:
        """Run code in a context, or in the sandbox's default one, and wait for its end.

        ``timeout`` in seconds of running, 0 for none; without it the server's default, 600, holds. ``envs`` hold for
        this run only. An exception of the code's is in the result. Callbacks are called in the order of the output;
        the code waits for a slow one. One that raises stops the code, and its exception comes out of here.

        Raises CodeInterpreterTimeoutError, with what had been printed; CodeInterpreterConnectionError where the
        server or the worker is lost; CodeInterpreterNotFoundError; CodeInterpreterValidationError.
        """
        request = ExecuteRequest(code, context.id if context else "", timeout, dict(envs or {}))
        transcript = Transcript()
        with failing(RUN_FAILED):
            self._ensure_toolbox_url()
        with closing(self._api.execute_interpreter_code(request)) as events:
            while True:
                with failing(RUN_FAILED, transcript):
                    event = next(events)
                    if isinstance(event, Close):
                        return transcript.result(event)
                heard = transcript.take(event)
                if heard is not None:
                    tell(heard, on_stdout, on_stderr, on_error)

    def create_context(self, cwd: str | None = None) -> InterpreterContext:
        """A new context, with variables of its own, in a directory of its own or in ``cwd``."""
        with failing(CREATE_FAILED):
            self._ensure_toolbox_url()
            return self._api.create_interpreter_context(cwd)

    def list_contexts(self) -> list[InterpreterContext]:
        """The contexts that `create_context` made; the default one is not among them."""
        with failing(LIST_FAILED):
            self._ensure_toolbox_url()
            return self._api.list_interpreter_contexts()

    def delete_context(self, context: InterpreterContext) -> None:
        """End a context with all that it started. The default one cannot be deleted."""
        with failing(DELETE_FAILED):
            self._ensure_toolbox_url()
            self._api.delete_interpreter_context(context.id)

    def close(self) -> None:
        """Let go of the connections, and of the sandbox that `connect` or `local` made. Idempotent."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def tell(
    heard: Heard,
    on_stdout: Callable[[OutputMessage], object] | None,
    on_stderr: Callable[[OutputMessage], object] | None,
    on_error: Callable[[ExecutionError], object] | None,
) -> object:
    """Call the callback that a frame is for, if there is one; what it returns."""
    if isinstance(heard.message, ExecutionError):
        return on_error(heard.message) if on_error else None
    callback = on_stdout if heard.type is FrameType.STDOUT else on_stderr
    return callback(heard.message) if callback else None


@contextmanager
def failing(prefix: str, transcript: Transcript | None = None) -> Iterator[None]:
    """Say of an error what failed, and what had been printed."""
    try:
        yield
    except ToolboxError as error:
        raise prefixed(prefix, transcript.failure(error) if transcript else error) from error
