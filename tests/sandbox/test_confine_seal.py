"""What a process can no longer do once it is sealed, seen from inside it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_server.sandbox.launch import WORKER_DIR
from mcp_server.worker import confine, linux
from tests.sandbox.cell_scenes import landlock_suffices

MIB = 1024 * 1024

SEALED = """
import json, sys
from importlib.util import module_from_spec, spec_from_file_location
directory, plan, code = sys.argv[1:]
spec = spec_from_file_location("inside", directory + "/__init__.py", submodule_search_locations=[directory])
sys.modules["inside"] = module_from_spec(spec)
from inside import confine
confine.seal(json.loads(plan))
exec(code)
"""

needs_landlock = pytest.mark.skipif(not landlock_suffices(), reason="this kernel's Landlock is older than ABI 6")


def plan_for(program: str, work: Path, **rlimits: int) -> dict[str, Any]:
    rules = {"write": [str(work), "/dev/null"], "read": ["/usr", "/lib", "/lib64", "/proc/self", sys.base_prefix]}
    return {
        "rlimits": {"DATA": 512 * MIB, "NOFILE": 64, **rlimits},
        "landlock": rules if program == "standard" else None,
        "seccomp": program,
        "something_of_another_layer": True,
    }


def run_sealed(plan: dict[str, Any], code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", SEALED, str(WORKER_DIR), json.dumps(plan), code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


def told(plan: dict[str, Any], code: str) -> Any:
    """What the code printed as JSON."""
    done = run_sealed(plan, "import json\n" + code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=["room", pytest.param("standard", marks=needs_landlock)])
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return plan_for(request.param, tmp_path)


STATUS = """
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status'))
status = {name: value.strip() for name, value in status.items()}
"""


def test_no_capability_is_left_in_any_set_and_none_can_come_back(plan: dict[str, Any]) -> None:
    status = told(plan, STATUS + "print(json.dumps(status))")
    sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert sets == dict.fromkeys(sets, 0)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has these to lose")
def test_root_loses_its_bounding_set_and_its_special_treatment(plan: dict[str, Any]) -> None:
    code = (
        STATUS
        + "import ctypes\nprint(json.dumps([int(status['CapBnd'], 16), ctypes.CDLL(None).prctl(27, 0, 0, 0, 0)]))"
    )
    assert told(plan, code) == [0, confine.SECUREBITS]


def test_a_program_that_is_executed_gets_no_capability_back(plan: dict[str, Any]) -> None:
    code = """
import subprocess, sys
inside = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))])"
print(json.dumps(subprocess.run([sys.executable, '-I', '-S', '-c', inside], capture_output=True, text=True).stdout))
"""
    assert told({**plan, "landlock": None}, code) == "['0000000000000000', '1']\n"


def test_limits_are_hard_and_only_go_down(plan: dict[str, Any]) -> None:
    plan["rlimits"].update(CPU=100, FSIZE=5 * MIB, STACK=16 * MIB)
    code = """
import resource as r
names = ('DATA', 'NOFILE', 'CPU', 'FSIZE', 'STACK', 'RTPRIO', 'NICE', 'CORE')
print(json.dumps({name: r.getrlimit(getattr(r, 'RLIMIT_' + name)) for name in names}))
"""
    limits = told(plan, code)
    assert limits["DATA"] == [512 * MIB] * 2
    assert limits["NOFILE"] == [64, 64]
    assert limits["CPU"] == [100, 100 + confine.CPU_GRACE_S]
    assert limits["FSIZE"] == [5 * MIB] * 2
    assert limits["STACK"] == [16 * MIB] * 2
    assert limits["RTPRIO"] == limits["NICE"] == [0, 0]
    assert max(limits["CORE"]) <= confine.NO_CORE


def test_a_limit_above_the_one_that_stands_leaves_that_one(tmp_path: Path) -> None:
    standing = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = "import resource as r\nprint(json.dumps(r.getrlimit(r.RLIMIT_NOFILE)))"
    assert told(plan_for("room", tmp_path, NOFILE=standing + 1000), code) == [standing, standing]


def test_a_raised_limit_is_refused(plan: dict[str, Any]) -> None:
    done = run_sealed(plan, "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (65, 65))")
    assert "ValueError: not allowed to raise maximum limit" in done.stderr


def test_the_tag_cannot_be_changed(plan: dict[str, Any]) -> None:
    """Neither lowered nor set to what it is, by either call."""
    code = """
import ctypes, errno, os, resource as r, struct
libc = ctypes.CDLL(None, use_errno=True)
new = struct.pack('QQ', 10**12, 10**12)
refused = []
for attempt in (lambda: libc.prlimit64(0, 15, new, None), lambda: libc.setrlimit(15, new),
                lambda: libc.syscall({'x86_64': 160, 'aarch64': 164}[os.uname().machine], 15, new)):
    refused.append(attempt() == -1 and ctypes.get_errno() == errno.EPERM)
