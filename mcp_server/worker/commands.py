"""Lines that are not Python but that people type into notebooks: `!command` and `%pip`.

Only source that Python refuses comes here. A line counts where a statement could begin: not within a string, brackets
or a continued line. It becomes a call in the same place, so that line numbers stay. Of `!command` the shell gets the
text as it stands; a `{name}` in it is the shell's, not a variable of the code.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys

from . import network

CALL = "__run_command__"
"""The name under which `run` stands in builtins."""

_LINE = re.compile(r"[ \t]*(?P<sign>[!%])(?P<text>.*)", re.DOTALL)
_PIP = re.compile(r"\s*pip3?(?=\s|$)")
_NEEDLESS = frozenset(("matplotlib",))
"""Magics that ask for what holds here anyway: figures are shown."""

_TOKEN = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<string>\"\"\"(?:\\.|.)*?\"\"\" | '''(?:\\.|.)*?''' | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<continued>\\\n)
    | (?P<newline>\n)
    | (?P<other>[^\s\#"'()\[\]{}\\]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


def translate(source: str, filename: str) -> str:
    """The source with its command lines as calls. Raises SyntaxError for a `%` command that is not known here."""
    if "!" not in source and "%" not in source:
        return source
    parts = []
    position = depth = 0
    at_start = True
    while position < len(source):
        if at_start and not depth:
            end = _end_of_command(source, position)
            if end > position:
                parts.append(_call(source[position:end], source, position, filename))
                position = end
                at_start = False
                continue
        token = _TOKEN.match(source, position)
        assert token is not None  # noqa: S101  (the last alternative takes any character)
        parts.append(token.group())
        position = token.end()
        at_start = token.lastgroup == "newline"
        depth += {"open": 1, "close": -1}.get(token.lastgroup or "", 0)
        depth = max(depth, 0)
    return "".join(parts)


def _end_of_command(source: str, start: int) -> int:
    """Where the command line ends that begins at `start`; `start` itself where none does."""
    if _LINE.match(source, start) is None:
        return start
    end = source.find("\n", start)
    while end > 0 and source[end - 1] == "\\":
        end = source.find("\n", end + 1)
    return len(source) if end < 0 else end


def _call(line: str, source: str, position: int, filename: str) -> str:
    match = _LINE.match(line)
    assert match is not None  # noqa: S101  (`_end_of_command` saw it)
    sign, text = match.group("sign", "text")
    indent = line[: match.start("sign")]
    if sign == "%":
        name = (text.split() or [""])[0]
        if name in _NEEDLESS:
            return indent + "(%sNone)" % ("\n" * line.count("\n"))
        if _PIP.match(text) is None:
            number = source.count("\n", 0, position) + 1
            raise SyntaxError(
                "%%%s is a command of IPython, and this is plain Python: "
                "only %%pip and lines of the form !command are known beside it" % name,
                (filename, number, len(indent) + 1, line + "\n"),
            )
    # A command continued over several lines keeps their number.
    return "%s%s(%s%r)" % (indent, CALL, "\n" * line.count("\n"), text.replace("\\\n", ""))


def run(text: str) -> None:
    """Run a command line in a shell, its output going to descriptors 1 and 2 as it comes."""
    pip = _PIP.match(text)
    if pip is not None:
        text = "%s -m pip%s" % (shlex.quote(sys.executable), text[pip.end() :])
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    status = subprocess.call([shell, "-c", text])
    if status:
        how = "status %d" % status if status > 0 else "signal %d" % -status
        why = "" if pip is None or network.is_there() else ". " + network.NONE
        said = "[the command ended with %s%s]" % (how, why)
        print(said, file=sys.stderr)  # noqa: T201  (said to the user of the code)
    importlib.invalidate_caches()
