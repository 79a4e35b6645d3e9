"""What the fixtures answer with: the smallest picture and sound there are, and a line of text."""

from __future__ import annotations

import base64
import struct
import zlib

from mcp_types import AudioContent, CallToolResult, ContentBlock, ImageContent, TextContent


def text(line: str) -> TextContent:
    return TextContent(text=line)


def answer(*content: ContentBlock) -> CallToolResult:
    return CallToolResult(content=list(content))


def picture() -> ImageContent:
    return ImageContent(data=base64.b64encode(RED_PIXEL).decode("ascii"), mime_type="image/png")


def sound() -> AudioContent:
    return AudioContent(data=base64.b64encode(_silence()).decode("ascii"), mime_type="audio/wav")


def _red_pixel() -> bytes:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)  # one by one, eight bits of red, green and blue
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0\xff\0\0")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _silence() -> bytes:
    """No samples at all: mono, 8 kHz, eight bits."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8_000, 8_000, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", 0)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


RED_PIXEL = _red_pixel()
