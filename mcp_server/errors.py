"""Every exception that this package raises on purpose.

    CodeInterpreterError
    ├── CallerError             a request that cannot be carried out as asked; the text says what to do instead
    │   ├── UnknownContext      no such context here, or not the caller's, or expired
    │   ├── UnknownSandbox      no such sandbox at this toolbox, or not the caller's
    │   ├── InvalidArgument     an argument that can never work
    │   ├── LimitReached        a quota or limit is used up
    │   └── NothingToReport     empty code, and no run whose report is due
    ├── InternalError           our own failure, or the machine's
    │   ├── EngineUnavailable   the engine has not started, has stopped, or could not start a worker
    │   ├── ProtocolViolation   a frame that no honest peer sends; the worker is killed and its context reset
    │   └── SetupFailed         a start-up step failed (interpreter, sandbox tier, port); the text names the mend
    └── ToolboxError            what the Python API raises for a server's answer, or for its silence
        ├── CodeInterpreterTimeoutError     the code was stopped at its timeout
        ├── CodeInterpreterConnectionError  no server, a lost connection, or a worker that ended under the code
        ├── CodeInterpreterNotFoundError    no such sandbox or context
        └── CodeInterpreterValidationError  an argument that the server refuses

Code of the user's that fails, times out or dies raises nothing: it is data in a report (`model.Outcome`).
"""

from __future__ import annotations


class CodeInterpreterError(Exception):
    """The root. Its text is one or two sentences for a reader who sees nothing else."""


class CallerError(CodeInterpreterError):
    """The request is at fault; nothing was changed. Repeating it unchanged fails again."""


class UnknownContext(CallerError):
    """Unknown, foreign and expired handles raise the same text, so that none can be told from another."""

    def __init__(self, context_id: str) -> None:
        super().__init__(
            f"No context {context_id[:64]!r}: it does not exist, was deleted, or expired. "
            "Make a new one with create_context, or leave context_id out to use the default context."
        )


class UnknownSandbox(CallerError):
    """Whoever made it can make another; what was in it is lost."""


class InvalidArgument(CallerError):
    """An argument is of the wrong type or outside its range."""


class LimitReached(CallerError):
    """A limit of the settings is reached; deleting something or waiting helps. ``limit`` is its name, for counting."""

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


class NothingToReport(CallerError):
    """Empty code asks for a report that is due; here none is."""


class InternalError(CodeInterpreterError):
    """Not the caller's fault. The same request may succeed later."""


class EngineUnavailable(InternalError):
    """No worker can be had."""


class ProtocolViolation(InternalError):
    """A peer broke the wire's rules."""


class SetupFailed(InternalError):
    """The server cannot start as it was asked to."""


class ToolboxError(CodeInterpreterError):
    """A call of the Python API failed. ``stdout`` and ``stderr`` hold what the code had printed until then."""

    def __init__(self, message: str, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr


class CodeInterpreterTimeoutError(ToolboxError):
    """The code ran into its timeout and was interrupted. Give a larger one, or 0 for none."""


class CodeInterpreterConnectionError(ToolboxError):
    """The server cannot be reached, hung up, or lost the worker; the text says which."""


class CodeInterpreterNotFoundError(ToolboxError):
    """No such sandbox or context: it never was, was deleted, or expired."""


class CodeInterpreterValidationError(ToolboxError):
    """The server refused the request as asked; repeating it unchanged fails again."""
