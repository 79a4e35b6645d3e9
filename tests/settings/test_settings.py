"""What can be set, and what a wrong setting gets."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from mcp_server.errors import SetupFailed
from mcp_server.flags import shown_default
from mcp_server.settings import Settings, flag_of, variable_of

README = Path(__file__).parents[2] / "README.md"


def test_the_defaults_are_those_that_were_promised() -> None:
    settings = Settings.load()
    assert settings.max_output_chars == 9_000
    assert settings.timeout_s == 600
    assert settings.wait_s == 50
    assert settings.idle_expiry_s == 3_600
    assert (settings.contexts_per_conversation, settings.contexts) == (64, 1_000)
    assert settings.python == sys.executable
    assert settings.preload == ("numpy", "pandas", "matplotlib")
    assert settings.allow_unsandboxed is False


def test_the_environment_sets_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_INTERPRETER_WAIT_S", "7")
    monkeypatch.setenv("CODE_INTERPRETER_TIMEOUT_S", "70")
    settings = Settings.load(wait_s="9", timeout_s=None)
    assert (settings.wait_s, settings.timeout_s) == (9.0, 70.0)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().wait_s = 3.0


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("numpy", ("numpy",)), (" numpy , os.path ,", ("numpy", "os.path"))]
)
def test_modules_to_preload_are_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    assert Settings.load(preload=text).preload == names


@pytest.mark.parametrize(("text", "count"), [("512MiB", 512 * 1024 * 1024), ("1GB", 10**9), ("268435456", 1 << 28)])
def test_sizes_take_units(text: str, count: int) -> None:
    assert Settings.load(memory_bytes=text).memory_bytes == count


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("timeout_s", "-3", "--timeout-s is '-3': input should be greater than or equal to 0."),
        ("timeout_s", "nan", "--timeout-s is 'nan': input should be less than or equal to 604800."),
        ("memory_bytes", "12x", "--memory-bytes is '12x': could not interpret byte unit: x."),
        ("memory_bytes", "1MiB", "--memory-bytes is '1MiB': input should be greater than or equal to 134217728."),
        ("preload", "os, a b", "--preload is 'os, a b': 'a b' is no module name."),
        ("log_level", "loud", "--log-level is 'loud': input should be 'debug', 'info', 'warning' or 'error'."),
        ("contexts", "0", "--contexts is '0': input should be greater than or equal to 1."),
        ("hash_seed", "-1", "--hash-seed is '-1': input should be greater than or equal to 0."),
        ("time_zone", "Mars/X", "--time-zone is 'Mars/X': there is no such time zone on this machine."),
        ("time_zone", "../etc/passwd", "--time-zone is '../etc/passwd': there is no such time zone on this machine."),
        ("min_sandbox", "none", "--min-sandbox is 'none': input should be 'strong', 'strong-cell' or 'standard'."),
    ],
)
def test_a_wrong_value_is_told_in_one_line_that_names_the_flag(name: str, text: str, line: str) -> None:
    with pytest.raises(SetupFailed) as caught:
        Settings.load(**{name: text})
    assert str(caught.value) == line


def test_a_wrong_variable_is_named_and_cannot_paint_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_INTERPRETER_WAIT_S", "\x1b[31m" + "9" * 500 + "!")
    with pytest.raises(SetupFailed) as caught:
        Settings.load()
    line = str(caught.value)
    assert line.startswith("CODE_INTERPRETER_WAIT_S is '\\x1b[31m999")
    assert line.isprintable()
    assert len(line) < 200


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_INTERPRETER_TIMOUT_S", "5")
    with pytest.raises(SetupFailed, match="did you mean CODE_INTERPRETER_TIMEOUT_S"):
        Settings.load()


def test_the_readme_lists_every_setting_with_its_flag_variable_and_default() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", README.read_text(), re.MULTILINE)
    expected = [
        (
            flag_of(name),
            variable_of(name),
            f"`{default}`" if (default := shown_default(name, info)) else "",
            info.description,
        )
        for name, info in Settings.model_fields.items()
    ]
    assert rows == expected
