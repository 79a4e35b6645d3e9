"""Whose contexts a request is about: a table."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mcp_server.conversations import MAX_KEPT_CHARS, conversation_of
from mcp_server.model import Conversation

HINTED = {"x-conversation-id": "h"}
SESSION = {"mcp-session-id": "s"}
META: Mapping[str, object] = {"vscode.conversationId": "v", "threadId": "t", "openai/session": "o"}


@pytest.mark.parametrize(
    ("meta", "headers", "legacy", "process", "principal", "expected"),
    [
        ({}, {}, False, "", "", Conversation()),
        ({}, {}, False, "stdio", "", Conversation("process:stdio")),
        ({}, SESSION, True, "", "", Conversation("session:s")),
        ({}, SESSION, False, "", "", Conversation()),
        (META, {**HINTED, **SESSION}, True, "stdio", "", Conversation("header:h")),
        (META, SESSION, True, "stdio", "", Conversation("vscode.conversationId:v")),
        ({"threadId": "t", "openai/session": "o"}, {}, False, "", "", Conversation("threadId:t")),
        ({"openai/session": "o"}, {}, False, "", "", Conversation("openai/session:o")),
        ({}, SESSION, True, "", "ada", Conversation("principal", "ada")),
        ({}, HINTED, False, "", "ada", Conversation("header:h", "ada")),
        ({"threadId": 7, "openai/session": {}}, {"x-conversation-id": "  "}, False, "", "", Conversation()),
        ({}, {"x-conversation-id": " h "}, False, "", "", Conversation("header:h")),
    ],
    ids=[
        "nothing is known",
        "stdio has one client",
        "the session of the older protocol",
        "a session header that nobody checked",
        "the header before all else",
        "a hint before the session",
        "hints in their order",
        "the last of the hints",
        "a principal is one conversation",
        "a hint tells a principal's conversations apart",
        "hints of another shape are none",
        "blanks around a hint",
    ],
)
def test_the_first_that_applies_names_the_conversation(
    meta: Mapping[str, object],
    headers: Mapping[str, str],
    legacy: bool,
    process: str,
    principal: str,
    expected: Conversation,
) -> None:
    found = conversation_of(meta=meta, headers=headers, legacy_session=legacy, process=process, principal=principal)
    assert found == expected


def test_no_hint_can_be_spelt_like_a_session_or_a_process() -> None:
    headers = {"x-conversation-id": "session:s"}
    forged = conversation_of(meta={}, headers=headers, legacy_session=True)
    real = conversation_of(meta={}, headers=SESSION, legacy_session=True)
    assert forged != real


def test_two_principals_with_one_hint_have_two_conversations() -> None:
    ada, bob = (
        conversation_of(meta={}, headers=HINTED, legacy_session=False, principal=name) for name in ("ada", "bob")
    )
    assert ada != bob


def test_a_long_hint_is_kept_as_a_digest_that_still_tells_hints_apart() -> None:
    one, other = (
        conversation_of(meta={"threadId": "x" * 100_000 + end}, headers={}, legacy_session=False).key
        for end in ("a", "\ud83d")
    )
    assert one != other
    assert len(one) < MAX_KEPT_CHARS
