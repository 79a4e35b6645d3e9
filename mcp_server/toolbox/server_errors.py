"""Answers that are errors: always JSON with the same seven keys, whatever went wrong."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

from mcp_server.access import refusals
from mcp_server.errors import CallerError, EngineUnavailable, InternalError, LimitReached, UnknownContext

API_SOURCE = "DAYTONA_API"
TOOLBOX_SOURCE = "DAYTONA_DAEMON"
"""The published SDKs know the main API and a sandbox's toolbox by these names."""


class ApiRefusal(HTTPException):
    """A request that the HTTP side of the protocol refuses, with its status."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(status.value, message)


def error_response(connection: HTTPConnection, status: int, message: str) -> JSONResponse:
    """The error's body, with the API that it is of."""
    main_api = connection.url.path.startswith(f"{connection.scope.get('app_root_path', '')}/api")
    return refusals.error_response(connection, status, message, source=API_SOURCE if main_api else TOOLBOX_SOURCE)


def status_of(error: CallerError | InternalError) -> HTTPStatus:
    """The HTTP status that says of an error of the service's whose fault it is."""
    match error:
        case UnknownContext():
            return HTTPStatus.NOT_FOUND
        case LimitReached():
            return HTTPStatus.TOO_MANY_REQUESTS
        case CallerError():
            return HTTPStatus.BAD_REQUEST
        case EngineUnavailable():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    response = error_response(request, error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def on_service_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, CallerError | InternalError):
        raise error
    return error_response(request, status_of(error), str(error))


async def on_fault(request: Request, _error: Exception) -> JSONResponse:
    """For what nobody foresaw; Starlette raises it on after this answer, so that it is logged."""
    return error_response(
        request, HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says how. The request may work later."
    )
