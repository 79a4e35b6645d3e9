"""What code calls to show an image or a value in other libraries: it arrives as `display` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_process import WorkerProcess

FUNCTIONS = """
def display(*objs, **options): print(*objs)
class DisplayHandle:
    def __init__(self, display_id=None): self.display_id = display_id or 'made'
    def update(self, obj): display(obj, display_id=self.display_id, update=True)
__all__ = ['display', 'DisplayHandle']
"""
"""The part of IPython's module that matters: outside of its shell, it prints."""

NOTEBOOK = {"__init__.py": "", "display.py": "from IPython.core.display_functions import *\n"}


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker that finds an IPython."""
    core = tmp_path / "IPython" / "core"
    core.mkdir(parents=True)
    (core / "__init__.py").touch()
    (core / "display_functions.py").write_text(FUNCTIONS)
    for name, text in NOTEBOOK.items():
        (core.parent / name).write_text(text)
    with WorkerProcess(cwd=str(tmp_path)) as process:
        yield process


@pytest.mark.parametrize("code", ["image.show()", "image.show(title='seen')", "ImageShow.show(image)"])
def test_pillow_shows_images(worker: WorkerProcess, code: str) -> None:
    setup = "from PIL import Image, ImageShow\nimage = Image.new('RGB', (3, 2))\n"
    run = worker.run(setup + code + "\nNone")
    assert run.stdout == b""
    assert [shown.alts["image/png"] for shown in run.shown] == ["image 3×2 RGB"]


def test_pillow_shows_images_where_it_was_loaded_before_the_context() -> None:
    with WorkerProcess("PIL.ImageShow") as early:
        assert len(early.run("from PIL import Image\nImage.new('L', (1, 1)).show()").shown) == 1


@pytest.mark.parametrize("origin", ["IPython.display", "IPython.core.display_functions"])
def test_the_display_of_ipython_shows(notebook: WorkerProcess, origin: str) -> None:
    run = notebook.run(f"from {origin} import display\ndisplay(1, 'two', metadata={{}})")
    assert run.stdout == b""
    assert [(shown.text, shown.is_result) for shown in run.shown] == [("1", False), ("'two'", False)]


def test_what_a_handle_of_ipython_updates_is_shown_again(notebook: WorkerProcess) -> None:
    code = (
        "from IPython.display import display\nhandle = display(1, display_id={})\nhandle.update(2)\nhandle.display_id"
    )
    assert [shown.text for shown in notebook.run(code.format(True)).shown] == ["1", "2", "'made'"]
    assert [shown.text for shown in notebook.run(code.format("'mine'")).shown] == ["1", "2", "'mine'"]
