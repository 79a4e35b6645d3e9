"""Settings that stand in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.errors import SetupFailed
from mcp_server.settings import Settings


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own file: its place, with nothing in it yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "mcp-code-interpreter" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def test_the_users_own_file_is_read_where_there_is_one(file: Path) -> None:
    assert Settings.load().wait_s == 50
    file.write_text('wait_s = 7\nmemory_bytes = "512MiB"\npreload = ["numpy", "os.path"]\nallow_unsandboxed = true\n')
    settings = Settings.load()
    assert (settings.wait_s, settings.memory_bytes, settings.allow_unsandboxed) == (7.0, 512 * 1024 * 1024, True)
    assert settings.preload == ("numpy", "os.path")


def test_flags_win_over_variables_and_these_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("wait_s = 1\ntimeout_s = 1\nidle_expiry_s = 1\n")
    monkeypatch.setenv("CODE_INTERPRETER_WAIT_S", "2")
    monkeypatch.setenv("CODE_INTERPRETER_TIMEOUT_S", "2")
    settings = Settings.load(wait_s="3")
    assert (settings.wait_s, settings.timeout_s, settings.idle_expiry_s) == (3, 2, 1)


def test_a_file_that_is_named_stands_in_for_the_users_own(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("wait_s = 1\ntimeout_s = 1\n")
    (tmp_path / "by_variable.toml").write_text("wait_s = 2\n")
    (tmp_path / "by_flag.toml").write_text("wait_s = 3\n")
    monkeypatch.setenv("CODE_INTERPRETER_CONFIG", str(tmp_path / "by_variable.toml"))
    assert (Settings.load().wait_s, Settings.load().timeout_s) == (2, 600)
    assert Settings.load(config=str(tmp_path / "by_flag.toml")).wait_s == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wait_s = -1", "wait_s in {file} is '-1': input should be greater than or equal to 0."),
        ("max-output-chars = 1", "max-output-chars in {file} is no setting; did you mean max_output_chars?"),
        ("[wait]\ns = 1", "wait in {file} is no setting; did you mean wait_s?"),
        ("zebras = 3", "zebras in {file} is no setting; the README lists all settings."),
        ("wait_s = ", "{file} cannot be read: Invalid value (at end of document)."),
    ],
)
def test_what_is_wrong_in_it_is_told_in_one_line_that_names_the_file(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(SetupFailed) as caught:
        Settings.load()
    assert str(caught.value) == said.format(file=file)


def test_bytes_that_are_no_text_are_told_in_one_line(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SetupFailed, match="cannot be read"):
        Settings.load()


def test_a_wrong_flag_is_still_told_as_a_flag(file: Path) -> None:
    file.write_text("wait_s = 1\n")
    with pytest.raises(SetupFailed, match=r"^--wait-s is 'soon'"):
        Settings.load(wait_s="soon")


def test_a_file_that_was_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupFailed, match=r"^--config '/nowhere.toml': there is no such file."):
        Settings.load(config="/nowhere.toml")
    monkeypatch.setenv("CODE_INTERPRETER_CONFIG", "/nowhere.toml")
    with pytest.raises(SetupFailed, match=r"^CODE_INTERPRETER_CONFIG '/nowhere.toml'"):
        Settings.load()


def test_the_command_line_takes_it_before_and_after_the_commands_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('preload = ""\ntimeout_s = 0.3\n')
    program = [sys.executable, "-m", "mcp_server.cli"]
    for arguments in (["--config", str(path), "run"], ["run", "--config", str(path)]):
        command = [*program, *arguments, "-c", "while True: pass"]
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 124
