"""The fixture tools that answer in one call, by the names and contents that the suite's scenarios look for.

Those that ask the client something in between do it the way of the protocol with the handshake; the other way is in
`fixture_rounds`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import PromptsListChanged, ServerEvent, SubscriptionBus, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    EmbeddedResource,
    InputRequiredResult,
    MissingRequiredClientCapabilityErrorData,
    SamplingCapability,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
)

from tests.conformance.fixture_content import answer, picture, sound, text

RequestContext: TypeAlias = ServerRequestContext[Any, Any]
Answer: TypeAlias = CallToolResult | InputRequiredResult
Handler: TypeAlias = Callable[[RequestContext, CallToolRequestParams], Awaitable[Answer]]

TEXT = {"type": "string"}


@dataclass(frozen=True, slots=True)
class FixtureTool:
    name: str
    handler: Handler
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "object"})

    @property
    def described(self) -> Tool:
        return Tool(name=self.name, description="A fixture of the conformance suite.", input_schema=self.schema)


def always(result: CallToolResult) -> Handler:
    async def handler(_context: RequestContext, _params: CallToolRequestParams) -> Answer:
        return result

    return handler


def taking(*names: str) -> dict[str, Any]:
    """The schema of a tool whose arguments are all text and all needed."""
    return {"type": "object", "properties": dict.fromkeys(names, TEXT), "required": list(names)}


def embedded(uri: str, mime_type: str, content: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=content))


async def report_progress(context: RequestContext, _params: CallToolRequestParams) -> Answer:
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100)
    return answer(text("Progress was reported."))


async def write_log(context: RequestContext, _params: CallToolRequestParams) -> Answer:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", line, related_request_id=context.request_id)
    return answer(text("Three lines were logged."))


async def ask_model(context: RequestContext, params: CallToolRequestParams) -> Answer:
    prompt = SamplingMessage(role="user", content=text((params.arguments or {})["prompt"]))
    reply = await context.session.send_request(
        CreateMessageRequest(params=CreateMessageRequestParams(messages=[prompt], max_tokens=100)),
        CreateMessageResult,
        metadata=ServerMessageMetadata(related_request_id=context.request_id),
    )
    said = reply.content.text if isinstance(reply.content, TextContent) else reply.content.type
    return answer(text(f"LLM response: {said}"))


def asking_user(schema: dict[str, Any], message: str = "Please fill in the form.") -> Handler:
    """Shows the user a form, headed by the argument `message` where there is one, and tells what came back."""

    async def handler(context: RequestContext, params: CallToolRequestParams) -> Answer:
        heading = (params.arguments or {}).get("message", message)
        reply = await context.session.elicit_form(heading, schema, context.request_id)
        return answer(text(f"User response: action={reply.action}, content={reply.content}"))

    return handler


async def need_sampling(context: RequestContext, _params: CallToolRequestParams) -> Answer:
    needed = ClientCapabilities(sampling=SamplingCapability())
    if not context.session.check_client_capability(needed):
        data = MissingRequiredClientCapabilityErrorData(required_capabilities=needed)
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool asks the client's model.",
            data.model_dump(by_alias=True, exclude_none=True),
        )
    return answer(text("The client has a model."))


def announcing(bus: SubscriptionBus, event: ServerEvent) -> Handler:
    async def handler(_context: RequestContext, _params: CallToolRequestParams) -> Answer:
        await bus.publish(event)
        return answer(text("Whoever listens was told."))

    return handler


ROUTED = {"type": "object", "properties": {"region": {**TEXT, "x-mcp-header": "Region"}}}
"""An argument that a client also sends as a header."""

CREDENTIALS = taking("username", "email")

DEFAULTS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
}

_TITLED = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)]

CHOICES = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
}

SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {"$anchor": "addressDef", "type": "object", "properties": {"street": TEXT, "city": TEXT}},
    },
    "properties": {
        "name": TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": TEXT,
        "email": TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def one_call_tools(bus: SubscriptionBus) -> list[FixtureTool]:
    """`bus` carries to listening clients what two of the tools announce."""
    note = embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    mixed = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    failure = CallToolResult(
        content=[text("This tool intentionally returns an error for testing")],
        is_error=True,
    )
    return [
        FixtureTool("test_simple_text", always(answer(text("This is a simple text response for testing.")))),
        FixtureTool("test_image_content", always(answer(picture()))),
        FixtureTool("test_audio_content", always(answer(sound()))),
        FixtureTool("test_embedded_resource", always(answer(note))),
        FixtureTool(
            "test_multiple_content_types", always(answer(text("Multiple content types test:"), picture(), mixed))
        ),
        FixtureTool("test_error_handling", always(failure)),
        FixtureTool("json_schema_2020_12_tool", always(answer(text("Taken."))), SCHEMA_2020_12),
        FixtureTool("test_routed_by_header", always(answer(text("It came here."))), ROUTED),
        FixtureTool("test_tool_with_progress", report_progress),
        FixtureTool("test_tool_with_logging", write_log),
        FixtureTool("test_logging_tool", write_log),
        FixtureTool("test_sampling", ask_model, taking("prompt")),
        FixtureTool("test_elicitation", asking_user(CREDENTIALS), taking("message")),
        FixtureTool("test_elicitation_sep1034_defaults", asking_user(DEFAULTS)),
        FixtureTool("test_elicitation_sep1330_enums", asking_user(CHOICES)),
        FixtureTool("test_missing_capability", need_sampling),
        FixtureTool("test_trigger_tool_change", announcing(bus, ToolsListChanged())),
        FixtureTool("test_trigger_prompt_change", announcing(bus, PromptsListChanged())),
    ]
