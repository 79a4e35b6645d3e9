"""The tables of `actions`, held in every tier that this machine offers, as each kind of user that a server may be."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from mcp_server.sandbox.launch import OWN_FLAGS, find_bubblewrap
from mcp_server.sandbox.launch import command as launch_command
from mcp_server.sandbox.policy import FIRST_CELL_UID, OWN_VIEW, Tier
from mcp_server.sandbox.probe import GAPS, NEEDED, ProbeResult, probe
from tests.security.actions import HOSTILE, MUST_WORK, Action

ROOT = Path(__file__).resolve().parents[2]
NEEDED_FILES = ("mcp_server", "tests/security", "tools/syscall_numbers.tsv")

SYSTEM_PYTHON = "/usr/bin/python3"
"""One that every user can reach, wherever the tests' own lies."""

SUITE_TIMEOUT_S = 110
SETPRIV = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all")
LOCKDOWN = (SYSTEM_PYTHON, "tests/security/lockdown.py")


@dataclass(frozen=True, slots=True)
class Place:
    """A tier, and whom the server runs as there. `wrapper` takes the rights away."""

    identity: str
    tier: Tier
    python: str
    wrapper: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.tier} as {self.identity}"


def places() -> list[Place]:
    """Those that are worth trying: what a wrapper takes, nobody but root can take."""
    both, standard = (Tier.STRONG, Tier.STANDARD), (Tier.STANDARD,)
    for_bwrap = Place("a user for whom bwrap must build", Tier.STRONG_CELL, SYSTEM_PYTHON, (*LOCKDOWN, "bwrap"))
    if os.geteuid() != 0:
        mine = [Place("an ordinary user", tier, sys.executable) for tier in both]
        return [*mine, for_bwrap, Place("a locked-down user", Tier.STANDARD, SYSTEM_PYTHON, (*LOCKDOWN, "user"))]
    return [
        for_bwrap,
        *(Place("root", tier, sys.executable) for tier in both),
        *(Place("an ordinary user", tier, SYSTEM_PYTHON, SETPRIV) for tier in both),
        *(Place("locked-down root", tier, SYSTEM_PYTHON, (*LOCKDOWN, "root")) for tier in standard),
        *(Place("a locked-down user", tier, SYSTEM_PYTHON, (*LOCKDOWN, "user")) for tier in standard),
    ]


@functools.cache
def machine() -> ProbeResult:
    return probe()


@functools.cache
def offered(wrapper: tuple[str, ...], python: str) -> Mapping[str, bool]:
    """Which layers work for whom a wrapper leaves less."""
    argument = json.dumps({"bubblewrap": find_bubblewrap(), "first_id": FIRST_CELL_UID})
    command = [*wrapper, *launch_command(python, "trials:main", argument, flags=OWN_FLAGS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    return {name: bool(outcome["works"]) for name, outcome in json.loads(done.stdout).items()}


@contextmanager
def tree_for_everyone() -> Iterator[Path]:
    """The source tree where any user can read it, with what the engine needs beside the standard library."""
    with tempfile.TemporaryDirectory(prefix="mcp-tree-") as directory:
        tree = Path(directory)
        tree.chmod(0o755)
        for name in NEEDED_FILES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, tree / name)
        shutil.copytree(Path(structlog.__file__).parent, tree / "structlog")
        subprocess.run(["chmod", "-R", "a+rX", str(tree)], check=True)
        yield tree


@functools.cache
def run_all(place: Place) -> subprocess.CompletedProcess[str]:
    """Every action once, in a process of its own."""
    names = json.dumps([action.name for action in (*HOSTILE, *MUST_WORK)])
    with tree_for_everyone() as tree:
        inside = ("env", f"PYTHONPATH={tree}", place.python, "-m", "tests.security.hostile_host", place.tier)
        command = ["timeout", str(SUITE_TIMEOUT_S), *place.wrapper, *inside]
        return subprocess.run(command, input=names, capture_output=True, text=True, cwd=tree, check=False)


def results(place: Place) -> dict[str, Any]:
    """What became of every action there. Skips where the machine does not offer it."""
    if place.python == SYSTEM_PYTHON:
        asked = [SYSTEM_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if not os.path.exists(SYSTEM_PYTHON) or subprocess.run(asked, check=False).returncode:
            pytest.skip(f"{SYSTEM_PYTHON}, which every user can reach, is missing or older than 3.11")
    works = offered(place.wrapper, place.python)
    if not all(works.get(layer, machine().works(layer)) for layer in NEEDED[place.tier] if layer != "id_range"):
        pytest.skip(f"this machine does not offer the tier {place.tier}")
    done = run_all(place)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(table: tuple[Action, ...]) -> pytest.MarkDecorator:
    pairs = [(place, action) for place in places() for action in table]
    return pytest.mark.parametrize(
        ("place", "action"), pairs, ids=[f"{place}: {action.name}" for place, action in pairs]
    )


@rows(HOSTILE)
def test_what_is_tried_is_held(place: Place, action: Action) -> None:
    result = results(place)[action.name]
    if action.watched and result["watchdog"] and (place.tier not in OWN_VIEW or not action.gap):
        assert (result["status"], result["state"]) == action.watched, result["error"]
    else:
        assert result["word"] == action.wanted(place.tier), result["error"]
        assert (result["status"], result["state"]) == (action.status, action.state), result["error"]
    assert result["damage"] == []
    assert not result["leaked"]
    assert result["survivors"] == [], "processes outlived their context"
    assert result["usable"], "the context cannot be used afterwards"


@rows(MUST_WORK)
def test_what_honest_code_needs_works(place: Place, action: Action) -> None:
    result = results(place)[action.name]
    assert result["word"] == action.wanted(place.tier), result["error"]
    assert result["status"] == "ok", result["error"]
    assert result["damage"] == []
    assert result["usable"]


def test_the_table_has_no_two_rows_of_one_name() -> None:
    names = [action.name for action in (*HOSTILE, *MUST_WORK)]
    assert len(names) == len(set(names))
    assert len(HOSTILE) >= 60


def test_every_difference_between_tiers_is_a_gap_that_is_said_in_words() -> None:
    for action in (*HOSTILE, *MUST_WORK):
        for tier, word in action.want.items():
            assert word != action.word
            assert any(action.gap in sentence for sentence in GAPS[Tier(tier)]), action.name
        assert bool(action.gap) >= bool(action.want), action.name
