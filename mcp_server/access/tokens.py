"""Bearers of a token from a file: one principal a line.

    # NAME TOKEN, or a token alone, which is then named by its digest
    ann  3NqP0v…
    bob  gk28Tz…

Two lines of one name are two tokens of one principal, so that a token can be replaced without a gap.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from mcp_server.errors import SetupFailed

MIN_TOKEN_CHARS = 16
"""A shorter one can be guessed by trying."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

DIGEST_CHARS = 16
"""64 bits of a token's digest name its bearer in logs and owners without giving the token away."""

_log = structlog.get_logger(__name__)


class TokenFile:
    """The tokens, and whose they are.

    They are looked up by a digest with a key of this process's own: whoever measures how long an answer takes learns
    nothing about the tokens, since the digests of what it tries cannot be known.
    """

    def __init__(self, path: Path) -> None:
        """Raises SetupFailed with what is wrong with the file."""
        self._path = path
        self._key = secrets.token_bytes(32)
        self._names = self._read()

    def principal(self, token: str) -> str | None:
        """The name of its bearer; None where the token is not in the file."""
        return self._names.get(self._digest(token))

    def reload(self) -> None:
        """Read the file again. Where it has become unusable, the log says why and what was read before holds on."""
        try:
            self._names = self._read()
        except SetupFailed as error:
            _log.error("tokens.kept", reason=str(error))  # its place says nothing
        else:
            _log.info("tokens.loaded", principals=len(set(self._names.values())))

    def _read(self) -> dict[bytes, str]:
        return {self._digest(token): name for name, token in parse(self._path, _private_lines(self._path))}

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode("utf-8", "surrogateescape"), "sha256")


def parse(path: Path, lines: Iterable[str]) -> list[tuple[str, str]]:
    """Names and tokens. Raises SetupFailed, which names the line and never shows it."""
    found: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        *names, token = fields
        if len(names) > 1:
            raise SetupFailed(f"The token file {path}, line {number}: write a name and a token, or a token alone.")
        if names and not NAME.fullmatch(names[0]):
            raise SetupFailed(
                f"The token file {path}, line {number}: a name has up to 64 letters, digits and the signs . _ @ -"
            )
        if len(token) < MIN_TOKEN_CHARS:
            raise SetupFailed(
                f"The token file {path}, line {number}: the token has fewer than {MIN_TOKEN_CHARS} characters."
            )
        found.append((names[0] if names else _name_of(token), token))
    if not found:
        raise SetupFailed(f"The token file {path} holds no token. Write one into it, a line of its own.")
    if len({token for _, token in found}) < len(found):
        raise SetupFailed(f"The token file {path} holds one token twice: it could not be told whose it is.")
    return found


def _private_lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lines = file.readlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupFailed(f"The token file {path} cannot be read: {error}.") from error
    if mode & 0o077:
        raise SetupFailed(f"The token file {path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")
    return lines


def _name_of(token: str) -> str:
    return f"token-{hashlib.sha256(token.encode('utf-8', 'surrogateescape')).hexdigest()[:DIGEST_CHARS]}"
