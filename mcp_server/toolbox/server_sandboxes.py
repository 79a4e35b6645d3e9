"""The sandboxes of the main API. Each is a conversation of the service's, opened here and closed here."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mcp_server.access.guard import principal_of
from mcp_server.conversations import CONVERSATION_HEADER, conversation_of
from mcp_server.model import Conversation
from mcp_server.service import Service
from mcp_server.toolbox.server_errors import ApiRefusal

MAX_SANDBOXES = 1_000
"""Of one server; as many as it may have contexts by default."""

MAX_BODY_BYTES = 2 * 1024 * 1024
"""Room for 1 MiB of environment, and its JSON."""

MAX_NAME_CHARS = 200
MAX_MINUTES = 60 * 24 * 365
MAX_PAGE = 200
DEFAULT_PAGE = 100

_UNSUPPORTED = (
    "snapshot", "buildInfo", "volumes", "secrets", "gpu", "kvm", "networkAllowList", "domainAllowList",
    "outboundProxyUrl", "linkedSandbox", "autoPauseInterval",
)  # fmt: skip
"""Fields that ask for what this server does not do; ignoring them would be a lie."""


class CreateSandbox(BaseModel):
    """The fields of a new sandbox that mean something here.

    Nothing stops here but by being deleted: a sandbox that is to be deleted as soon as it stops
    (``autoDeleteInterval`` 0) is deleted after ``autoStopInterval`` minutes without use, and others stay.
    """

    model_config = ConfigDict(extra="allow")

    name: str | None = Field(default=None, max_length=MAX_NAME_CHARS)
    env: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    target: str | None = None
    auto_stop_interval: float | None = Field(default=None, alias="autoStopInterval", ge=0, le=MAX_MINUTES)
    auto_delete_interval: float | None = Field(default=None, alias="autoDeleteInterval", le=MAX_MINUTES)
    ttl_minutes: float | None = Field(default=None, alias="ttlMinutes", ge=0, le=MAX_MINUTES)


@dataclass(slots=True)
class Sandbox:
    """A sandbox of the main API. ``principal`` owns it; others never learn that it exists.

    ``serial`` counts the sandboxes of a server, so that a page of a list has a place to go on from. ``users`` are runs
    that are on. ``idle_life_s`` is how long it stays without any use; 0 means until it is deleted.
    """

    serial: int
    sandbox_id: str
    name: str
    principal: str
    target: str
    env: Mapping[str, str]
    labels: Mapping[str, str]
    created_at: datetime
    last_activity_at: datetime
    destroy_at: datetime | None = None
    idle_life_s: float = 0.0
    users: int = 0
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict, repr=False)
    conversation: Conversation = field(init=False)
    """The one that a client of the MCP door is in, too, that gives the sandbox's id as its conversation."""

    def __post_init__(self) -> None:
        headers = {CONVERSATION_HEADER: self.sandbox_id}
        self.conversation = conversation_of(meta={}, headers=headers, legacy_session=False, principal=self.principal)

    def touch(self) -> None:
        self.last_activity_at = datetime.now(UTC)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While code runs in it, it is not idle."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.touch()


