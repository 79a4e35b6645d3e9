"""What the Python API gives and takes: the names and fields of the class it is modelled on."""

from __future__ import annotations

from pydantic import AliasChoices, BaseModel, Field


class InterpreterContext(BaseModel):
    """A context: an interpreter with its own variables. ``created_at`` is an RFC 3339 time."""

    id: str
    cwd: str
    created_at: str = Field(validation_alias=AliasChoices("created_at", "createdAt"))
    active: bool
    language: str


class OutputMessage(BaseModel):
    """A piece of stdout or stderr, as it comes."""

    output: str


class ExecutionError(BaseModel):
    """An exception of the code's."""

    name: str
    value: str
    traceback: str = ""


class ExecutionResult(BaseModel):
    """All that the code printed, and the exception that ended it, if one did."""

    stdout: str = ""
    stderr: str = ""
    error: ExecutionError | None = None
