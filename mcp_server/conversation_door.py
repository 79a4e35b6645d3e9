"""The HTTP door through which whoever named a conversation ends it, with all its contexts and files."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mcp_server.conversations import CONVERSATION_HEADER, PRINCIPAL_KEY, conversation_of
from mcp_server.service import Service

CONVERSATIONS_PATH = "/conversations/{conversation:path}"


def conversation_routes(service: Service) -> list[BaseRoute]:
    """`DELETE /conversations/{id}`, to stand behind what settles who asks and under which name (`access`).

    The id is what requests gave as `X-Conversation-Id`. With a principal it is one of that principal's own: another's
    conversation of the same name is not touched. Unknown ones pass, so that it can be repeated.
    """

    async def end(request: Request) -> Response:
        # The same bytes as in a header, which is read as Latin-1.
        hint = request.path_params["conversation"].encode("utf-8", "surrogateescape").decode("latin-1")
        if not hint.strip():
            return PlainTextResponse("Which conversation? DELETE /conversations/{id}", HTTPStatus.NOT_FOUND)
        conversation = conversation_of(
            meta={},
            headers={CONVERSATION_HEADER: hint},
            legacy_session=False,
            principal=request.scope.get(PRINCIPAL_KEY, ""),
        )
        await service.close_conversation(conversation)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return [Route(CONVERSATIONS_PATH, end, methods=["DELETE"])]
