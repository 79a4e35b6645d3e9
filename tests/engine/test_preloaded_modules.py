"""What the zygote has imported is ready in every context, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.memory import worker_pids
from benchmarks.processes import own_bytes
from mcp_server.engine.local import LocalEngine
from mcp_server.model import ContextSpec, EngineCapabilities, RunRequest, Status
from mcp_server.sandbox import probe
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan, Tier, environment_for
from tests.bench import Bench, Listener

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def best_tier() -> Tier:
    return Tier(probe.probe(sys.executable).tier)


@pytest.fixture(params=["the best tier of this machine", "none"])
async def warm_bench(
    request: pytest.FixtureRequest, best_tier: Tier, tmp_path: Path
) -> AsyncIterator[tuple[Bench, Cell]]:
    tier = Tier.NONE if request.param == "none" else best_tier
    plan = CellPlan(
        sys.executable,
        str(tmp_path / "state"),
        tier,
        preload=("pandas", "matplotlib"),
        environment=environment_for(sys.executable, {}),
    )
    cells: list[Cell] = []

    def new_cell() -> Cell:
        cells.append(Cell(plan))
        return cells[-1]

    engine = LocalEngine(new_cell, EngineCapabilities("local", tier))
    await engine.start()
    late = Listener()
    yield Bench(engine, (await engine.create(ContextSpec("sbx_warm"), late)).context_id, late), cells[0]
    await engine.close()


@pytest.mark.anyio
async def test_matplotlib_is_warm_in_a_context_and_leaves_nothing_behind(warm_bench: tuple[Bench, Cell]) -> None:
    bench, cell = warm_bench
    assert cell.warmth is not None
    assert cell.warmth.failed == {}
    assert cell.warmth.threads == 1
    seen = "import os, sys\n'matplotlib.pyplot' in sys.modules, os.listdir(os.environ['HOME'])"
    outcome, heard = await bench.run(seen)
    assert outcome.status is Status.OK
    loaded, files = json.loads(
        heard.result().replace("(", "[").replace(")", "]").replace("True", "true").replace("'", '"')
    )
    assert loaded
    assert [name for name in files if name.startswith(".")] == []


@pytest.mark.anyio
async def test_the_first_figure_of_a_context_has_the_first_number(warm_bench: tuple[Bench, Cell]) -> None:
    bench, _ = warm_bench
    _, heard = await bench.run("import matplotlib.pyplot as plt\nplt.get_fignums(), plt.subplots()[0].number")
    images = [form.mime for chunk in heard.chunks for form in getattr(chunk, "representations", ())]
    assert "image/png" in images
    assert heard.result() == "([], 1)"


@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="a context's memory can be looked into by root alone")
async def test_a_context_that_has_run_little_owns_little_memory(warm_bench: tuple[Bench, Cell]) -> None:
    bench, _ = warm_bench
    late = Listener()
    other = Bench(bench.engine, (await bench.engine.create(ContextSpec("sbx_warm"), late)).context_id, late)
    for one in (bench, other):  # what a single context has mapped of the zygote's file would count as its own
        await one.run("x = 1")
    (pid,) = worker_pids(bench.engine, [bench.context_id])
    assert own_bytes(pid) < 4 * 2**20  # 2.7 MiB at the time; 5.3 before the zygote's heap was packed


@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="a context's memory can be looked into by root alone")
async def test_contexts_share_memory_through_a_file_that_nobody_has_open(warm_bench: tuple[Bench, Cell]) -> None:
    bench, _ = warm_bench
    (pid,) = worker_pids(bench.engine, [bench.context_id])
    (zygote,) = re.findall(r"PPid:\s+(\d+)", _of_process(pid, "status"))
    for process in (pid, int(zygote)):
        mapped = [line for line in _of_process(process, "maps").splitlines() if "memfd:zygote" in line]
        assert {line.split()[1] for line in mapped} == {"rw-p"}  # to write to copies
        assert not any("memfd:zygote" in file for file in _open_files(process))


def _of_process(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def _open_files(pid: int) -> list[str]:
    return [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_package_that_fails_half_way_is_imported_anew_by_the_code(tmp_path: Path) -> None:
    package = tmp_path / "fragile"
    package.mkdir()
    (package / "__init__.py").write_text("from . import half\nimport colorsys\nopen('/needed/later')")
    (package / "half.py").write_text("")
    program = (
        "import json, sys\n"
        "from mcp_server.worker import preload\n"
        "facts = preload.warm(['fragile'])\n"
        "left = [name for name in sys.modules if name.startswith('fragile')]\n"
        "print(json.dumps([facts['preloaded'], list(facts['failed']), left, 'colorsys' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == [[], ["fragile"], [], True]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "draw", ["random.random()", "random.gauss(0, 1)", "numpy.random.rand()", "numpy.random.standard_normal()"]
)
async def test_contexts_of_one_zygote_draw_different_random_numbers(warm_bench: tuple[Bench, Cell], draw: str) -> None:
    bench, _ = warm_bench
    drawn = set()
    for _ in range(3):
        info = await bench.engine.create(ContextSpec("sbx_warm"), Listener())
        heard = Listener()
        outcome = await bench.engine.execute(info.context_id, RunRequest(1, f"import numpy, random\n{draw}"), heard)
        assert outcome.status is Status.OK
        drawn.add(heard.result())
    assert len(drawn) == 3


FORKED = """
import os, random, signal, threading, logging, concurrent.futures, multiprocessing
ready, handler = threading.Event(), logging.StreamHandler()

def hold():
    with handler.lock:
        ready.set()
        threading.Event().wait(30)

threading.Thread(target=hold, daemon=True).start()
ready.wait()
reading, writing = os.pipe()
pid = os.fork()
if not pid:
    signal.alarm(10)
    handler.acquire()  # a thread of the parent's holds it
    told = (len(threading.enumerate()), threading.current_thread() is threading.main_thread(), random.random())
    os.write(writing, repr(told).encode())
    os._exit(0)
os.close(writing)
os.waitpid(pid, 0)
threads, is_main, drawn = eval(os.read(reading, 1000))
with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context('fork')) as pool:
    powers = list(pool.map(pow, (2, 3), (3, 2)))
threads, is_main, drawn != random.random(), powers, os.register_at_fork.__module__
"""


@pytest.mark.anyio
async def test_forks_of_a_context_repair_what_its_threads_leave_behind(warm_bench: tuple[Bench, Cell]) -> None:
    bench, _ = warm_bench
    outcome, heard = await bench.run(FORKED)
    assert outcome.status is Status.OK, outcome.error
    assert heard.result() == "(1, True, True, [8, 9], 'posix')"


@pytest.mark.anyio
async def test_the_main_thread_of_a_context_knows_its_number(warm_bench: tuple[Bench, Cell]) -> None:
    bench, _ = warm_bench
    _, heard = await bench.run("import os, threading\nthreading.main_thread().native_id == os.getpid()")
    assert heard.result() == "True"
