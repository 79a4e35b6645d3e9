"""Runs the official conformance suite, and the Inspector's command line, with the node of `.node/`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.baseline import Check, Outcomes

NODE_DIR = Path(__file__).parents[2] / ".node"
"""Where `make conformance` installs the packages that `node/package.json` names."""

SUITE_BOUND_S = 90.0
"""For all scenarios against one target in one version; alone on two cores it takes 5 to 13 s."""

INSPECTOR_BOUND_S = 60.0
"""For one call, with the start of the server over stdio; alone it takes 1 to 4 s."""

_RESULT = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


class NotInstalled(Exception):
    """The node packages are not there: `make conformance` installs them."""


@dataclass(frozen=True, slots=True)
class NodeTools:
    """``node`` is the one that the tools need, whatever the machine has."""

    node: Path
    scripts: Path

    @classmethod
    def installed(cls, place: Path = NODE_DIR) -> NodeTools:
        """Raises NotInstalled."""
        nodes = list(place.glob("node_modules/node-linux-*/bin/node"))
        if len(nodes) != 1:
            raise NotInstalled(
                f"{place} holds {len(nodes)} programs named node instead of one: run `make conformance`."
            )
        return cls(nodes[0], place / "node_modules" / ".bin")

    def command(self, tool: str, *arguments: str) -> list[str]:
        return [str(self.node), str(self.scripts / tool), *arguments]


def scenarios(tools: NodeTools, version: str) -> set[str]:
    """Those that the suite has for servers in a version of the protocol."""
    command = tools.command("conformance", "list", "--server", "--spec-version", version)
    listed = subprocess.run(command, capture_output=True, text=True, timeout=SUITE_BOUND_S, check=True).stdout
    return set(re.findall(r"^ +- (\S+)", listed, re.MULTILINE))


def play(tools: NodeTools, url: str, version: str, results: Path) -> Outcomes:
    """Play every scenario of a version against the server at `url`. `results` is an empty directory for its records."""
    command = tools.command(
        "conformance", "server", "--url", url, "--suite", "all", "--spec-version", version, "--output-dir", str(results)
    )
    # Its status is about failed checks, of which the records say more.
    subprocess.run(command, capture_output=True, timeout=SUITE_BOUND_S, check=False)
    outcomes = {}
    for directory in sorted(results.iterdir()):
        named = _RESULT.fullmatch(directory.name)
        assert named is not None, f"the suite's record {directory.name} is not named as expected"
        checks = json.loads((directory / "checks.json").read_text(encoding="utf-8"))
        outcomes[named["scenario"]] = [
            Check(check["id"], check["status"], check.get("errorMessage") or check["description"]) for check in checks
        ]
    return outcomes


# -- the Inspector --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the Inspector answered: its exit status, its JSON, and what it complained about."""

    status: int
    answer: dict[str, Any]
    complaints: str


def inspect(tools: NodeTools, home: Path, *arguments: str) -> Inspected:
    """One call of the Inspector. It keeps state of its own in `home`, which is otherwise that of whoever runs it."""
    done = subprocess.run(
        tools.command("inspector", "--cli", "--format", "json", "--quiet", *arguments),
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=INSPECTOR_BOUND_S,
        check=False,
    )
    return Inspected(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)
