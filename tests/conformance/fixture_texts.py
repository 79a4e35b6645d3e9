"""The fixture's resources, prompts and completion, by the names and contents that the suite's scenarios look for."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    BlobResourceContents,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ContentBlock,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from tests.conformance.fixture_content import RED_PIXEL, picture, text
from tests.conformance.fixture_rounds import prompt_with_context
from tests.conformance.fixture_tools import RequestContext, embedded

DESCRIPTION = "A fixture of the conformance suite."

RESOURCES: Mapping[str, TextResourceContents | BlobResourceContents] = {
    contents.uri: contents
    for contents in (
        TextResourceContents(
            uri="test://static-text",
            mime_type="text/plain",
            text="This is the content of the static text resource.",
        ),
        BlobResourceContents(
            uri="test://static-binary", mime_type="image/png", blob=base64.b64encode(RED_PIXEL).decode("ascii")
        ),
        TextResourceContents(uri="test://watched-resource", mime_type="text/plain", text="Nothing has happened."),
    )
}

TEMPLATE = ResourceTemplate(
    uri_template="test://template/{id}/data", name="template", description=DESCRIPTION, mime_type="application/json"
)
_OF_TEMPLATE = re.compile(r"test://template/([^/]+)/data")

PROMPTS = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}
"""The names of each one's arguments, which it needs all."""


async def list_resources(_context: RequestContext, _params: PaginatedRequestParams | None) -> ListResourcesResult:
    return ListResourcesResult(
        resources=[
            Resource(uri=uri, name=uri, description=DESCRIPTION, mime_type=contents.mime_type)
            for uri, contents in RESOURCES.items()
        ]
    )


async def list_templates(
    _context: RequestContext, _params: PaginatedRequestParams | None
) -> ListResourceTemplatesResult:
    return ListResourceTemplatesResult(resource_templates=[TEMPLATE])


async def read_resource(_context: RequestContext, params: ReadResourceRequestParams) -> ReadResourceResult:
    if params.uri in RESOURCES:
        return ReadResourceResult(contents=[RESOURCES[params.uri]])
    found = _OF_TEMPLATE.fullmatch(params.uri)
    if found is None:
        raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": params.uri})
    told = f'{{"id":"{found[1]}","templateTest":true,"data":"Data for ID: {found[1]}"}}'
    return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type="application/json", text=told)])


async def subscribe(_context: RequestContext, _params: SubscribeRequestParams) -> EmptyResult:
    return EmptyResult()


async def unsubscribe(_context: RequestContext, _params: UnsubscribeRequestParams) -> EmptyResult:
    return EmptyResult()


async def list_prompts(_context: RequestContext, _params: PaginatedRequestParams | None) -> ListPromptsResult:
    return ListPromptsResult(
        prompts=[
            Prompt(
                name=name,
                description=DESCRIPTION,
                arguments=[PromptArgument(name=needed, description=DESCRIPTION, required=True) for needed in names],
            )
            for name, names in PROMPTS.items()
        ]
    )


async def get_prompt(context: RequestContext, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult:
    given = params.arguments or {}
    if params.name not in PROMPTS or not set(PROMPTS[params.name]) <= given.keys():
        raise MCPError(INVALID_PARAMS, f"No prompt {params.name!r} with these arguments.")
    content: list[ContentBlock]
    match params.name:
        case "test_simple_prompt":
            content = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            content = [text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")]
        case "test_prompt_with_embedded_resource":
            note = embedded(given["resourceUri"], "text/plain", "Embedded resource content for testing.")
            content = [note, text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            content = [picture(), text("Please analyze the image above.")]
        case _:
            return await prompt_with_context(context, params)
    return GetPromptResult(messages=[PromptMessage(role="user", content=block) for block in content])


async def complete(_context: RequestContext, params: CompleteRequestParams) -> CompleteResult:
    found = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return CompleteResult(completion=Completion(values=found, total=len(found), has_more=False))


async def set_level(_context: RequestContext, _params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()
