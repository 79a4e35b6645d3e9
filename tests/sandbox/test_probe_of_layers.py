"""Which tier a machine gets is decided by what was tried there, and what is missing is said with its mend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.errors import SetupFailed
from mcp_server.sandbox.launch import BOOTSTRAP, WORKER_DIR
from mcp_server.sandbox.mends import Surroundings, mend
from mcp_server.sandbox.policy import FIRST_CELL_UID, Tier
from mcp_server.sandbox.probe import GAPS, LAYERS, NEEDED, ProbeResult, best_tier, judge, probe, refusal, rows

ROOT = Path(__file__).resolve().parents[2]
LOCKDOWN = ROOT / "tests" / "security" / "lockdown.py"
NOWHERE = Surroundings()
EVERY_LAYER = dict.fromkeys(LAYERS, True)

SYSTEM_PYTHON = "/usr/bin/python3"
"""One that an ordinary user can reach, wherever the tests' own lies."""


def without(*names: str) -> dict[str, bool]:
    return {**EVERY_LAYER, **dict.fromkeys(names, False)}


def result_of(works: dict[str, bool], around: Surroundings = NOWHERE) -> ProbeResult:
    error = "call: Operation not permitted"
    outcomes = {name: {"works": ok, "error": "" if ok else error, "detail": ""} for name, ok in works.items()}
    return judge(outcomes, around)


TABLE = [
    ("everything works", EVERY_LAYER, Tier.STRONG),
    ("an ordinary user, who maps no ids", {k: v for k, v in EVERY_LAYER.items() if k != "id_range"}, Tier.STRONG),
    ("no cgroup", without("memory_group"), Tier.STRONG),
    ("no bwrap and no Landlock", without("bubblewrap", "bubblewrap_capabilities", "landlock"), Tier.STRONG),
    ("root that may not map ids, for whom bwrap is no help", without("id_range", "bubblewrap"), Tier.STANDARD),
    ("AppArmor takes capabilities, but not bwrap's", without("mounts", "user_namespace", "rooms"), Tier.STRONG_CELL),
    ("the same on an old kernel", without("mounts", "user_namespace", "rooms", "landlock"), Tier.STRONG_CELL),
    ("masked /proc", without("pid_namespace", "rooms", "bubblewrap"), Tier.STANDARD),
    (
        "a container",
        without("user_namespace", "mounts", "pid_namespace", "network_namespace", "rooms", "bubblewrap"),
        Tier.STANDARD,
    ),
    ("a container on an old kernel", without("user_namespace", "rooms", "bubblewrap", "landlock"), Tier.NONE),
    ("no system call filter", without("seccomp"), Tier.NONE),
    ("no openat2", without("openat2"), Tier.NONE),
    ("no pidfd", without("pidfd"), Tier.NONE),
    ("nothing was tried", {}, Tier.NONE),
]


