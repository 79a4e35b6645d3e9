"""A worker of its own for each test, or one for a whole file where no test can harm the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_process import WorkerProcess


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(cwd=str(tmp_path)) as process:
        yield process


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess(cwd=str(tmp_path_factory.mktemp("work"))) as process:
        yield process


@pytest.fixture(scope="module")
def plotting() -> Iterator[WorkerProcess]:
    with WorkerProcess("numpy", "pandas", "matplotlib.pyplot", "PIL.Image") as process:
        process.run("import numpy as np, pandas as pd, matplotlib.pyplot as plt\nfrom PIL import Image")
        yield process
