"""The fixture tools and the prompt that take more than one round: the client is asked, and comes again with answers.

What a round has to remember travels in `requestState`. It is sealed and opened outside (`RequestStateBoundary`), so
that only what this process wrote arrives here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitationCapability,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequest,
    InputRequiredResult,
    InputResponse,
    ListRootsRequest,
    ListRootsResult,
    PromptMessage,
    SamplingCapability,
    SamplingMessage,
    TextContent,
)

from tests.conformance.fixture_content import answer, text
from tests.conformance.fixture_tools import Answer, FixtureTool, Handler, RequestContext

Responses = Mapping[str, InputResponse]
ResponseT = TypeVar("ResponseT", ElicitResult, CreateMessageResult, ListRootsResult)


def form(message: str, asked: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {asked: {"type": kind}}, "required": [asked]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def question(words: str, max_tokens: int = 100) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(words))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


NAME = form("What is your name?", "name")
CONFIRM = form("Please confirm", "ok", "boolean")
CONTEXT = form("What context should the prompt use?", "context")
ROOTS = ListRootsRequest()


def asking(requests: dict[str, InputRequest], tell: Callable[[Responses], str], state: str | None = None) -> Handler:
    """Asks until every request has its response. With a `state`, that must have come back as well."""

    async def handler(_context: RequestContext, params: CallToolRequestParams) -> Answer:
        responses = params.input_responses or {}
        if not requests.keys() <= responses.keys():
            return InputRequiredResult(input_requests=requests, request_state=state)
        if params.request_state != state:
            raise MCPError(INVALID_PARAMS, "The requestState is not the one that was given.")
        return answer(text(tell(responses)))

    return handler


async def ask_twice(_context: RequestContext, params: CallToolRequestParams) -> Answer:
    responses = params.input_responses or {}
    match params.request_state:
        case "step 1" if "step1" in responses:
            color = form("Step 2: What is your favorite color?", "color")
            return InputRequiredResult(input_requests={"step2": color}, request_state="step 2")
        case "step 2" if "step2" in responses:
            return answer(text(f"Your color is {_filled(responses, 'step2', 'color')}."))
        case _:
            name = form("Step 1: What is your name?", "name")
            return InputRequiredResult(input_requests={"step1": name}, request_state="step 1")


async def ask_what_the_client_can(context: RequestContext, _params: CallToolRequestParams) -> Answer:
    """Only what the client has declared is asked of it."""
    choices: list[tuple[str, ClientCapabilities, InputRequest]] = [
        ("greeting", ClientCapabilities(sampling=SamplingCapability()), question("Generate a greeting")),
        ("user_name", ClientCapabilities(elicitation=ElicitationCapability()), NAME),
    ]
    able = {key: asked for key, needed, asked in choices if context.session.check_client_capability(needed)}
    return InputRequiredResult(input_requests=able) if able else answer(text("There is nothing that I can ask."))


async def prompt_with_context(
    _context: RequestContext, params: GetPromptRequestParams
) -> GetPromptResult | InputRequiredResult:
    responses = params.input_responses or {}
    if "user_context" not in responses:
        return InputRequiredResult(input_requests={"user_context": CONTEXT})
    words = f"Answer with this in mind: {_filled(responses, 'user_context', 'context')}"
    return GetPromptResult(messages=[PromptMessage(role="user", content=text(words))])


def rounds_tools() -> list[FixtureTool]:
    three: dict[str, InputRequest] = {
        "user_name": NAME,
        "greeting": question("Generate a greeting", 50),
        "client_roots": ROOTS,
    }
    handlers = {
        "elicitation": asking({"user_name": NAME}, lambda given: f"Hello, {_filled(given, 'user_name', 'name')}!"),
        "sampling": asking(
            {"capital_question": question("What is the capital of France?")},
            lambda given: _said(given, "capital_question"),
        ),
        "list_roots": asking({"client_roots": ROOTS}, lambda given: f"Your roots: {_roots(given, 'client_roots')}"),
        "request_state": asking({"confirm": CONFIRM}, lambda _given: "state-ok", state="to be confirmed"),
        "tampered_state": asking({"confirm": CONFIRM}, lambda _given: "state-ok", state="not to be touched"),
        "multiple_inputs": asking(three, lambda given: f"All {len(given)} came.", state="three asked"),
        "multi_round": ask_twice,
        "capabilities": ask_what_the_client_can,
    }
    return [
        *(FixtureTool(f"test_input_required_result_{name}", handler) for name, handler in handlers.items()),
        FixtureTool("test_streaming_elicitation", handlers["elicitation"]),
    ]


# -- responses ------------------------------------------------------------------------------------------------------


def _response(given: Responses, key: str, kind: type[ResponseT]) -> ResponseT:
    response = given[key]
    if not isinstance(response, kind):
        raise MCPError(INVALID_PARAMS, f"inputResponses[{key!r}] does not answer what was asked.")
    return response


def _filled(given: Responses, key: str, asked: str) -> object:
    return (_response(given, key, ElicitResult).content or {}).get(asked)


def _said(given: Responses, key: str) -> str:
    content = _response(given, key, CreateMessageResult).content
    return content.text if isinstance(content, TextContent) else content.type


def _roots(given: Responses, key: str) -> str:
    return ", ".join(str(root.uri) for root in _response(given, key, ListRootsResult).roots)
