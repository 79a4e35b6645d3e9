"""Where figures go that `run` has nobody to show to."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from mcp_server.errors import SetupFailed
from mcp_server.figures import ImageShelf
from mcp_server.model import DisplayChunk, Representation
from tests.cli.test_command_line import run

# The smallest PNG that there is: one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)

SHOWS_TWO = f"""
class Picture:
    def _repr_png_(self):
        import base64
        return base64.b64decode({base64.b64encode(PIXEL).decode()!r})

display(Picture())
print("between")
Picture()
"""


def image(data: bytes = PIXEL, mime: str = "image/png") -> DisplayChunk:
    return DisplayChunk(False, (Representation("text/plain", b"<it>"), Representation(mime, data)))


def test_images_are_saved_in_order_and_the_person_is_told_where(tmp_path: Path) -> None:
    done = run("--images", str(tmp_path / "new" / "figures"), "-c", SHOWS_TWO)
    assert done.returncode == 0
    saved = sorted((tmp_path / "new" / "figures").iterdir())
    assert [path.name for path in saved] == ["image-1.png", "image-2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [str(path) for path in saved]
    assert "between" in done.stdout


def test_without_a_directory_it_is_said_once_how_to_keep_them() -> None:
    done = run("-c", SHOWS_TWO)
    assert done.stderr == "mcp-code-interpreter: --images DIR saves figures as files\n"


def test_each_kind_of_image_gets_its_suffix_and_other_values_are_none(tmp_path: Path) -> None:
    shelf = ImageShelf(tmp_path)
    assert shelf.take(DisplayChunk(True, (Representation("text/plain", b"42"),))) == ""
    assert "image-1.svg" in shelf.take(image(b"<svg/>", "image/svg+xml"))
    assert "image-2.jpg: 93 bytes" in shelf.take(image(PIXEL.ljust(93, b"\0"), "image/jpeg"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image-1.svg", "image-2.jpg"]


def test_an_image_that_cannot_be_written_is_told_and_ends_nothing(tmp_path: Path) -> None:
    shelf = ImageShelf(tmp_path)
    (tmp_path / "image-1.png").mkdir()
    assert "image-1.png could not be written: Is a directory" in shelf.take(image())
    assert "image-2.png" in shelf.take(image())


def test_a_directory_that_cannot_be_made_stops_the_start() -> None:
    with pytest.raises(SetupFailed, match="--images /proc/nowhere: "):
        ImageShelf(Path("/proc/nowhere"))