class Sandboxes:
    """The registry. Belongs to one event loop, as its service does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sandboxes: dict[str, Sandbox] = {}
        self._serials = itertools.count(1)
        self._endings: set[asyncio.Task[None]] = set()

    def create(self, principal: str, wanted: CreateSandbox) -> Sandbox:
        """Raises ApiRefusal for a name that is taken and a full server, InvalidArgument for envs."""
        if len(self._sandboxes) >= MAX_SANDBOXES:
            raise self._full("sandboxes", f"The server holds {MAX_SANDBOXES:,} sandboxes, the most it may.")
        most = self._service.limits.contexts_per_principal
        if principal and len(self.listed(principal)) >= most:
            raise self._full(
                "sandboxes_per_principal", f"You have {most:,} sandboxes, the most that one user may have."
            )
        sandbox_id = str(uuid.uuid4())
        name = wanted.name or sandbox_id
        if any(name in (other.name, other.sandbox_id) for other in self._of(principal)):
            raise ApiRefusal(HTTPStatus.CONFLICT, f"There is a sandbox of the name {name!r}.")
        now = datetime.now(UTC)
        sandbox = Sandbox(
            next(self._serials),
            sandbox_id,
            name,
            principal,
            wanted.target or "local",
            wanted.env or {},
            wanted.labels or {},
            now,
            now,
        )
        self._service.open_conversation(sandbox.conversation, sandbox.env)
        self._sandboxes[sandbox_id] = sandbox
        if wanted.ttl_minutes:
            life = timedelta(minutes=wanted.ttl_minutes)
            sandbox.destroy_at = now + life
            self._later(sandbox, life.total_seconds(), self._expire)
        if wanted.auto_delete_interval == 0 and wanted.auto_stop_interval:
            sandbox.idle_life_s = wanted.auto_stop_interval * 60
            self._later(sandbox, sandbox.idle_life_s, self._expire_if_idle)
        return sandbox

    def _full(self, limit: str, text: str) -> ApiRefusal:
        self._service.observer.request_refused(limit)
        return ApiRefusal(HTTPStatus.TOO_MANY_REQUESTS, f"{text} Delete some.")

    def get(self, principal: str, sandbox_id: str) -> Sandbox | None:
        """The principal's sandbox of this id. That it was asked for counts as activity."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.principal != principal:
            return None
        sandbox.touch()
        return sandbox

    def find(self, principal: str, id_or_name: str) -> Sandbox:
        """By id or by name. Raises ApiRefusal."""
        sandbox = self.get(principal, id_or_name)
        if sandbox is None:
            named = (other for other in self._of(principal) if other.name == id_or_name)
            sandbox = next(named, None)
        if sandbox is None:
            raise no_sandbox(id_or_name)
        return sandbox

    def listed(self, principal: str) -> list[Sandbox]:
        """The principal's sandboxes, oldest first."""
        return list(self._of(principal))

    async def delete(self, sandbox: Sandbox) -> None:
        """End it with all its contexts and files. Idempotent."""
        if self._sandboxes.pop(sandbox.sandbox_id, None) is None:
            return
        for timer in sandbox.timers.values():
            timer.cancel()
        await self._service.close_conversation(sandbox.conversation)

    def _of(self, principal: str) -> Iterator[Sandbox]:
        return (sandbox for sandbox in self._sandboxes.values() if sandbox.principal == principal)

    def _later(self, sandbox: Sandbox, delay_s: float, act: Callable[[Sandbox], None]) -> None:
        sandbox.timers[act.__name__] = asyncio.get_running_loop().call_later(delay_s, act, sandbox)

    def _expire_if_idle(self, sandbox: Sandbox) -> None:
        """Delete it, or look again when it may have been idle for long enough."""
        idle_s = 0.0 if sandbox.users else (datetime.now(UTC) - sandbox.last_activity_at).total_seconds()
        if idle_s >= sandbox.idle_life_s:
            self._expire(sandbox)
        else:
            self._later(sandbox, sandbox.idle_life_s - idle_s, self._expire_if_idle)

    def _expire(self, sandbox: Sandbox) -> None:
        task = asyncio.get_running_loop().create_task(self.delete(sandbox))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


def no_sandbox(sandbox_id: str) -> ApiRefusal:
    return ApiRefusal(HTTPStatus.NOT_FOUND, f"No sandbox {sandbox_id[:64]!r}: it does not exist or was deleted.")


def main_api_routes(sandboxes: Sandboxes) -> list[BaseRoute]:
    """The part of the main API that sandboxes need to be made, found and deleted; paths below ``/api``."""
    api = _MainApi(sandboxes)
    return [
        Route("/sandbox", api.create, methods=["POST"]),
        Route("/sandbox", api.list, methods=["GET"]),
        Route("/sandbox/{sandbox}", api.get, methods=["GET"]),
        Route("/sandbox/{sandbox}", api.delete, methods=["DELETE"]),
        Route("/sandbox/{sandbox}/toolbox-proxy-url", api.toolbox_proxy_url, methods=["GET"]),
        Route("/sandbox/{sandbox}/last-activity", api.last_activity, methods=["POST"]),
    ]


