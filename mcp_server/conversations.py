"""Whose contexts a request is about. Pure: what the request carries in, a `Conversation` out.

A hint (a header or a `_meta` key that a client or harness sets) tells one user's conversations apart. It is never
authorization: where there is a principal, the key holds for that principal alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from mcp_server.model import Conversation

CONVERSATION_HEADER = "x-conversation-id"
PRINCIPAL_KEY = "code_interpreter.principal"
"""Where the ASGI scope of a request holds who asks, where the server asks for tokens."""

SESSION_HEADER = "mcp-session-id"

META_KEYS = ("vscode.conversationId", "threadId", "openai/session")
"""What clients are known to send in a request's `_meta`, in order of precedence."""

MAX_KEPT_CHARS = 128
"""A longer hint is kept as its digest: clients choose its length, and the server keeps it."""


def conversation_of(
    *,
    meta: Mapping[str, object],
    headers: Mapping[str, str],
    legacy_session: bool,
    process: str = "",
    principal: str = "",
) -> Conversation:
    """The conversation of a request: the first that it names of hint, principal, session, process; else none.

    ``headers`` have lower-case names. ``legacy_session``: the transport has checked the session header. ``process``
    names the one client of a transport that has only one (stdio), and is empty elsewhere.
    """
    for kind, hint in (("header", headers.get(CONVERSATION_HEADER)), *((key, meta.get(key)) for key in META_KEYS)):
        if isinstance(hint, str) and hint.strip():
            return Conversation(f"{kind}:{_bounded(hint.strip())}", principal)
    if principal:
        return Conversation("principal", principal)
    session = headers.get(SESSION_HEADER, "") if legacy_session else ""
    if session:
        return Conversation(f"session:{_bounded(session)}")
    return Conversation(f"process:{process}" if process else "")


def _bounded(hint: str) -> str:
    if len(hint) <= MAX_KEPT_CHARS:
        return hint
    return "sha256:" + hashlib.sha256(hint.encode("utf-8", "surrogatepass")).hexdigest()
