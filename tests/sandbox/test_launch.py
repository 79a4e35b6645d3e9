"""Interpreters that the host starts, and how it ends them."""

from __future__ import annotations

import os
import select
import sys

import pytest

from mcp_server.sandbox import launch

FORKS = "import os, sys, time\npid = os.fork()\nif pid: os.write(int(sys.argv[1]), b'%d' % pid)\ntime.sleep(1000)"
PATIENCE_MS = 10_000


@pytest.mark.anyio
async def test_what_is_killed_as_it_starts_leaves_no_child_behind() -> None:
    reading, writing = os.pipe()
    started = launch.start([sys.executable, "-c", FORKS, str(writing)], {}, (writing,))
    os.close(writing)
    child = os.pidfd_open(int(os.read(reading, 20)))
    os.close(reading)
    started.kill()
    end = await started.ended
    assert end.status == -9
    gone = select.poll()
    gone.register(child, select.POLLIN)
    assert gone.poll(PATIENCE_MS)
    os.close(child)
    started.kill()  # and nothing happens