class _MainApi:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def create(self, request: Request) -> JSONResponse:
        body = await json_body(request)
        asked = [name for name in _UNSUPPORTED if body.get(name)]
        if asked:
            raise ApiRefusal(HTTPStatus.BAD_REQUEST, f"This server does not support {', '.join(asked)}. Leave it out.")
        try:
            wanted = CreateSandbox.model_validate(body)
        except ValidationError as error:
            raise bad_body(error) from None
        return JSONResponse(_described(request, self._sandboxes.create(principal_of(request), wanted)))

    async def list(self, request: Request) -> JSONResponse:
        query = request.query_params
        limit, after = _whole(query.get("limit"), DEFAULT_PAGE), _whole(query.get("cursor"), 0)
        labels = _labels(query.get("labels"))
        states = [state for value in query.getlist("states") for state in value.split(",")]
        found = [
            sandbox
            for sandbox in self._sandboxes.listed(principal_of(request))
            if sandbox.serial > after
            and sandbox.sandbox_id.startswith(query.get("id", "").lower())
            and sandbox.name.lower().startswith(query.get("name", "").lower())
            and labels.items() <= sandbox.labels.items()
            and (not states or "started" in states)
        ]
        page = found[: max(1, min(limit, MAX_PAGE))]
        cursor = str(page[-1].serial) if len(page) < len(found) else None
        return JSONResponse({"items": [_described(request, sandbox) for sandbox in page], "nextCursor": cursor})

    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse(_described(request, self._found(request)))

    async def delete(self, request: Request) -> JSONResponse:
        sandbox = self._found(request)
        await self._sandboxes.delete(sandbox)
        return JSONResponse(_described(request, sandbox, state="destroyed"))

    async def toolbox_proxy_url(self, request: Request) -> JSONResponse:
        self._found(request)
        return JSONResponse({"url": toolbox_proxy_url(request)})

    async def last_activity(self, request: Request) -> Response:
        self._found(request)
        return Response(status_code=HTTPStatus.CREATED)

    def _found(self, request: Request) -> Sandbox:
        return self._sandboxes.find(principal_of(request), request.path_params["sandbox"])


async def json_body(request: Request) -> dict[str, Any]:
    """The request's body, a JSON object; an empty body is an empty one. Raises ApiRefusal."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise ApiRefusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {MAX_BODY_BYTES:,} bytes.")
    if not data:
        return {}
    try:
        body = json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise ApiRefusal(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise ApiRefusal(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    return body


def bad_body(error: ValidationError) -> ApiRefusal:
    """What is wrong with the first field that is."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return ApiRefusal(HTTPStatus.BAD_REQUEST, f"{place[:100]}: {fault['msg']}")


def toolbox_proxy_url(request: Request) -> str:
    """The address of the toolboxes, as this caller reaches the server; a sandbox's is this and its id.

    A proxy's word on that is taken from anyone: a caller who lies misleads none but itself.
    """
    url = request.url.replace(path=f"{request.scope.get('app_root_path', '')}/toolbox", query="", fragment="")
    scheme, host = request.headers.get("x-forwarded-proto", ""), request.headers.get("x-forwarded-host", "")
    if scheme in ("http", "https"):
        url = url.replace(scheme=scheme)
    return str(url.replace(netloc=host) if host else url)


def _described(request: Request, sandbox: Sandbox, state: str = "started") -> dict[str, Any]:
    """The sandbox as the main API shows it. Sizes are 0: this API sets no limits of its own."""
    return {
        "id": sandbox.sandbox_id,
        "organizationId": "",
        "name": sandbox.name,
        "user": "",
        "env": dict(sandbox.env),
        "labels": dict(sandbox.labels),
        "public": False,
        "networkBlockAll": True,
        "kvm": False,
        "target": sandbox.target,
        "cpu": os.cpu_count() or 1,
        "gpu": 0,
        "memory": 0,
        "disk": 0,
        "state": state,
        "desiredState": state,
        "createdAt": sandbox.created_at.isoformat(),
        "updatedAt": sandbox.created_at.isoformat(),
        "lastActivityAt": sandbox.last_activity_at.isoformat(),
        "autoDestroyAt": sandbox.destroy_at.isoformat() if sandbox.destroy_at else None,
        "toolboxProxyUrl": toolbox_proxy_url(request),
    }


def _labels(text: str | None) -> dict[str, str]:
    try:
        labels = json.loads(text or "{}")
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, dict):
        raise ApiRefusal(HTTPStatus.BAD_REQUEST, "labels must be a JSON object.")
    return {key: str(value) for key, value in labels.items()}


def _whole(text: str | None, default: int) -> int:
    """A number of the query, not negative."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ApiRefusal(HTTPStatus.BAD_REQUEST, f"{text[:20]!r} is not a number.")
    return int(text)
