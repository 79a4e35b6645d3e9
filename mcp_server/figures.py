"""Where `mcp-code-interpreter run` puts what code draws: files in a directory, or a word that there was something."""

from __future__ import annotations

from pathlib import Path

from mcp_server.errors import SetupFailed
from mcp_server.model import DisplayChunk, Representation

_SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
}


class ImageShelf:
    """Takes images as they are shown, and numbers them from 1. Files of the same name are replaced."""

    def __init__(self, directory: Path | None = None) -> None:
        """Make the directory where it is missing. Raises SetupFailed with the reason."""
        self._directory = directory
        self._count = 0
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SetupFailed(f"--images {directory}: {error.strerror}.") from None

    def take(self, chunk: DisplayChunk) -> str:
        """Keep the chunk's image, if it has one. Gives a line for the person at the terminal, empty for none."""
        image = next((part for part in chunk.representations if part.mime in _SUFFIXES), None)
        if image is None:
            return ""
        self._count += 1
        if self._directory is None:
            return "mcp-code-interpreter: --images DIR saves figures as files" if self._count == 1 else ""
        path = self._directory / f"image-{self._count}{_SUFFIXES[image.mime]}"
        return _saved(path, image)


def _saved(path: Path, image: Representation) -> str:
    try:
        path.write_bytes(image.data)
    except OSError as error:
        return f"mcp-code-interpreter: {path} could not be written: {error.strerror}"
    return f"mcp-code-interpreter: {path}: {len(image.data):,} bytes"
