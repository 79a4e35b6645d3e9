"""Who may import whom. The contracts themselves are in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mcp_server

PACKAGE = Path(mcp_server.__file__).parent
WORKER = PACKAGE / "worker"


def imported(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import in a file, wherever it stands."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.extend((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("path", sorted(WORKER.rglob("*.py")), ids=lambda path: path.name)
def test_the_worker_imports_the_standard_library_and_its_own_house_alone(path: Path) -> None:
    depth = len(path.relative_to(WORKER).parts)
    for level, module in imported(path):
        if level == 0:
            root = module.partition(".")[0]
            assert root in sys.stdlib_module_names or root in PROVIDED_BY_USERS, f"{path.name} imports {module}"
        else:
            assert level <= depth, f"{path.name} imports from above worker/"


def test_the_workers_floor_plan_names_every_module() -> None:
    plan = set(re.findall(r"[a-z_]+", ast.get_docstring(ast.parse((WORKER / "__init__.py").read_text())) or ""))
    assert {path.stem for path in WORKER.glob("*.py")} - {"__init__"} <= plan


PROVIDED_BY_USERS = {"matplotlib", "numpy", "pandas", "PIL"}
"""Only where the user's own code has loaded them: to show their values."""


@pytest.mark.parametrize("path", sorted(WORKER.rglob("*.py")), ids=lambda path: path.name)
def test_modules_of_users_are_imported_inside_functions_alone(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] in sys.stdlib_module_names


def test_the_contracts_hold() -> None:
    pytest.importorskip("importlinter", reason="comes with the extra `check`")
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=PACKAGE.parent,
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