r.getrlimit(r.RLIMIT_RTTIME)
print(json.dumps(refused))
"""
    assert told(plan, code) == [True, True, True]


def test_the_kernel_takes_a_context_first_when_the_machine_has_no_memory_left(plan: dict[str, Any]) -> None:
    assert told(plan, "print(open('/proc/self/oom_score_adj').read())") == 1000


@pytest.mark.parametrize(("program", "dumpable"), [("room", 0), pytest.param("standard", 1, marks=needs_landlock)])
def test_a_process_is_dumpable_only_where_landlock_guards_it(tmp_path: Path, program: str, dumpable: int) -> None:
    code = "import ctypes\nprint(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    assert told(plan_for(program, tmp_path), code) == dumpable


@needs_landlock
def test_landlock_gives_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    work, beside = tmp_path / "work", tmp_path / "beside"
    work.mkdir()
    beside.mkdir()
    (beside / "secret").write_text("secret")
    code = f"""
import os, shutil
def tried(call):
    try:
        call()
    except OSError as error:
        return type(error).__name__
    return 'done'
print(json.dumps([
    tried(lambda: open({str(work)!r} + '/file', 'w').write('mine')),
    tried(lambda: os.mkdir({str(work)!r} + '/directory')),
    tried(lambda: os.rename({str(work)!r} + '/file', {str(work)!r} + '/directory/file')),
    tried(lambda: os.truncate({str(work)!r} + '/directory/file', 2)),
    tried(lambda: open('/dev/null', 'w').write('x')),
    tried(lambda: open(os.__file__).read()),
    tried(lambda: open({str(beside)!r} + '/secret')),
    tried(lambda: os.link({str(beside)!r} + '/secret', {str(work)!r} + '/link')),
    tried(lambda: os.listdir({str(beside)!r})),
    tried(lambda: open({str(beside)!r} + '/new', 'w')),
    tried(lambda: os.mknod({str(work)!r} + '/device', 0o020666, os.makedev(1, 3))),
    tried(lambda: os.kill(os.getppid(), 0)),
]))
"""
    done = told(plan_for("standard", work), code)
    assert done == [*["done"] * 6, "PermissionError", "OSError", *["PermissionError"] * 4]
    assert sorted(path.name for path in beside.iterdir()) == ["secret"]


@needs_landlock
def test_landlock_never_gives_the_whole_of_proc(tmp_path: Path) -> None:
    """It shows the command lines, and with them the secrets, of every process of the host."""
    plan = plan_for("standard", tmp_path)
    plan["landlock"]["read"].append("/proc")
    code = """
import os
def tried(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return type(error).__name__
    return 'done'
own = [tried(path) for path in ('/proc/self/status', '/proc/self/fd', '/proc/thread-self/stat', '/proc/meminfo')]
print(json.dumps([own, [tried(path) for path in ('/proc', '/proc/1/cmdline', '/proc/%d/limits' % os.getppid())]]))
"""
    assert told(plan, code) == [["done"] * 4, ["PermissionError"] * 3]


@needs_landlock
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes the kernel forget")
def test_a_process_under_landlock_keeps_sight_of_itself_when_the_kernel_forgets_its_inodes(tmp_path: Path) -> None:
    plan = plan_for("standard", tmp_path)
    plan["landlock"]["read"] = ["/usr", "/proc"]
    code = (
        "import os\nprint('sealed', flush=True)\nos.read(0, 1)\nprint(open('/proc/self/status').readline().split()[0])"
    )
    command = [sys.executable, "-I", "-S", "-c", SEALED, str(WORKER_DIR), json.dumps(plan), code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sealed\n"
        Path("/proc/sys/vm/drop_caches").write_text("2")
        output, _ = process.communicate(b"x", timeout=60)
    assert output == b"Name:\n"


FAILURES = [
    ({"seccomp": "unknown"}, "seccomp: no program 'unknown' for "),
    ({"rlimits": {"AS": MIB}}, "rlimits: RLIMIT_AS breaks numpy"),
    ({"rlimits": {"NOTHING": 1}}, "rlimits: "),
    pytest.param(
        {"landlock": {"write": ["/no/such"], "read": []}},
        "landlock: No such file or directory: /no/such",
        marks=needs_landlock,
    ),
]


@pytest.mark.parametrize(("change", "text"), FAILURES)
def test_a_layer_that_fails_is_named_and_nothing_foreign_runs(tmp_path: Path, change: Any, text: str) -> None:
    done = run_sealed({**plan_for("room", tmp_path), **change}, "print('foreign code')")
    assert "SealFailed" in done.stderr
    assert text in done.stderr
    assert done.returncode != 0
    assert done.stdout == ""


def test_an_older_landlock_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "landlock_abi", lambda: 5)
    with pytest.raises(OSError, match="ABI 5, and 6 is needed"):
        confine.restrict_files({"write": [], "read": []})