@pytest.mark.parametrize(("works", "tier"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_tier_follows_from_the_layers(works: dict[str, bool], tier: Tier) -> None:
    assert best_tier(works) is tier


@given(st.dictionaries(st.sampled_from(sorted(LAYERS)), st.booleans()))
def test_a_tier_is_never_given_without_a_layer_that_it_needs(works: dict[str, bool]) -> None:
    tier = best_tier(works)
    assert all(works.get(name, name == "id_range") for name in NEEDED[tier])


@given(st.dictionaries(st.sampled_from(sorted(LAYERS)), st.booleans()), st.sampled_from(sorted(LAYERS)))
def test_one_more_layer_never_makes_the_tier_worse(works: dict[str, bool], name: str) -> None:
    order = list(NEEDED)
    assert order.index(best_tier({**works, name: True})) <= order.index(best_tier({**works, name: False}))


@given(st.dictionaries(st.sampled_from(sorted(LAYERS)), st.booleans()), st.sampled_from(list(Tier)))
def test_a_refused_tier_names_every_layer_that_failed_and_its_mend(works: dict[str, bool], least: Tier) -> None:
    result = result_of({**EVERY_LAYER, **works})
    text = refusal(result, least)
    assert (text == "") == (list(NEEDED).index(result.tier) <= list(NEEDED).index(least))
    if text:
        for layer in result.layers:
            if layer.name in NEEDED[least] and not layer.works:
                assert LAYERS[layer.name] in text
                assert layer.error in text
                assert layer.mend in text


def test_the_table_has_a_row_for_every_layer_with_a_mend_where_it_fails() -> None:
    table = rows(result_of(dict.fromkeys(LAYERS, False)))
    assert [row.layer for row in table] == list(LAYERS.values())
    assert all(row.mend and row.detail == "call: Operation not permitted" for row in table)
    assert all(not row.mend for row in rows(result_of(EVERY_LAYER)))


def test_every_tier_says_what_it_does_not_hold() -> None:
    assert set(GAPS) == set(NEEDED) == set(Tier)
    assert not GAPS[Tier.STRONG]
    assert all(GAPS[tier] for tier in Tier if tier is not Tier.STRONG)


MENDS = [
    ("user_namespace", Surroundings(userns_most=0), "sysctl -w user.max_user_namespaces=15000"),
    ("user_namespace", Surroundings(userns_clone=0), "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("mounts", Surroundings(container=True), "--security-opt seccomp=unconfined"),
    ("pid_namespace", Surroundings(container=True), "--security-opt systempaths=unconfined"),
    (
        "mounts",
        Surroundings(userns_apparmor=1, python="/opt/p/bin/python3"),
        "profile mcp-code-interpreter /opt/p/bin/python3",
    ),
    ("mounts", Surroundings(userns_apparmor=1), "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("rooms", Surroundings(), "CONFIG_USER_NS"),
    ("id_range", Surroundings(root=True), "SETUID"),
    ("landlock", Surroundings(kernel="6.8.0-40-generic"), "6.8.0-40-generic"),
    ("landlock", Surroundings(), "lsm="),
    ("openat2", Surroundings(kernel="5.4"), "5.6"),
    ("openat2", Surroundings(kernel="6.1"), "RestrictSUIDSGID"),
    ("memory_group", Surroundings(), "systemd-run --user --scope -p Delegate=yes"),
    ("memory_group", Surroundings(container=True), "--memory 8g"),
]


@pytest.mark.parametrize(("layer", "around", "expected"), MENDS)
def test_the_mend_is_the_exact_command_or_setting(layer: str, around: Surroundings, expected: str) -> None:
    assert expected in mend(layer, "Operation not permitted", around)


def test_a_missing_bwrap_is_mended_by_its_package() -> None:
    assert "apt-get install bubblewrap" in mend("bubblewrap", "bwrap is not on the PATH", Surroundings(container=True))
    assert "--security-opt" in mend("bubblewrap", "bwrap: No permissions", Surroundings(container=True))


def test_a_bwrap_that_cannot_do_it_is_mended_by_a_newer_one_or_another_user() -> None:
    assert "0.8 or newer" in mend("bubblewrap", "bwrap: Unknown option --disable-userns", Surroundings())
    refused = "bwrap: in a cell of bwrap's, what root started could change the host's settings"
    assert "ordinary user" in mend("bubblewrap", refused, Surroundings(root=True))


def test_every_layer_is_tried_here_and_each_failure_has_the_kernels_text() -> None:
    result = probe()
    names = [layer.name for layer in result.layers]
    assert names == [name for name in LAYERS if name != "id_range" or os.geteuid() == 0]
    for layer in result.layers:
        assert layer.works == (not layer.error) == (not layer.mend), layer


def test_an_interpreter_that_cannot_be_started_is_a_setup_failure() -> None:
    with pytest.raises(SetupFailed, match="/nonexistent/python"):
        probe("/nonexistent/python")
    with pytest.raises(SetupFailed, match="cannot be run with /bin/false"):
        probe("/bin/false")


def tried_as(*wrapper: str) -> ProbeResult:
    """What the trials give in a process that a wrapper has taken rights from."""
    argument = json.dumps({"bubblewrap": shutil.which("bwrap") or "", "first_id": FIRST_CELL_UID})
    inside = [SYSTEM_PYTHON, "-I", "-S", "-c", BOOTSTRAP, str(WORKER_DIR), "trials:main", argument]
    done = subprocess.run([*wrapper, *inside], capture_output=True, text=True, timeout=60, check=True)
    works = {"works": True, "error": "", "detail": ""}
    return judge({**json.loads(done.stdout), "openat2": works}, Surroundings(container=True))


def identities() -> list[str]:
    return ["root", "user"] if os.geteuid() == 0 else ["user"]


needs_system_python = pytest.mark.skipif(
    not Path(SYSTEM_PYTHON).exists(), reason=f"{SYSTEM_PYTHON} is the one that every user can reach"
)


@needs_system_python
@pytest.mark.parametrize("identity", identities())
def test_a_locked_down_container_gets_standard_and_is_told_what_is_missing(identity: str) -> None:
    result = tried_as(SYSTEM_PYTHON, str(LOCKDOWN), identity)
    layers = {layer.name: layer for layer in result.layers}
    for name in ("user_namespace", "mounts", "pid_namespace", "network_namespace", "rooms"):
        assert layers[name].error.startswith("unshare(0x10000000): Operation not permitted")
        assert "--security-opt seccomp=unconfined" in layers[name].mend
    assert not layers["bubblewrap"].works
    assert layers["seccomp"].works
    assert ("id_range" in layers) == (identity == "root")
    assert result.tier is (Tier.STANDARD if layers["landlock"].works else Tier.NONE)
    assert "--security-opt seccomp=unconfined" in refusal(result, Tier.STRONG)


@needs_system_python
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_where_bwrap_alone_can_build_a_cell_it_does() -> None:
    result = tried_as(SYSTEM_PYTHON, str(LOCKDOWN), "bwrap")
    if not result.works("bubblewrap"):
        pytest.skip("bwrap builds no cell here")
    assert not result.works("mounts")
    assert result.tier is Tier.STRONG_CELL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is root")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_bwrap_is_never_used_for_root() -> None:
    layer = next(layer for layer in probe().layers if layer.name == "bubblewrap")
    assert not layer.works
    assert layer.error.startswith("bwrap: ")


@needs_system_python
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_an_ordinary_user_needs_no_range_of_ids() -> None:
    setpriv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]
    mine, theirs = tried_as(), tried_as(*setpriv)
    assert "id_range" not in [layer.name for layer in theirs.layers]
    if theirs.works("user_namespace"):
        assert theirs.tier is mine.tier
