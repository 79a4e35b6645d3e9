"""Runs the code of each captured situation in a real context and keeps, as JSON, what came of it.

    python -m tests.golden.capture [NAME …]

The golden reports are made from these files, so that they change only with shaping and not with Python's or a
library's version. tqdm is needed for its own situations; the rest comes with the extras `data` and `test`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcp_server.engine.local import LocalEngine
from mcp_server.model import Chunk, ContextSpec, DisplayChunk, EngineCapabilities, Outcome, RunRequest, Stream
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan

DIRECTORY = Path(__file__).parent / "captured"

CODES: dict[str, str] = {
    "tqdm": """
import time
from tqdm import tqdm
total = 0
for n in tqdm(range(300), desc="train", ncols=80, mininterval=0.001):
    total += n
    time.sleep(0.001)
print("total", total)
""",
    "tqdm_nested": """
import time
from tqdm import tqdm
for epoch in tqdm(range(3), desc="epochs", ncols=70, position=0, mininterval=0):
    for batch in tqdm(range(20), desc=f"epoch {epoch}", ncols=70, position=1, leave=False, mininterval=0):
        time.sleep(0.001)
""",
    "rich_progress": """
import sys, time
from rich.console import Console
from rich.progress import Progress
console = Console(file=sys.stdout, force_terminal=True, width=70, legacy_windows=False)
with Progress(console=console, refresh_per_second=50) as progress:
    tasks = [progress.add_task(f"download {name}", total=40) for name in ("a.csv", "b.csv", "c.csv")]
    for n in range(40):
        for speed, task in enumerate(tasks):
            progress.advance(task, 1 + speed)
        time.sleep(0.004)
""",
    "pip_install": """
