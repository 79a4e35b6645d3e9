"""Builds what is published and tries it as its users will, outside of the source tree: `make package`.

Wheel and sdist into `dist/`; the wheel in a clean environment, and the demo run from it; `uvx` with the wheel; the
bundle as a desktop client would start it. Exits with 1 at the first thing that is not as it should be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bundle import pack
from rich.console import Console

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
DEMO = ROOT / "examples" / "demo.py"
TOOLS = Path(sys.executable).parent
"""Where `twine`, `check-wheel-contents` and `uv` are installed, beside this interpreter."""

console = Console(highlight=False)


class WrongPackageError(Exception):
    """What was built is not what it should be. The text says how."""


def step(title: str, work: Callable[[], None]) -> None:
    started = time.monotonic()
    work()
    console.print(f"[green]ok[/green] {title} ({time.monotonic() - started:.1f} s)")


def call(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run a program and give what it printed. Raises WrongPackageError with all of it where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WrongPackageError(f"{' '.join(map(str, command))} exits with {done.returncode}:\n{done.stdout}")
    return done.stdout


def expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise WrongPackageError(otherwise)


def only(pattern: str, directory: Path = DIST) -> Path:
    found = list(directory.glob(pattern))
    expect(len(found) == 1, f"{directory} has {len(found)} files {pattern}, not one")
    return found[0]


def build() -> None:
    """The wheel is built from the sdist, so that both are tried."""
    shutil.rmtree(DIST, ignore_errors=True)
    call(sys.executable, "-m", "build", "--outdir", DIST)


def compare_with_tree(scratch: Path) -> None:
    call(sys.executable, "-m", "build", "--wheel", "--outdir", scratch / "direct")
    direct = only("*.whl", scratch / "direct").read_bytes()
    expect(direct == only("*.whl").read_bytes(), "the sdist builds another wheel than the source tree")


def check_contents() -> None:
    call(TOOLS / "check-wheel-contents", only("*.whl"))
    call(TOOLS / "twine", "check", "--strict", *DIST.iterdir())
    with zipfile.ZipFile(only("*.whl")) as wheel:
        names = set(wheel.namelist())
    for path in (ROOT / "prompts").rglob("*.md"):
        mapped = f"mcp_server/_prompts/{path.relative_to(ROOT / 'prompts')}"
        expect(mapped in names, f"the wheel has no {mapped}")
    expect("mcp_server/py.typed" in names, "the wheel does not say that it is typed")


def install(environment: Path) -> None:
    """By uv, which does in seconds what takes pip a minute."""
    call(TOOLS / "uv", "venv", "--quiet", "--python", sys.executable, environment)
    call(TOOLS / "uv", "pip", "install", "--python", environment / "bin" / "python", f"{only('*.whl')}[data]")


def try_installed(environment: Path) -> None:
    """The demo is copied away, so that nothing of the source tree can be imported by accident."""
    shutil.copy(DEMO, environment)
    command = environment / "bin" / "mcp-code-interpreter"
    version = call(command, "--version", cwd=environment).strip()
    expect(f"-{version}-" in only("*.whl").name, f"the installed command says that it is version {version}")
    call(environment / "bin" / "python", "-I", "demo.py", command, cwd=environment)


def try_uvx(scratch: Path) -> None:
    said = call(
        TOOLS / "uvx", "--from", only("*.whl"), "mcp-code-interpreter", "run", "-c", "print(6 * 7)", cwd=scratch
    )
    expect(said.splitlines()[-1] == "42", f"uvx printed {said!r}")


def try_bundle(scratch: Path, environment: Path) -> None:
    """As a client does it that has unpacked the bundle: variables replaced, defaults for what nobody set."""
    unpacked = scratch / "bundle"
    with zipfile.ZipFile(pack(DIST)) as bundle:
        bundle.extractall(unpacked)
    manifest = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))
    defaults = {f"user_config.{name}": str(asked["default"]) for name, asked in manifest["user_config"].items()}
    variables = {"__dirname": str(unpacked), **defaults}

    def filled(text: str) -> str:
        for name, value in variables.items():
            text = text.replace(f"${{{name}}}", value)
        return text

    config = manifest["server"]["mcp_config"]
    command = [TOOLS / config["command"], *(filled(argument) for argument in config["args"])]
    env = {name: filled(value) for name, value in config["env"].items()}
    call(
        *command, "--version", cwd=scratch, env=env
    )  # uv makes the environment, which takes longer than a client waits
    assignments = [f"{name}={value}" for name, value in env.items()]
    call(environment / "bin" / "python", "-I", "demo.py", "env", *assignments, *command, cwd=environment)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mcp-code-interpreter-package-") as made:
        scratch = Path(made)
        environment = scratch / "environment"
        step("sdist, and the wheel from it", build)
        step("the source tree builds the same wheel", lambda: compare_with_tree(scratch))
        step("contents, metadata, README", check_contents)
        step("installed into a clean environment", lambda: install(environment))
        step("the demo runs from it", lambda: try_installed(environment))
        step("uvx runs the wheel", lambda: try_uvx(scratch))
        step("the bundle starts as a client starts it, and the demo runs", lambda: try_bundle(scratch, environment))
    for path in sorted(DIST.iterdir()):
        console.print(f"   {path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    try:
        main()
    except WrongPackageError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
