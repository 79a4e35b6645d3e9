"""The worker is a closed house: it needs the standard library alone, and syntax that old interpreters know."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from mcp_server.worker import frames

MODULES = sorted(Path(frames.__file__).parent.glob("*.py"))
SYNTAX_FLOOR = (3, 9)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_imports_the_standard_library_or_its_neighbours(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, f"{module.name} looks out of its house"
            names = []
        else:
            continue
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_keeps_to_the_syntax_floor(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=SYNTAX_FLOOR)
    futures = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    ]
    annotated = [node for node in ast.walk(tree) if isinstance(node, (ast.AnnAssign, ast.FunctionDef))]
    assert not annotated or "annotations" in futures


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_short_enough_to_be_read(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400
