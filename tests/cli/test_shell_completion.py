"""Completion as bash does it: its own function for the command, called with what has been typed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcp.server_processes import BOUND_S

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

NAME = "mcp-code-interpreter"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory into which the command has installed its completion for bash."""
    home = tmp_path_factory.mktemp("home")
    command = home / "bin" / NAME
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom mcp_server.cli import main\n\nmain()\n")
    command.chmod(0o755)
    env = {**os.environ, "HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run([command, "--install-completion", "bash"], env=env, check=True, timeout=BOUND_S, capture_output=True)
    assert (home / ".bash_completions" / f"{NAME}.sh").is_file()
    assert NAME in (home / ".bashrc").read_text()
    return home


def offered(home: Path, *words: str) -> list[str]:
    """What bash offers for the last word, by the function that `complete` says is the command's."""
    typed = " ".join(shlex.quote(word) for word in words)
    script = f"""
        source ~/.bashrc
        function=$(complete -p {NAME} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=({NAME} {typed}); COMP_CWORD={len(words)}
        $function {NAME}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=BOUND_S, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_flags_are_completed(home: Path) -> None:
    assert offered(home, "ser") == ["serve"]
    assert offered(home, "run", "--max-out") == ["--max-output-chars"]
    assert offered(home, "serve", "--tok") == ["--tokens"]


@pytest.mark.parametrize(
    ("flag", "typed", "values"),
    [
        ("--min-sandbox", "str", ["strong", "strong-cell"]),
        ("--log-level", "", ["debug", "info", "warning", "error"]),
        ("--log-format", "j", ["json"]),
    ],
)
def test_a_setting_with_few_values_offers_them(home: Path, flag: str, typed: str, values: list[str]) -> None:
    assert offered(home, "serve", flag, typed) == values


def test_files_are_left_to_the_shell(home: Path) -> None:
    script = f"source ~/.bashrc; complete -p {NAME}"
    env = {**os.environ, "HOME": str(home)}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=BOUND_S, check=True)
    assert "-o default" in done.stdout
    assert offered(home, "run", "--workspace", "/et") == []
    assert offered(home, "run", "./scr") == []