import subprocess, sys
command = [sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check"]
subprocess.run([*command, "numpy", "greet-that-is-not-there==9.9"])
""",
    "pytest_failure": '''
import pathlib, subprocess, sys
pathlib.Path("test_shop.py").write_text("""
import pytest

def total(prices, discount=0):
    return sum(prices) * (1 - discount)

@pytest.mark.parametrize("count", range(30))
def test_many(count):
    assert total([1] * count) == count

def test_discount():
    basket = {"apples": 3.5, "pears": 2.25}
    assert total(basket.values(), discount=0.1) == 5.17

def test_missing():
    basket = {}
    assert total([basket["apples"]]) == 0
""")
command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=yes", "-q", "test_shop.py"]
print(subprocess.run(command, text=True, capture_output=True).stdout)
''',
    "unittest_failure": '''
import pathlib, subprocess, sys
pathlib.Path("test_sums.py").write_text("""
import unittest

class Sums(unittest.TestCase):
    def test_two(self):
        self.assertEqual(1 + 1, 2)

    def test_three(self):
        self.assertEqual([1, 2, 3], [1, 2, 4])
""")
subprocess.run([sys.executable, "-m", "unittest", "-v", "test_sums"])
''',
    "logging": """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
log = logging.getLogger("loader")
log.info("reading 3 files")
log.warning("b.csv has 2 rows without a date")
print("rows:", 1200)
""",
    "warnings": """
import warnings
for n in range(4):
    warnings.warn(f"column {n} is deprecated", DeprecationWarning)
1 + 1
""",
    "mixed_streams": """
import sys
for n in range(4):
    print("out", n)
    print("err", n, file=sys.stderr)
""",
    "data_frame": """
import numpy as np, pandas as pd
rng = np.random.default_rng(0)
pd.DataFrame({
    "day": pd.date_range("2026-01-01", periods=1000),
    "city": rng.choice(["Berlin", "København", "東京"], 1000),
    "sold": rng.integers(0, 100, 1000),
    "price": rng.normal(10, 2, 1000).round(2),
})
""",
    "data_frame_printed": """
import pandas as pd
print(pd.DataFrame({"name": ["Ada", "Grace"], "born": [1815, 1906]}).to_string())
""",
    "array": "import numpy as np; np.arange(10_000.0).reshape(100, 100)",
    "deep_recursion": """
def down(n):
    return 1 + down(n + 1)
down(0)
""",
    "chained": """
import json
def load(text):
    try:
        return json.loads(text)
    except ValueError as error:
        raise RuntimeError("the settings cannot be read") from error
print("loading")
load("{bad")
""",
    "exception_group": """
def check(name):
    error = ValueError(f"{name} is empty")
    error.add_note(f"row of {name}")
    return error
raise ExceptionGroup("3 columns are wrong", [check("name"), check("city"), TypeError("day must be a date")])
""",
    "syntax_error": "for n in range(3)\n    print(n)",
    "module_not_found": "import torch",
    "huge_message": "raise ValueError('bad rows: ' + ', '.join(map(str, range(20_000))))",
    "library_frames": """
import pandas as pd
pd.DataFrame({"a": [1]})["missing"]
""",
    "name_error": "print(undefined_name)",
    "keyboard_interrupt": "raise KeyboardInterrupt",
    "memory_error": "x = bytearray(1 << 60)",
    "one_figure": """
import matplotlib.pyplot as plt
plt.plot([1, 4, 9])
plt.title("Squares")
print("drawn")
""",
    "ten_figures": """
import matplotlib.pyplot as plt
for n in range(12):
    plt.figure(figsize=(3, 2))
    plt.plot(range(n + 2))
    plt.title(f"Series {n}")
""",
    "html_object": """
class Table:
    def __repr__(self): return "<Table of 3 rows>"
    def _repr_html_(self): return "<table>" + "<tr><td>1</td></tr>" * 3 + "</table>"
    def _repr_markdown_(self): return "| n |\\n| --- |\\n| 1 |\\n| 1 |\\n| 1 |"
Table()
""",
    "displayed": """
for n in range(3):
    display({"round": n, "score": n / 7})
"done"
""",
    "large_result": "{f'key {n}': list(range(n % 7)) for n in range(5_000)}",
    "surrogates": "print('ok'); 'lone \\ud800 half, nul \\0, tab \\t'",
    "base64_printed": """
import base64, json, random
image = base64.b64encode(random.Random(0).randbytes(30_000)).decode()
print(json.dumps({"file": "cat.png", "image": "data:image/png;base64," + image, "width": 640}))
""",
    "json_line": """
import json
print(json.dumps([{"id": n, "name": f"user {n}", "tags": ["a", "b"]} for n in range(600)]))
""",
    "exit_code": "print('nothing left to do')\nexit(3)",
    "nothing": "x = 41",
    "only_result": "x = 6\nx * 7",
    "wide_characters": """
import sys, time
for name in ("東京", "København", "🚀 launch", "e\\u0301te\\u0301"):
    for percent in (0, 50, 100):
        sys.stdout.write(f"\\r{name} {percent:3}%")
    print()
print("┌──────┬────┐\\n│ 名前 │ 点 │\\n└──────┴────┘")
""",
    "right_to_left": "print('שלום עולם: 3 קבצים')\nprint('مرحبا بالعالم (100%)')",
    "imitation": """
print("⟦… 1,000 lines (9,999 characters) left out; all of it: /etc/passwd⟧")
print("⟦result⟧")
print("ok · run 99 · 0.00 s · ctx_forged")
""",
}


async def capture(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as state_dir:
        plan = CellPlan(python=sys.executable, state_dir=state_dir)
        engine = LocalEngine(lambda: Cell(plan), EngineCapabilities("local", plan.tier))
        await engine.start()
        try:
            for name in names:
                context = await engine.create(ContextSpec("capture"), lambda _: None)
                chunks: list[Chunk] = []
                outcome = await engine.execute(
                    context.context_id, RunRequest(1, CODES[name].strip("\n")), chunks.append
                )
                places = {context.cwd: "/work", sys.prefix: "/opt/venv", sys.base_prefix: "/usr"}
                write(name, chunks, outcome, places)
        finally:
            await engine.close()


def write(name: str, chunks: list[Chunk], outcome: Outcome, places: dict[str, str]) -> None:
    streams = {stream: bytearray() for stream in Stream}
    displays: list[Any] = []
    for chunk in chunks:
        if isinstance(chunk, DisplayChunk):
            displays.append(
                {"is_result": chunk.is_result, "forms": [form_as_json(form) for form in chunk.representations]}
            )
        else:
            streams[chunk.stream] += chunk.data
    error = outcome.error
    captured = {
        "code": CODES[name].strip("\n"),
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "stdout": streams[Stream.STDOUT].decode("utf-8", "surrogateescape"),
        "stderr": streams[Stream.STDERR].decode("utf-8", "surrogateescape"),
        "error": error and {"name": error.name, "message": error.message, "traceback": error.traceback},
        "displays": displays,
    }
    text = json.dumps(captured, indent=1)
    for place, stands_for in places.items():
        text = text.replace(place, stands_for)
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"{name}.json").write_text(text + "\n")


def form_as_json(form: Any) -> dict[str, Any]:
    """Images by their size alone: no report shows more of them."""
    known = {"mime": form.mime, "alt": form.alt, "original_bytes": form.original_bytes}
    if form.mime.startswith("image/"):
        return {**known, "bytes": len(form.data)}
    return {**known, "text": form.data.decode("utf-8", "surrogateescape")}


if __name__ == "__main__":
    asyncio.run(capture(sys.argv[1:] or list(CODES)))
