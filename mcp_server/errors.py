"""Every exception that this package raises on purpose.

    CodeInterpreterError
    ├── CallerError             a request that cannot be carried out as asked; the text says what to do instead
    │   ├── UnknownContext      no such context here, or not the caller's, or expired
    │   ├── InvalidArgument     an argument that can never work
    │   ├── LimitReached        a quota or limit is used up
    │   └── NothingToReport     empty code, and no run whose report is due
    └── InternalError           our own failure, or the machine's
        ├── EngineUnavailable   the engine has not started, has stopped, or could not start a worker
        ├── ProtocolViolation   a frame that no honest peer sends; the worker is killed and its context reset
        └── SetupFailed         a start-up step failed (interpreter, sandbox tier, port); the text names the mend

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


class InvalidArgument(CallerError):
    """An argument is of the wrong type or outside its range."""


class LimitReached(CallerError):
    """A limit of the settings is reached; deleting something or waiting helps."""


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
