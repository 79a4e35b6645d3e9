"""With the zygote's memory behind a file nothing that lies in it changes, and processes keep theirs apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BEGIN = """
import ctypes, gc, json, mmap, os, sys, threading
from mcp_server.worker.backing import Backing

def mapped(access):
    sizes = 0
    for line in open("/proc/self/maps"):
        place, present, *_ = line.split()
        if "memfd:zygote" in line and present == access:
            start, _, end = place.partition("-")
            sizes += int(end, 16) - int(start, 16)
    return sizes

def made(salt):
    return [b"%d of %d" % (number, salt) for number in range(200_000)] + [bytes(90_000) + b"%d" % salt] * 20

def in_child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def change(things):
    things[:] = [b"changed"] * len(things)
    del things[::2]
    gc.collect()
    assert made(3) == made(3)

backing = Backing()
"""

needs_64_bits = pytest.mark.skipif(sys.maxsize < 2**32, reason="elsewhere nothing is put behind a file")


def printed(program: str, **environment: str) -> Any:
    command, around = [sys.executable, "-c", BEGIN + program], {**os.environ, **environment}
    done = subprocess.run(command, env=around, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_64_bits
def test_a_heap_behind_the_file_holds_what_it_held_and_forks_keep_theirs_apart() -> None:
    shared_before, private_before, shared, private, held = printed("""
backing.take_room()
sizes = [mapped("rw-s"), mapped("rw-p")]
things = made(1)
kept = os.dup(backing._file)
backing.give_back()
backing.seal()
sizes += [mapped("rw-s"), mapped("rw-p"), os.fstat(kept).st_blocks * 512]
os.close(kept)
assert things == made(1)
in_child(lambda: change(things))
assert things == made(1)
more = made(2)
in_child(lambda: change(more))
assert (things, more) == (made(1), made(2))
json.dump(sizes, sys.stdout)
""")
    assert (private_before, shared) == (0, 0)
    assert shared_before > 40 * 2**20
    assert 5 * 2**20 < private < shared_before
    assert held <= private  # what the allocators have handed back is given back


@needs_64_bits
def test_a_module_that_forks_while_it_is_loaded_changes_nothing_here() -> None:
    shared, private = printed("""
backing.take_room()
things = made(1)
in_child(lambda: change(things))
assert things == made(1)
sizes = [mapped("rw-s"), mapped("rw-p")]
backing.give_back()
backing.seal()
assert things == made(1)
json.dump(sizes, sys.stdout)
""")
    assert shared == 0
    assert private > 40 * 2**20


@needs_64_bits
def test_the_file_can_be_changed_by_nobody_once_it_is_sealed() -> None:
    refused = printed("""
backing.take_room()
kept = os.dup(backing._file)
things = made(1)
backing.seal()

def is_refused(work):
    try:
        work()
    except OSError as error:
        return error.strerror
    return ""

json.dump([
    is_refused(lambda: os.pwrite(kept, b"x", 0)),
    is_refused(lambda: os.truncate(kept, 0)),
    is_refused(lambda: mmap.mmap(kept, 4096, mmap.MAP_SHARED)),
], sys.stdout)
""")
    assert refused == ["Operation not permitted"] * 3


LIBRARY = """
backing.take_room()
import sqlite3, _sqlite3
place = ctypes.c_void_p.in_dll(ctypes.CDLL(_sqlite3.__file__), "sqlite3_temp_directory")
place.value = 4321

def is_behind_the_file():
    for line in open("/proc/self/maps"):
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= ctypes.addressof(place) < int(end, 16):
            return "memfd:zygote" in line

def change_it():
    place.value = None
    assert sqlite3.connect(":memory:").execute("select 1 + 1").fetchone() == (2,)
"""


@needs_64_bits
def test_the_data_of_libraries_stays_what_it_was_and_forks_keep_theirs_apart() -> None:
    before, after = printed(
        LIBRARY
        + """
before = is_behind_the_file()
backing.seal()
assert place.value == 4321
in_child(change_it)
assert place.value == 4321
change_it()
json.dump([before, is_behind_the_file()], sys.stdout)
"""
    )
    assert (before, after) == (False, True)


@needs_64_bits
def test_the_data_of_a_library_that_guards_some_of_it_stays_where_it_is() -> None:
    assert not printed(
        LIBRARY
        + """
page = ctypes.addressof(place) // mmap.PAGESIZE * mmap.PAGESIZE
protect = ctypes.CDLL(None).mprotect
assert protect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
backing.seal()
assert protect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE) == 0
json.dump(is_behind_the_file(), sys.stdout)
"""
    )


@needs_64_bits
def test_the_data_of_libraries_stays_where_it_is_while_other_threads_may_write_to_it() -> None:
    assert not printed(
        LIBRARY
        + """
threading.Thread(target=threading.Event().wait, daemon=True).start()
backing.seal()
json.dump(is_behind_the_file(), sys.stdout)
"""
    )


@needs_64_bits
def test_where_no_such_file_can_be_had_nothing_changes() -> None:
    assert printed("""
def refuse(*_):
    raise PermissionError(13, "Permission denied")

os.memfd_create = refuse
backing.take_room()
things = made(1)
backing.give_back()
backing.seal()
assert things == made(1)
json.dump([mapped("rw-s"), mapped("rw-p")], sys.stdout)
""") == [0, 0]


@needs_64_bits
@pytest.mark.parametrize("allocator", ["malloc", "debug"])
def test_with_another_allocator_nothing_is_lost(allocator: str) -> None:
    assert (
        printed(
            """
backing.take_room()
things = made(1)
in_child(lambda: change(things))
backing.give_back()
backing.seal()
in_child(lambda: change(things))
assert things == made(1)
json.dump(mapped("rw-s"), sys.stdout)
""",
            PYTHONMALLOC=allocator,
        )
        == 0
    )


@needs_64_bits
@pytest.mark.parametrize("mebibytes", [0, 8])
def test_where_the_kernel_refuses_the_file_all_stays_as_it_was_and_that_is_said(mebibytes: int) -> None:
    obstacle, shared = printed(f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({mebibytes} << 20, resource.RLIM_INFINITY))
backing.take_room()
things = made(1)
backing.give_back()
backing.seal()
in_child(lambda: change(things))
assert things == made(1)
json.dump([backing.obstacle, mapped("rw-s")], sys.stdout)
""")
    assert (obstacle, shared) == ("[Errno 27] File too large", 0)
