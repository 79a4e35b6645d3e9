"""What tests ask of what a run has shown."""

from __future__ import annotations

import io

import PIL.Image

from tests.worker.worker_process import Run, Shown


def only(run: Run) -> Shown:
    assert run.status == "ok", run.end
    (shown,) = run.shown
    return shown


def image_size(data: bytes) -> tuple[int, int]:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return image.size
