"""The texts that models read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcp_server import prompts
from mcp_server.arguments import MODELS
from mcp_server.errors import SetupFailed
from mcp_server.model import EngineCapabilities
from mcp_server.prompts import (
    MAX_PATH_CHARS,
    MAX_TEXT_CHARS,
    PICKED_NAMES,
    TOOL_NAMES,
    Facts,
    Texts,
    duration,
    load,
    size,
)
from mcp_server.sandbox.policy import OWN_VIEW, Tier
from mcp_server.sandbox.probe import GAPS
from mcp_server.settings import Settings

SOURCE = Path(prompts.__file__).parent.parent / "prompts"

OTHER_WORDS = {
    *("ok", "error", "timeout", "interrupted", "cancelled", "out_of_memory", "crashed", "running", "queued", "idle"),
    *("df.head()", "!cmd", "await", "input()", "exit()", "interrupt=true", "except", "fractions", "decimal"),
}
"""What stands in code quotes and is neither a tool nor an argument: statuses and Python."""


def facts(**changes: object) -> Facts:
    settings = Settings.model_validate(changes)
    capabilities = EngineCapabilities("local", "strong", outputs=True, images=True)
    return Facts(settings, capabilities, "3.12.1", ("numpy", "pandas", "matplotlib"))


def every(texts: Texts) -> dict[str, str]:
    picked = {prompt.name: "\n\n".join(prompt.paragraphs) for prompt in texts.picked}
    return {"instructions": texts.instructions, **texts.tools, **picked}


def fullest() -> list[Facts]:
    """The longest that the texts can become, for each tier."""
    settings = Settings(workspace="/" + "d" * (MAX_PATH_CHARS - 1), timeout_s=86_399.5)
    return [
        Facts(settings, EngineCapabilities("local", tier, missing=gaps), "3.13.11", settings.preload)
        for tier, gaps in GAPS.items()
    ]


def test_every_text_stays_within_what_clients_show() -> None:
    for each in [facts(), *fullest()]:
        for name, text in every(load(each)).items():
            assert 0 < len(text.encode()) <= MAX_TEXT_CHARS, (name, each.capabilities.tier, len(text.encode()))


@pytest.mark.parametrize("name", ["instructions", "run_code"])
def test_a_directory_of_the_users_is_named_where_it_has_another_name_inside(name: str) -> None:
    settings = Settings(workspace="/home/ann/laps:ro")
    for tier in GAPS:
        text = every(load(Facts(settings, EngineCapabilities("local", tier, missing=GAPS[tier]), "3.12.1")))[name]
        assert ("the user's /home/ann/laps, which is /work here: they can read it and not change it" in text) is (
            tier in OWN_VIEW
        )


def test_a_path_is_told_whole_and_a_long_one_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"the user's {tmp_path}, which" in every(load(facts(workspace=".")))["run_code"]
    long = "/" + "d" * MAX_PATH_CHARS
    assert "Contexts work in a directory of the user's own:" in every(load(facts(workspace=long)))["run_code"]


def test_nothing_is_left_to_be_filled() -> None:
    for name, text in every(load(facts())).items():
        assert name in PICKED_NAMES or "$" not in text
        assert not re.search(r"\S  ", text)


def test_each_text_names_only_real_tools_and_arguments() -> None:
    real = set(MODELS) | {name for model in MODELS.values() for name in model.model_fields} | OTHER_WORDS
    for name, text in every(load(facts())).items():
        named = set(re.findall(r"`([^`]+)`", text))
        assert named <= real, (name, named - real)


def test_each_tool_has_a_text_and_each_file_is_used() -> None:
    assert set(TOOL_NAMES) == set(MODELS)
    assert {path.stem for path in SOURCE.glob("*.md")} == {"instructions", *TOOL_NAMES}
    assert {path.stem for path in SOURCE.glob("picked/*.md")} == set(PICKED_NAMES)


def test_what_a_tool_is_for_and_when_it_is_not_is_told_where_every_client_shows_it() -> None:
    """Some clients give the model the descriptions of tools and not the server's instructions."""
    tools = load(facts()).tools
    for name, when_not in [
        ("run_code", "not for changing the user's project"),
        ("create_context", "For ordinary work the default context of `run_code` is enough"),
        ("list_contexts", "The default context of `run_code` is not listed"),
        ("delete_context", "cannot be deleted"),
    ]:
        assert when_not in " ".join(tools[name].split())


def test_the_limits_in_force_are_told() -> None:
    told = load(facts(timeout_s=90, wait_s=7, memory_bytes="512MiB", max_output_chars=1_234, idle_expiry_s=7200))
    assert "90 s" in told.tools["run_code"]
    assert "512 MiB" in told.tools["run_code"]
    assert "1,234" in told.tools["run_code"]
    assert "7 s" in told.instructions
    assert "2 h" in told.tools["create_context"]
    assert "2 h without use" in told.tools["run_code"]
    assert "numpy, pandas, matplotlib" in told.tools["run_code"]
    assert "Python 3.12.1" in told.tools["run_code"]


def test_a_sandbox_is_told_with_its_gaps_and_none_is_told_plainly() -> None:
    by_tier = {each.capabilities.tier: load(each).instructions for each in fullest()}
    assert "NOT isolated" in by_tier[Tier.NONE]
    for tier in (Tier.STRONG_CELL, Tier.STANDARD):
        for gap in GAPS[tier]:
            assert gap in by_tier[tier]


def test_texts_of_a_wheel_are_found_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = tmp_path / "_prompts"
    (mapped / "picked").mkdir(parents=True)
    for path in SOURCE.rglob("*.md"):
        (mapped / path.relative_to(SOURCE)).write_text(path.read_text() + "\nfrom the wheel")
    monkeypatch.setattr(prompts, "_PLACES", (mapped, tmp_path / "nowhere"))
    assert load(facts()).instructions.endswith("from the wheel")


def test_an_installation_without_its_texts_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "_PLACES", (tmp_path,))
    with pytest.raises(SetupFailed, match=r"prompts/instructions\.md is missing"):
        load(facts())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.5, "1.5 s"), (90, "90 s"), (120, "2 min"), (3600, "60 min"), (7200, "2 h"), (7260, "121 min")],
)
def test_durations_are_told_without_a_fraction_where_there_is_none(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(1000, "1,000 bytes"), (1536, "1,536 bytes"), (1 << 20, "1 MiB"), (4 << 30, "4 GiB")]
)
def test_sizes_are_told_in_the_largest_unit_that_is_exact(count: int, text: str) -> None:
    assert size(count) == text
