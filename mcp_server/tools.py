"""The MCP door: a tool call in, content out.

A report is one text block and then images, with its machine record in `_meta`; never structured content, since some
clients show the model only that, and links to resources only where they are asked for, since some frameworks make of
them what no model takes. The other three tools return structured content and the same as text. Code that fails is a
report; only a request that could not be carried out is a tool error.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from mcp_types import (
    ResourceLink as ResourceLinkContent,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import PydanticSerializationError, to_json

from mcp_server import arguments
from mcp_server.conversations import PRINCIPAL_KEY, conversation_of
from mcp_server.errors import CallerError, InternalError
from mcp_server.model import ContextRecord, Conversation, Report, RunCall
from mcp_server.notifications import progress_feed
from mcp_server.prompts import Texts
from mcp_server.service import Service
from mcp_server.settings import Settings

RECORD_KEY = "code-interpreter/run"
"""Where a result's `_meta` holds the machine record of the run."""

CLIENT_RESULT_CHARS = 500_000
"""What one client is asked to take from `run_code` before it cuts: the most that it grants a tool."""

NO_CONVERSATION = (
    "This request belongs to no conversation that the server knows of, so there is nothing to list. "
    "Contexts are reached by their context_id."
)

RequestContext: TypeAlias = ServerRequestContext[Any, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Python code can print half a character; JSON in UTF-8 cannot carry it."""

_log = structlog.get_logger(__name__)


class ToolDoor:
    """The handlers of `tools/list` and `tools/call`.

    ``process`` names the one conversation of a transport that serves one client (stdio), and is empty elsewhere.
    """

    def __init__(self, service: Service, settings: Settings, texts: Texts, process: str = "") -> None:
        self._service = service
        self._process = process
        self._resource_links = settings.resource_links
        schemas = arguments.schemas(settings)
        self._tools = _describe(schemas, texts, settings)
        self._header_schemas = {name: arguments.sent_as_headers(schema) for name, schema in schemas.items()}
        self._handlers: dict[str, Callable[[RequestContext, Mapping[str, Any]], Awaitable[CallToolResult]]] = {
            "run_code": self._run_code,
            "create_context": self._create_context,
            "list_contexts": self._list_contexts,
            "delete_context": self._delete_context,
        }

    def header_schema(self, tool: str) -> Mapping[str, Any] | None:
        """Which arguments are headers too. The SDK walks it at each call over HTTP: what is no header would be slow."""
        return self._header_schemas.get(tool)

    async def list_tools(self, _context: RequestContext, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def call_tool(self, context: RequestContext, params: CallToolRequestParams) -> CallToolResult:
        """Carry out one call. Cancelling this cancels what it does; a run keeps its variables."""
        handler = self._handlers.get(params.name)
        if handler is None:
            raise MCPError(INVALID_PARAMS, f"No tool {params.name[:64]!r}: there are {', '.join(self._handlers)}.")
        began_s, result = time.monotonic(), "failed"
        try:
            answer = await handler(context, params.arguments or {})
            result = "ok"
        except CallerError as error:
            result = "refused"
            _log.info("call.refused", tool=params.name, error=type(error).__name__)
            return _tool_error(str(error))
        except InternalError as error:
            _log.exception("call.failed", tool=params.name)
            return _tool_error(f"{error} This is a fault of the server's, not of the request.")
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        else:
            return answer
        finally:
            self._service.observer.call_ended(params.name, result, time.monotonic() - began_s)

    async def _run_code(self, context: RequestContext, given: Mapping[str, Any]) -> CallToolResult:
        asked = arguments.parse("run_code", arguments.RunCodeArguments, given)
        call = RunCall(
            conversation=self.conversation(context),
            code=asked.code,
            context_id=asked.context_id,
            timeout_s=asked.timeout,
            envs=asked.envs,
            wait_s=asked.wait,
            interrupt=asked.interrupt,
            max_output_chars=asked.max_output_chars,
        )
        if not _wants_progress(context):
            return _report_result(await self._service.run(call), self._resource_links)
        async with progress_feed(_sender(context)) as on_progress:
            return _report_result(await self._service.run(call, on_progress), self._resource_links)

    async def _create_context(self, context: RequestContext, given: Mapping[str, Any]) -> CallToolResult:
        asked = arguments.parse("create_context", arguments.CreateContextArguments, given)
        made = await self._service.create_context(self.conversation(context), asked.cwd, asked.envs)
        facts = {
            "context_id": made.context_id,
            "cwd": made.cwd,
            "expires_after_idle_s": made.expires_after_idle_s,
        }
        return _structured(facts)

    async def _list_contexts(self, context: RequestContext, given: Mapping[str, Any]) -> CallToolResult:
        arguments.parse("list_contexts", arguments.ListContextsArguments, given)
        conversation = self.conversation(context)
        records = await self._service.list_contexts(conversation)
        facts: dict[str, Any] = {"contexts": [_listed(record) for record in records]}
        if not conversation.key:
            facts["note"] = NO_CONVERSATION
        return _structured(facts)

    async def _delete_context(self, context: RequestContext, given: Mapping[str, Any]) -> CallToolResult:
        asked = arguments.parse("delete_context", arguments.DeleteContextArguments, given)
        await self._service.delete_context(self.conversation(context), asked.context_id)
        return _structured({"deleted": asked.context_id})

    def conversation(self, context: RequestContext) -> Conversation:
        return conversation_of(
            meta=_raw_meta(context),
            headers=context.request.headers if context.request is not None else {},
            legacy_session=context.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS,
            process=self._process,
            principal=context.request.scope.get(PRINCIPAL_KEY, "") if context.request is not None else "",
        )


# -- results --------------------------------------------------------------------------------------------------------


def _report_result(report: Report, resource_links: bool) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(text=encodable(report.text))]
    content += [
        ImageContent(data=base64.b64encode(image.data).decode("ascii"), mime_type=image.mime) for image in report.images
    ]
    links = [
        ResourceLinkContent(uri=link.uri, name=encodable(link.name), mime_type=link.mime, size=link.size_bytes)
        for link in report.links
    ]
    if resource_links:
        content += links
    resources = [link.model_dump(by_alias=True, exclude_none=True) for link in links]
    return CallToolResult(content=content, _meta={RECORD_KEY: encodable({**report.record, "resources": resources})})


def _structured(facts: dict[str, Any]) -> CallToolResult:
    facts = encodable(facts)
    return CallToolResult(content=[TextContent(text=json.dumps(facts, ensure_ascii=False))], structured_content=facts)


def _tool_error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=encodable(text))], is_error=True)


def encodable(value: Any) -> Any:
    """A JSON value without lone surrogates, each replaced by U+FFFD: one of them would end the connection."""
    if isinstance(value, str) and value.isascii():
        return value
    try:
        to_json(value)  # all of it at once, and in compiled code: hardly any value holds one
    except PydanticSerializationError:
        return _mended(value)
    return value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value


def _listed(record: ContextRecord) -> dict[str, Any]:
    facts = {
        "context_id": record.context_id,
        "cwd": record.cwd,
        "created_at": _time(record.created_at),
        "last_used_at": _time(record.last_used_at),
        "state": record.activity,
        "runs": record.runs,
        "last_line": record.last_line,
        "expires_after_idle_s": record.expires_after_idle_s,
    }
    if record.running_since is not None:
        facts["running_since"] = _time(record.running_since)
    return facts


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


# -- what a request carries -----------------------------------------------------------------------------------------


def _raw_meta(context: RequestContext) -> Mapping[str, object]:
    meta = (context.params or {}).get("_meta")
    return meta if isinstance(meta, Mapping) else {}


def _wants_progress(context: RequestContext) -> bool:
    return _raw_meta(context).get("progressToken") is not None


def _sender(context: RequestContext) -> Callable[[float, str], Awaitable[None]]:
    async def send(value: float, message: str) -> None:
        await context.session.report_progress(value, None, encodable(message))

    return send


# -- what the client is told of the tools ---------------------------------------------------------------------------

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}

_OUTPUT_SCHEMAS: dict[str, dict[str, Any]] = {
    "create_context": {
        "type": "object",
        "properties": {"context_id": _TEXT, "cwd": _TEXT, "expires_after_idle_s": _NUMBER},
        "required": ["context_id", "cwd", "expires_after_idle_s"],
    },
    "list_contexts": {
        "type": "object",
        "properties": {
            "contexts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "context_id": _TEXT,
                        "cwd": _TEXT,
                        "created_at": _TEXT,
                        "last_used_at": _TEXT,
                        "state": _TEXT,
                        "runs": {"type": "integer"},
                        "running_since": _TEXT,
                        "last_line": _TEXT,
                        "expires_after_idle_s": _NUMBER,
                    },
                    "required": ["context_id", "cwd", "created_at", "last_used_at", "state", "runs"],
                },
            },
            "note": _TEXT,
        },
        "required": ["contexts"],
    },
    "delete_context": {"type": "object", "properties": {"deleted": _TEXT}, "required": ["deleted"]},
}


def _describe(schemas: Mapping[str, dict[str, Any]], texts: Texts, settings: Settings) -> list[Tool]:
    """The four tools. A workspace of the user's makes running code able to change what they own."""
    touches_user_files = (bool(settings.workspace) and not settings.workspace_read_only) or settings.allow_unsandboxed
    hints = {
        "run_code": _hints("Run Python code", destructive=touches_user_files, open_world=settings.allow_unsandboxed),
        "create_context": _hints("Create a context"),
        "list_contexts": _hints("List contexts", read_only=True, idempotent=True),
        "delete_context": _hints("Delete a context", destructive=True, idempotent=True),
    }
    return [
        Tool(
            name=name,
            title=annotations.title,
            description=texts.tools[name],
            input_schema=schemas[name],
            output_schema=_OUTPUT_SCHEMAS.get(name),
            annotations=annotations,
            _meta={"anthropic/maxResultSizeChars": CLIENT_RESULT_CHARS} if name == "run_code" else None,
        )
        for name, annotations in hints.items()
    ]


def _hints(
    title: str,
    *,
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool = False,
) -> ToolAnnotations:
    """Clients look for the title here or in the tool itself."""
    return ToolAnnotations(
        title=title,
        read_only_hint=read_only,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=open_world,
    )
