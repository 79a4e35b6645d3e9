"""Where the user's own files are, for users who have a home and for those who have none."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from mcp_server import user_dirs
from mcp_server.composition import cell_plan
from mcp_server.errors import SetupFailed
from mcp_server.sandbox.policy import Tier
from mcp_server.sandbox.probe import ProbeResult
from mcp_server.settings import Settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom no table knows, as services and containers have them."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def state_dir_in(tier: Tier, state_dir: str = "") -> str:
    return cell_plan(Settings.load(state_dir=state_dir), ProbeResult((), tier)).state_dir


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_needs_none_where_files_are_in_memory() -> None:
    assert Settings.load().preload  # there is no file of settings, and none is missed
    assert not Path(state_dir_in(Tier.STRONG)).is_dir()


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("tier", [Tier.STRONG_CELL, Tier.STANDARD, Tier.NONE])
def test_a_user_without_a_home_is_asked_for_a_place_where_files_need_one(tier: Tier) -> None:
    with pytest.raises(SetupFailed, match=r"no home directory: give --state-dir"):
        state_dir_in(tier)
    assert state_dir_in(tier, "/srv/state") == "/srv/state"


@pytest.mark.usefixtures("homeless")
def test_a_tilde_that_stands_for_nothing_is_said() -> None:
    with pytest.raises(SetupFailed, match=r"^'~/x': there is no home directory that its ~ could stand for\.$"):
        state_dir_in(Tier.STANDARD, "~/x")


def test_variables_name_the_places_and_home_where_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/one")
    assert user_dirs.config_dir() == Path("/home/one/.config/mcp-code-interpreter")
    assert state_dir_in(Tier.STANDARD) == "/home/one/.local/state/mcp-code-interpreter"
    assert state_dir_in(Tier.STANDARD, "~/x") == "/home/one/x"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/one")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # the specification has it ignored
    assert user_dirs.config_dir() == Path("/etc/one/mcp-code-interpreter")
    assert state_dir_in(Tier.STANDARD) == "/home/one/.local/state/mcp-code-interpreter"
