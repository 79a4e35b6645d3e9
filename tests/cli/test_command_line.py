"""The command line as a shell sees it."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_server import __version__
from mcp_server.flags import GROUPS, OTHERS
from mcp_server.settings import Settings
from tests.mcp.server_processes import BOUND_S, Watched, descendants

PROGRAM = [sys.executable, "-m", "mcp_server.cli"]


def shell(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        env={**os.environ, "COLUMNS": "100", **env},
        check=False,
    )


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return shell("run", "--preload", "", *arguments, stdin=stdin)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, "run", "--preload", "", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("6 * 7", 0),
        ("exit(3)", 3),
        ("exit()", 0),
        ("1 / 0", 1),
        ("not python", 1),
        ("import os; os._exit(9)", 9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
    ],
)
def test_the_exit_status_is_the_codes_outcome(code: str, status: int) -> None:
    assert run("-c", code).returncode == status


def test_a_timeout_exits_as_timeout_does() -> None:
    done = run("--timeout-s", "0.3", "-c", "while True: pass")
    assert done.returncode == 124
    assert done.stderr == "mcp-code-interpreter: timeout\n"


def test_output_errors_and_the_result_go_where_a_script_would_send_them() -> None:
    done = run("-c", "import sys\nprint('out')\nprint('err', file=sys.stderr)\n[1, 2]")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n[1, 2]\n", "err\n")
    done = run("-c", "print('before')\n1 / 0")
    assert done.stdout == "before\n"
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_code_comes_from_a_file_or_from_stdin(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('from a file')")
    assert run(str(script)).stdout == "from a file\n"
    assert run("-", stdin="print('from stdin')").stdout == "from stdin\n"


def test_output_is_live_and_ctrl_c_interrupts() -> None:
    with running("-c", "print('going', flush=True)\nwhile True: pass") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        watched = Watched(descendants(process.pid))
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == 130
        assert watched.survivors() == []


def test_a_reader_that_leaves_ends_the_run() -> None:
    with running("-c", "while True: print('x' * 1000)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(BOUND_S) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("arguments", [[], ["-c", "1", "file.py"]], ids=["neither", "both"])
def test_exactly_one_source_of_code_is_taken(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "either a FILE or -c CODE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "line"),
    [
        (["--timeout-s", "soon"], {}, "--timeout-s is 'soon': "),
        (["doctor"], {"CODE_INTERPRETER_CONTEXTS": "none"}, "CODE_INTERPRETER_CONTEXTS is 'none': "),
        (["serve", "--host", "0.0.0.0"], {}, "--host 0.0.0.0: without authentication, "),
        (["serve", "--host", "example.org"], {}, "--host example.org: without authentication, "),
        (["--python", "/nowhere/python"], {}, "--python /nowhere/python: there is no such program."),
        (["--workspace", "/nowhere"], {}, "--workspace /nowhere: no such directory."),
        (["run", "/nowhere.py"], {}, "Cannot read /nowhere.py: "),
        (["run", "/"], {}, "Cannot read /: "),
        (
            ["doctor"],
            {"CODE_INTERPRETER_TIMEOUTS": "3"},
            "'CODE_INTERPRETER_TIMEOUTS' is no setting; did you mean CODE",
        ),
        (["doctor", "--memory-bytes", "lots"], {}, "--memory-bytes is 'lots': "),
        (["doctor", "--memory-bytes", "1KiB"], {}, "--memory-bytes is '1KiB': input should be greater than "),
        (["doctor", "--min-sandbox", "mighty"], {}, "--min-sandbox is 'mighty': input should be 'strong', "),
        (["doctor", "--preload", "no such"], {}, "--preload is 'no such': 'no such' is no module name."),
        (["run", "-c", "1", "--python", "/"], {}, "--python /: there is no such program."),
        (["run", "-c", "1", "--python", "sh"], {}, "--python sh: there is no such program. Give its path: --python /"),
        (["run", "-c", "1", "--python", "/bin/ls"], {}, "The interpreter /bin/ls ended with exit code 2 before it was"),
        (["run", "-c", "1", "--workspace", "/etc/passwd"], {}, "--workspace /etc/passwd: no such directory."),
        (["run", "-c", "1", "--images", "/etc/passwd"], {}, "--images /etc/passwd: File exists."),
        (["serve", "--tokens", "/nowhere"], {}, "The token file /nowhere cannot be read: "),
        (["--engine", "toolbox"], {}, "--engine toolbox needs --url: "),
        (["--engine", "toolbox", "--url", "nonsense"], {}, "--url: 'nonsense' is no address: give http://host:port"),
        (
            ["--engine", "toolbox", "--url", "http://127.0.0.1:9"],
            {},
            "The toolbox server at http://127.0.0.1:9/api can",
        ),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(arguments: list[str], env: dict[str, str], line: str) -> None:
    done = shell(*arguments, **env)
    assert done.returncode == 1
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert said.startswith(f"mcp-code-interpreter: {line}")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell("serve", "--port", str(port))
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    assert said.startswith(f"mcp-code-interpreter: Cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert said.endswith("Choose another with --port.")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serve", "--port", "99999"], "Invalid value for '--port': "),
        (["serve", "--port", "high"], "Invalid value for '--port': "),
        (["--no-such-flag"], "No such option: --no-such-flag. See "),
        (["frobnicate"], "No such command 'frobnicate'. See "),
        (["serve", "--port"], "Option '--port' requires an argument. See "),
        (["--engine", "abacus"], "Invalid value for '--engine': "),
        (["run"], "Invalid value: give either a FILE or -c CODE. See "),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_that_says_where_help_is(arguments: list[str], line: str) -> None:
    done = shell(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert said.startswith(f"mcp-code-interpreter: {line}")
    assert said.endswith(" --help.")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_standard_stream_is_no_reason_to_fail(closed: str) -> None:
    served = f'exec "$0" -m mcp_server.cli --preload "" {closed}'
    done = subprocess.run(["sh", "-c", served, sys.executable], stdin=subprocess.DEVNULL, timeout=BOUND_S, check=False)
    assert done.returncode == 0


def test_flags_may_stand_before_the_command_and_those_after_it_win() -> None:
    done = shell("--timeout-s", "soon", "--preload", "", "run", "--timeout-s", "60", "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    done = shell("--timeout-s", "0.3", "--preload", "", "run", "-c", "while True: pass")
    assert done.returncode == 124


def test_the_version_is_told() -> None:
    assert shell("--version").stdout == f"{__version__}\n"


def test_help_teaches_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['mcp-code-interpreter', '--help']\nfrom mcp_server.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('loaded:', [name for name in ('mcp', 'uvicorn', 'starlette', 'uvloop', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND_S, check=True)
    assert "loaded: []" in done.stdout
    for word in ("claude mcp add", "serve", "run", "doctor", "--timeout-s", "CODE_INTERPRETER_"):
        assert word in done.stdout


@pytest.mark.parametrize("command", [[], ["serve"], ["run"], ["replay"], ["doctor"]])
def test_help_fits_a_terminal_of_80_columns_and_cuts_nothing(command: list[str]) -> None:
    lines = shell(*command, "--help", COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "│ --contexts-per-conversation        NUMBER " in "\n".join(lines)
    assert not [line for line in lines if line.startswith("│") and re.search(r"\w…", line)]


def test_help_groups_every_setting() -> None:
    said = shell("--help").stdout
    assert {name for names in GROUPS.values() for name in names} == set(Settings.model_fields)
    for panel in GROUPS:
        assert f"─ {panel} ─" in said
    assert OTHERS not in said


@pytest.mark.parametrize("command", ["serve", "run", "replay", "doctor"])
def test_each_command_explains_itself(command: str) -> None:
    done = shell(command, "--help")
    assert done.returncode == 0
    assert "--preload" in done.stdout


def test_doctor_names_the_layers_and_the_tier() -> None:
    done = shell("doctor", "--preload", "")
    assert "Sandbox tier here: " in done.stdout
    assert "Landlock" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_doctor_is_in_colour_on_a_terminal_unless_told_not_to(env: dict[str, str], coloured: bool) -> None:
    said = on_a_terminal("doctor", "--preload", "", env=env)
    assert "Sandbox tier here: " in said
    assert (re.search(r"\x1b\[[\d;]*3[1-3]m", said) is not None) == coloured


def test_whoever_waits_at_a_terminal_sees_what_for_and_it_leaves_no_trace() -> None:
    said = on_a_terminal("run", "-c", "print('ran')", env={})
    assert "Starting Python …" in said
    before, _, after = said.rpartition("Starting Python")
    assert "\x1b[2K" in after  # its line is erased
    assert "ran\r\n" in after
    assert "ran" not in before


def on_a_terminal(*arguments: str, env: dict[str, str]) -> str:
    """All that the program shows on a terminal that is its stdout and stderr."""
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**plain, "TERM": "xterm-256color", "COLUMNS": "100", **env},
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that nobody has the other side open
                break
            if not data:
                break
            said += data
        process.wait(BOUND_S)
    os.close(ours)
    return said.decode()


def test_doctor_fails_where_contexts_could_not_be_started() -> None:
    done = shell("doctor", "--preload", "", "--workspace", "/nowhere")
    assert done.returncode == 1


def test_a_workspace_is_worked_in_and_with_ro_only_read(tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("given")
    code = "import os; print(sorted(os.listdir())); open('made.txt', 'w').write('made')"
    done = shell("run", "--preload", "", "--workspace", f"{tmp_path}:ro", "-c", code)
    assert (done.returncode, done.stdout) == (1, "['given.txt']\n")
    assert "OSError" in done.stderr or "PermissionError" in done.stderr
    assert not (tmp_path / "made.txt").exists()
    done = shell("run", "--preload", "", "--workspace", str(tmp_path), "-c", code)
    assert (done.returncode, done.stdout) == (0, "['given.txt']\n4\n")
    assert (tmp_path / "made.txt").read_text() == "made"
