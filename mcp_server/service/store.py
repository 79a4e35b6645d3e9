"""What is stored of a run, so that nothing is lost that its reports leave out."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from mcp_server.engine.base import RunOutputs
from mcp_server.model import DisplayChunk, OutputChunk, Representation, ResourceLink, StoredOutput, Stream
from mcp_server.shaping.window import ShapedText

SHOWN_IN_REPORTS = frozenset(("text/plain", "text/markdown", "image/png", "image/jpeg"))
"""What a model reads or sees itself. Everything else becomes a file."""

LATE = "late"
"""The name of what came before a run, after earlier ones had ended: beside `stdout` and `stderr`."""

_EXTENSIONS = {"text/latex": ".tex"}

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Late:
    """What a context printed between runs: to be shown, and as it came, with a line for what was too much to keep."""

    text: ShapedText
    data: bytes
    complete: bool


class RunStore:
    """Stores through an engine's `RunOutputs`, where there is one. What fails is given up, logged, and never named."""

    def __init__(self, outputs: RunOutputs | None) -> None:
        self._outputs = outputs
        self._shown = 0
        self._late: StoredOutput | None = None
        self.links: list[ResourceLink] = []

    def take(self, chunk: OutputChunk) -> None:
        self._try(lambda outputs: outputs.take(chunk.stream, chunk.data))

    def put(self, display: DisplayChunk) -> DisplayChunk:
        """The display, each form of it that a report cannot show now naming its file."""
        if all(form.mime in SHOWN_IN_REPORTS for form in display.representations):
            return display
        self._shown += 1
        return replace(display, representations=tuple(map(self._put_form, display.representations)))

    def keep(self, stream: Stream) -> StoredOutput | None:
        """Where all of a stream is, now that a report must leave some of it out."""
        stored = self._try(lambda outputs: outputs.keep(stream))
        if stored is not None:
            self._link(stored, stream.value, "text/plain", None)
        return stored

    def keep_late(self, late: Late) -> StoredOutput | None:
        """Where all of what came before the run is."""
        if self._late is None:
            self._late = self._try(lambda outputs: outputs.put(LATE, late.data))
            if self._late is not None:
                self._late = replace(self._late, complete=late.complete)
                self._link(self._late, LATE, "text/plain", len(late.data))
        return self._late

    def finish(self) -> None:
        self._try(lambda outputs: outputs.finish())

    def close(self) -> None:
        self._try(lambda outputs: outputs.close())

    def remove(self) -> None:
        self._try(lambda outputs: outputs.remove())

    def _put_form(self, form: Representation) -> Representation:
        if form.mime in SHOWN_IN_REPORTS:
            return form
        mime = form.mime.partition(";")[0]
        extension = _EXTENSIONS.get(mime) or mimetypes.guess_extension(mime) or _extension_of_data(mime)
        name = f"shown-{self._shown}{extension}"
        stored = self._try(lambda outputs: outputs.put(name, form.data))
        if stored is None:
            return form
        self._link(stored, name, mime, len(form.data))
        return replace(form, path=stored.path)

    def _link(self, stored: StoredOutput, name: str, mime: str, size_bytes: int | None) -> None:
        link = ResourceLink(stored.uri, name, mime, size_bytes)
        if link not in self.links:
            self.links.append(link)

    def _try(self, action: Callable[[RunOutputs], T]) -> T | None:
        outputs = self._outputs
        if outputs is None:
            return None
        try:
            return action(outputs)
        except OSError as error:
            _log.warning("outputs.given_up", reason=error.strerror)
            self._outputs = None
            with suppress(OSError):
                outputs.remove()
            return None


def _extension_of_data(mime: str) -> str:
    return ".json" if mime.endswith("json") else ".bin"
