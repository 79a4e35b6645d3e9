"""Sandboxes made, found and deleted through the main API, blocking and async."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from mcp_server.errors import CodeInterpreterConnectionError
from mcp_server.toolbox.client_address import Address, unreachable
from mcp_server.toolbox.client_transcript import status_error


@dataclass(frozen=True, slots=True)
class RemoteSandbox:
    """A sandbox at a server. ``toolboxes`` is the address that its own, and those of others, are below."""

    sandbox_id: str
    toolboxes: Address

    @property
    def toolbox(self) -> Address:
        return self.toolboxes.at(self.sandbox_id)


def main_api(url: str, token: str | None = None, unix_socket: str | None = None) -> Address:
    """The main API of a server, be its root given or, as for `DaytonaConfig`, the API itself."""
    address = Address.of(url, token, unix_socket)
    return address if address.url.endswith("/api") else address.at("api")


class SandboxApi:
    """The part of the main API that is needed here, blocking. Raises ToolboxError."""

    def __init__(self, api: Address) -> None:
        self.address = api
        transport = httpx.HTTPTransport(uds=api.unix_socket) if api.unix_socket else None
        self._http = httpx.Client(transport=transport, **api.http_options())

    def create(self, wanted: Mapping[str, Any]) -> RemoteSandbox:
        return remote_sandbox(self.address, self._request("POST", "sandbox", wanted))

    def get(self, id_or_name: str) -> RemoteSandbox:
        return remote_sandbox(self.address, self._request("GET", _path(id_or_name)))

    def delete(self, sandbox_id: str) -> None:
        self._request("DELETE", _path(sandbox_id))

    def close(self) -> None:
        self._http.close()

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        address = self.address.at(path)
        try:
            answer = self._http.request(method, address.url, json=body)
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        return answer_of(answer)


class AsyncSandboxApi:
    """The part of the main API that is needed here, for asyncio. Raises ToolboxError."""

    def __init__(self, api: Address) -> None:
        self.address = api
        transport = httpx.AsyncHTTPTransport(uds=api.unix_socket) if api.unix_socket else None
        self._http = httpx.AsyncClient(transport=transport, **api.http_options())

    async def create(self, wanted: Mapping[str, Any]) -> RemoteSandbox:
        return remote_sandbox(self.address, await self.request("POST", "sandbox", wanted))

    async def get(self, id_or_name: str) -> RemoteSandbox:
        return remote_sandbox(self.address, await self.request("GET", _path(id_or_name)))

    async def delete(self, sandbox_id: str) -> None:
        await self.request("DELETE", _path(sandbox_id))

    async def note_activity(self, sandbox_id: str) -> None:
        """Keep a sandbox from being stopped for want of use."""
        await self.request("POST", f"{_path(sandbox_id)}/last-activity")

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await self.request_at(self.address.at(path), method, body)

    async def request_at(self, address: Address, method: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = await self._http.request(method, address.url, json=body)
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        return answer_of(answer)

    async def close(self) -> None:
        await self._http.aclose()


def remote_sandbox(api: Address, fields: Any) -> RemoteSandbox:
    """A sandbox as the main API shows it. Over a Unix socket the address that it names leads nowhere else."""
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
        raise CodeInterpreterConnectionError(f"{api.url} answered with something else than a sandbox")
    url = fields.get("toolboxProxyUrl")
    if api.unix_socket or not isinstance(url, str):
        parts = urlsplit(api.url)
        url = parts._replace(path=parts.path.removesuffix("/api") + "/toolbox").geturl()
    return RemoteSandbox(fields["id"], Address.of(url, api.token, api.unix_socket))


def answer_of(answer: httpx.Response) -> Any:
    """The JSON of an answer, None where it has no body. Raises ToolboxError."""
    if not answer.is_success:
        raise status_error(answer.status_code, answer.content)
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        raise CodeInterpreterConnectionError(f"{answer.url} answered with something else than JSON") from None


def _path(sandbox_id: str) -> str:
    return f"sandbox/{quote(sandbox_id, safe='')}"
