"""What a crash leaves in the state directory goes with the next cell, and what is somebody's stays."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from mcp_server.worker import statedir, trees
from mcp_server.worker.frames import TAGS_PER_CELL

FIRST_TAG = 1 << 61
"""No cell's."""


@pytest.fixture
def cell_dir(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cell-0"


def make(cell_dir: Path) -> int:
    lock = statedir.make_cell_dir(str(cell_dir), FIRST_TAG)
    (cell_dir / "s1" / "work").mkdir(parents=True)
    (cell_dir / "s1" / "work" / "file").write_text("of a context")
    return lock


def clear(cell_dir: Path) -> None:
    statedir.clear_stale(str(cell_dir.parent), TAGS_PER_CELL, list)


def test_the_directory_of_a_cell_that_lives_stays(cell_dir: Path) -> None:
    lock = make(cell_dir)
    clear(cell_dir)
    assert (cell_dir / "s1" / "work" / "file").exists()
    os.close(lock)
    clear(cell_dir)
    assert list(cell_dir.parent.iterdir()) == []


def test_a_removal_that_was_cut_short_is_finished(cell_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(make(cell_dir))

    def die(path: str) -> None:
        os.unlink(os.path.join(path, "lock"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trees, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            statedir.remove_cell_dir(str(cell_dir))
    assert list(cell_dir.parent.iterdir()) != []
    clear(cell_dir)
    assert list(cell_dir.parent.iterdir()) == []


def test_a_removal_under_way_is_left_to_who_does_it(cell_dir: Path) -> None:
    gone = cell_dir.parent / "gone-cell-0"
    gone.mkdir(parents=True)
    held = os.open(gone, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    clear(cell_dir)
    assert gone.exists()
    os.close(held)
    clear(cell_dir)
    assert not gone.exists()


def test_a_directory_that_is_gone_already_passes(cell_dir: Path) -> None:
    statedir.remove_cell_dir(str(cell_dir))
    clear(cell_dir)
