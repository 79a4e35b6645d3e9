"""Reports of real situations, each a file beside this one that a person can read.

UPDATE_GOLDEN=1 pytest tests/golden     writes them anew; read the difference before committing it
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mcp_server.shaping.report import compose
from tests.golden.capture import CODES
from tests.golden.situations import SITUATIONS, Situation

DIRECTORY = Path(__file__).parent
RECORD = "──────── machine record ────────"
IMAGES = "──────── images ────────"


def rendered(situation: Situation) -> str:
    report = compose(situation.record(), situation.budget_chars)
    assert len(report.text) <= situation.budget_chars
    parts = [f"── {situation.about} Budget: {situation.budget_chars:,} characters.", "", report.text, ""]
    if report.images:
        parts += [IMAGES, *(f"{image.mime}, {len(image.data):,} bytes: {image.alt}" for image in report.images)]
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in report.record.items()]
    return "\n".join([*parts, RECORD, *fields, ""])


@pytest.mark.parametrize("name", SITUATIONS)
def test_report_is_the_golden_one(name: str) -> None:
    path = DIRECTORY / f"{name}.txt"
    text = rendered(SITUATIONS[name])
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_bytes().decode()


def test_each_golden_file_has_its_situation() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.txt")} == set(SITUATIONS)
    assert len(SITUATIONS) >= 40


def test_each_captured_file_has_its_code() -> None:
    captured = {path.stem: json.loads(path.read_text())["code"] for path in (DIRECTORY / "captured").glob("*.json")}
    assert captured == {name: code.strip("\n") for name, code in CODES.items()}
