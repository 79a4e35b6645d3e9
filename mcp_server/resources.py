"""The MCP door's resources: what reports left out, and the files of a context.

    run://{context_id}/{run}/{name}     a stored stream of a run (`stdout`, `stderr`), what came before it (`late`), or
                                        something that it showed; ?offset=&limit= take a page of a stream, in lines
    work://{context_id}/{path}          a file beneath the context's work directory

A handle is checked as for every other use of it, and what is refused is told alike whether or not it exists.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceTemplate,
    TextResourceContents,
)

from mcp_server.errors import CallerError, InvalidArgument
from mcp_server.model import Conversation, Stream
from mcp_server.service import Service

DEFAULT_LIMIT_LINES = 2_000
MAX_FILE_BYTES = 16 * 1024 * 1024
"""Of a resource that is read whole: it travels in one message."""

PAGE_KEY = "code-interpreter/page"
"""Where the contents' `_meta` says which lines of a stream they are."""

RequestContext: TypeAlias = ServerRequestContext[Any, Any]

TEMPLATES = [
    ResourceTemplate(
        uri_template="run://{context_id}/{run}/{name}{?offset,limit}",
        name="output",
        title="Complete output of a run",
        description=(
            "What a report of run_code left out: name is stdout or stderr (offset and limit count lines, "
            f"{DEFAULT_LIMIT_LINES:,} at a time unless told), or a file that the report names."
        ),
    ),
    ResourceTemplate(
        uri_template="work://{context_id}/{+path}",
        name="file",
        title="File of a context",
        description="A regular file beneath the context's work directory, as listed by a report of run_code.",
    ),
]


@dataclass(frozen=True, slots=True)
class RunUri:
    context_id: str
    run: int
    name: str
    offset: int = 0
    limit: int = DEFAULT_LIMIT_LINES


@dataclass(frozen=True, slots=True)
class WorkUri:
    context_id: str
    path: str


class ResourceDoor:
    """The handlers of `resources/…`. `conversation_of` tells whose a request is."""

    def __init__(self, service: Service, conversation_of: Callable[[RequestContext], Conversation]) -> None:
        self._service = service
        self._conversation_of = conversation_of

    async def list_resources(
        self, _context: RequestContext, _params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        """None: each report names its own, and a list of all would be everyone's."""
        return ListResourcesResult(resources=[])

    async def list_templates(
        self, _context: RequestContext, _params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=TEMPLATES)

    async def read(self, context: RequestContext, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        try:
            contents = await self._read(self._conversation_of(context), uri)
        except CallerError as error:
            raise MCPError(INVALID_PARAMS, str(error), {"uri": uri}) from error
        return ReadResourceResult(contents=[contents])

    async def _read(self, conversation: Conversation, uri: str) -> TextResourceContents | BlobResourceContents:
        match parse_uri(uri):
            case RunUri(context_id, run, ("stdout" | "stderr") as name, offset, limit):
                page = await self._service.read_output(conversation, context_id, run, Stream(name), offset, limit)
                facts = {"first_line": page.first_line, "lines": page.lines, "more": page.more}
                return TextResourceContents(uri=uri, mime_type="text/plain", text=page.text, _meta={PAGE_KEY: facts})
            case RunUri(context_id, run, name):
                return _contents(
                    uri, name, await self._service.read_shown(conversation, context_id, run, name, MAX_FILE_BYTES)
                )
            case WorkUri(context_id, path):
                data = await self._service.read_file(conversation, context_id, path, MAX_FILE_BYTES)
                return _contents(uri, path, data)


def parse_uri(uri: str) -> RunUri | WorkUri:
    """Raises InvalidArgument for anything but the two forms above."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _unknown(uri) from None
    path = unquote(parts.path, errors="surrogateescape").removeprefix("/")
    if parts.scheme == "work" and parts.netloc and path:
        return WorkUri(parts.netloc, path)
    run, _, name = path.partition("/")
    if parts.scheme != "run" or not parts.netloc or not run.isdecimal() or not name or "/" in name:
        raise _unknown(uri)
    paging = {
        key: _count(key, values[-1]) for key, values in parse_qs(parts.query).items() if key in ("offset", "limit")
    }
    return RunUri(parts.netloc, int(run[:18]), name, **paging)


def _count(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise InvalidArgument(f"{name}={text[:40]}: give a whole number of lines.")
    return int(text)


def _unknown(uri: str) -> InvalidArgument:
    return InvalidArgument(
        f"No resource {uri[:200]!r}. There are run://CONTEXT_ID/RUN/stdout (or stderr) and work://CONTEXT_ID/PATH."
    )


def _contents(uri: str, name: str, data: bytes) -> TextResourceContents | BlobResourceContents:
    mime = mimetypes.guess_type(name, strict=False)[0]
    try:
        return TextResourceContents(uri=uri, mime_type=mime or "text/plain", text=data.decode("utf-8"))
    except UnicodeDecodeError:
        blob = base64.b64encode(data).decode("ascii")
        return BlobResourceContents(uri=uri, mime_type=mime or "application/octet-stream", blob=blob)
