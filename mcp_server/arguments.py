"""What the tools take: the schemas that clients see, and the models that hold a call to them.

The schemas are written by hand and plain (one `type`, no `anyOf`): some clients understand nothing else, and some take
an argument with a default for required unless it is `nullable`. A null therefore means the default. Types are checked
here; ranges by the service, which every door shares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from mcp_server.errors import InvalidArgument
from mcp_server.service.limits import MAX_OUTPUT_CHARS, MIN_OUTPUT_CHARS
from mcp_server.settings import Settings

_SHOWN_CHARS = 60


def _text(value: object) -> str:
    """pydantic's own `str` refuses lone surrogates, which Python source may hold."""
    if not isinstance(value, str):
        raise ValueError("not a string")  # noqa: TRY004
    return value


Text = Annotated[str, PlainValidator(_text)]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunCodeArguments(_Arguments):
    code: Text
    context_id: Text = ""
    timeout: float | None = None
    envs: dict[Text, Text] = Field(default_factory=dict)
    wait: float | None = None
    interrupt: bool = False
    max_output_chars: int | None = None


class CreateContextArguments(_Arguments):
    cwd: Text = ""
    envs: dict[Text, Text] = Field(default_factory=dict)


class ListContextsArguments(_Arguments):
    pass


class DeleteContextArguments(_Arguments):
    context_id: Text


MODELS: Mapping[str, type[_Arguments]] = {
    "run_code": RunCodeArguments,
    "create_context": CreateContextArguments,
    "list_contexts": ListContextsArguments,
    "delete_context": DeleteContextArguments,
}

_EXPECTED = {
    "code": "Python source, as a string",
    "context_id": "a handle that create_context or a report gave, as a string",
    "timeout": "a number of seconds",
    "wait": "a number of seconds",
    "envs": 'an object of strings, for example {"MODE": "fast"}',
    "interrupt": "true or false",
    "max_output_chars": "a whole number",
    "cwd": "a path, as a string",
}

ArgumentsT = TypeVar("ArgumentsT", bound=_Arguments)


def parse(tool: str, model: type[ArgumentsT], given: Mapping[str, Any] | None) -> ArgumentsT:
    """The arguments of a call. Raises InvalidArgument, which says what is wrong with the first that is."""
    present = {name: value for name, value in (given or {}).items() if value is not None}
    try:
        return model.model_validate(present)
    except ValidationError as error:
        raise InvalidArgument(_first_fault(tool, model, error.errors(include_url=False)[0])) from None


def _first_fault(tool: str, model: type[_Arguments], fault: ErrorDetails) -> str:
    name, *inner = (str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        taken = ", ".join(model.model_fields) or "no arguments"
        return f"{tool} has no argument {_shown(name)}. It takes {taken}."
    expected = _EXPECTED[name]
    if fault["type"] == "missing":
        return f"{tool} needs {name}: {expected}."
    where = ".".join([name, *(part for part in inner if part != "[key]")])
    return f"{name} must be {expected}; {_clipped(where)} is {_shown(fault['input'])}."


def _shown(value: object) -> str:
    return _clipped(json.dumps(value, default=lambda odd: type(odd).__name__))


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _optional(kind: str, default: object, description: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "description": description, "default": default, "nullable": True, **more}


_ENVS: dict[str, Any] = {"additionalProperties": {"type": "string"}}
_HEADER_KEY = "x-mcp-header"
_CONTEXT_HEADER = {_HEADER_KEY: "Context-Id"}
"""Lets a gateway route a call by its context without reading the body."""


def schemas(settings: Settings) -> dict[str, dict[str, Any]]:
    """The input schema of each tool, with the defaults in force."""
    run_code = {
        "code": {
            "type": "string",
            "description": "Python source. The value of the last expression is shown, as in a notebook; top-level "
            "await works. Empty: wait for the context's oldest run whose report is still due.",
        },
        "context_id": _optional(
            "string", "", "Context to run in. Default: the conversation's own, made on first use.", **_CONTEXT_HEADER
        ),
        "timeout": _optional(
            "number",
            settings.timeout_s,
            "Seconds of running after which the code is interrupted; 0 = no limit.",
            minimum=0,
        ),
        "envs": _optional("object", {}, "Environment variables for this run only.", **_ENVS),
        "wait": _optional(
            "number",
            settings.wait_s,
            "Seconds after which this call returns the output so far, while the code goes on running.",
            minimum=0,
        ),
        "interrupt": _optional("boolean", False, "First stop what is running in this context; its variables stay."),
        "max_output_chars": _optional(
            "integer",
            settings.max_output_chars,
            "Most characters of text to return.",
            minimum=MIN_OUTPUT_CHARS,
            maximum=MAX_OUTPUT_CHARS,
        ),
    }
    create_context = {
        "cwd": _optional("string", "", "Working directory. Default: one of the context's own."),
        "envs": _optional("object", {}, "Environment variables for all runs of the context.", **_ENVS),
    }
    delete_context = {
        "context_id": {"type": "string", "description": "Handle of the context to delete.", **_CONTEXT_HEADER}
    }
    return {
        "run_code": _object(run_code, "code"),
        "create_context": _object(create_context),
        "list_contexts": _object({}),
        "delete_context": _object(delete_context, "context_id"),
    }


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return schema


def sent_as_headers(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Of a tool's input schema, the arguments that a client sends as headers too."""
    return {
        "type": "object",
        "properties": {name: part for name, part in schema["properties"].items() if _HEADER_KEY in part},
    }
