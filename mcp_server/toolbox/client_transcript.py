"""What a client makes of a run's frames and of its closing one. Pure; the sync and the async client share it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mcp_server.errors import (
    CallerError,
    CodeInterpreterConnectionError,
    CodeInterpreterError,
    CodeInterpreterNotFoundError,
    CodeInterpreterTimeoutError,
    CodeInterpreterValidationError,
    EngineUnavailable,
    ToolboxError,
    UnknownContext,
    UnknownSandbox,
)
from mcp_server.toolbox.client_types import ExecutionError, ExecutionResult, OutputMessage
from mcp_server.toolbox.wire import NO_CONTEXT, Close, CloseCode, Frame, FrameType

TIMED_OUT = "the code ran into its timeout and was interrupted. Give a larger timeout, or 0 for none"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a callback is to be told: on stdout, on stderr, or of an error."""

    type: FrameType
    message: OutputMessage | ExecutionError


class Transcript:
    """Collects a run's output, and says at its end what became of it."""

    def __init__(self) -> None:
        self._texts: dict[FrameType, list[str]] = {FrameType.STDOUT: [], FrameType.STDERR: []}
        self._error: ExecutionError | None = None

    @property
    def stdout(self) -> str:
        return "".join(self._texts[FrameType.STDOUT])

    @property
    def stderr(self) -> str:
        return "".join(self._texts[FrameType.STDERR])

    def take(self, frame: Frame) -> Heard | None:
        """Note a frame; what there is to tell of it."""
        if frame.type is FrameType.CONTROL:
            return None
        if frame.type is FrameType.ERROR:
            self._error = ExecutionError(name=frame.name, value=frame.value, traceback=frame.traceback)
            return Heard(frame.type, self._error)
        self._texts[frame.type].append(frame.text)
        return Heard(frame.type, OutputMessage(output=frame.text))

    def result(self, close: Close) -> ExecutionResult:
        """The result of a run that ended so. Raises ToolboxError, with the output, where it did not come to its end."""
        if close.code == CloseCode.DONE:
            return ExecutionResult(stdout=self.stdout, stderr=self.stderr, error=self._error)
        raise self.failure(close_error(close))

    def failure(self, error: ToolboxError) -> ToolboxError:
        """The error with what had been printed until then."""
        return type(error)(str(error), self.stdout, self.stderr)


def close_error(close: Close) -> ToolboxError:
    """The error that a closing frame is."""
    reason = close.reason or f"the connection was closed with code {close.code:d}"
    match close.code:
        case CloseCode.TIMEOUT:
            return CodeInterpreterTimeoutError(TIMED_OUT)
        case CloseCode.REFUSED if close.reason.startswith(NO_CONTEXT):
            return CodeInterpreterNotFoundError(reason)
        case CloseCode.REFUSED | CloseCode.BAD_MESSAGE:
            return CodeInterpreterValidationError(reason)
        case CloseCode.FAILED:
            return ToolboxError(reason)
        case _:
            return CodeInterpreterConnectionError(reason)


def status_error(status: int, body: bytes) -> ToolboxError:
    """The error that an HTTP answer is."""
    text = f"the server answered {status}"
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if isinstance(fields, dict) and isinstance(fields.get("message"), str):
        text = fields["message"]
    if status == 404:
        return CodeInterpreterNotFoundError(text)
    if 400 <= status < 500:
        return CodeInterpreterValidationError(text)
    return ToolboxError(text)


def toolbox_error(error: CodeInterpreterError) -> ToolboxError:
    """The error of the Python API that one of the mux's is."""
    match error:
        case UnknownContext() | UnknownSandbox():
            return CodeInterpreterNotFoundError(str(error))
        case CallerError():
            return CodeInterpreterValidationError(str(error))
        case EngineUnavailable():
            return CodeInterpreterConnectionError(str(error))
        case _:
            return ToolboxError(str(error))


def prefixed(prefix: str, error: ToolboxError) -> ToolboxError:
    """The same error, saying first what failed."""
    return type(error)(prefix + str(error), error.stdout, error.stderr)
