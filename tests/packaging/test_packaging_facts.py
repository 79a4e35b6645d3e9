"""What is published beside the code says the same as the code."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mcp_server import __version__
from mcp_server.arguments import MODELS
from mcp_server.settings import Settings, variable_of
from tools import bundle, server_json

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFEST: dict[str, Any] = json.loads((ROOT / "packaging" / "mcpb" / "manifest.json").read_text())
REGISTRY: dict[str, Any] = json.loads((ROOT / "server.json").read_text())
UNIT = ROOT / "packaging" / "systemd" / "mcp-code-interpreter.service"
CONTAINERFILE = (ROOT / "Containerfile").read_text()

VARIABLES = {variable_of(name) for name in Settings.model_fields}


def test_one_version_is_told_everywhere() -> None:
    told = {__version__, PROJECT["version"], MANIFEST["version"], REGISTRY["version"]}
    assert told | {package["version"] for package in REGISTRY["packages"]} == {__version__}


def test_the_command_has_the_name_of_the_distribution_so_that_uvx_finds_it() -> None:
    assert list(PROJECT["scripts"]) == [PROJECT["name"]] == ["mcp-code-interpreter"]


def test_the_extras_are_there() -> None:
    assert {"data", "metrics"} <= set(PROJECT["optional-dependencies"])


# -- the MCP registry -----------------------------------------------------------------------------------------------


def test_the_registry_entry_is_what_the_settings_say() -> None:
    """Where this fails: `python tools/server_json.py` writes it anew."""
    assert (ROOT / "server.json").read_text() == server_json.text()


def test_the_registry_entry_keeps_the_registrys_rules() -> None:
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", REGISTRY["name"])
    assert 0 < len(REGISTRY["description"]) <= 100
    assert 0 < len(REGISTRY["title"]) <= 100
    [package] = REGISTRY["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", PROJECT["name"])
    assert package["transport"] == {"type": "stdio"}
    for variable in package["environmentVariables"]:
        assert variable["name"] in VARIABLES
        assert variable.get("format") in (None, "number", "boolean", "filepath")
        assert all(isinstance(variable.get(key, ""), str) for key in ("description", "default"))


def test_the_defaults_of_the_registry_entry_are_taken_by_the_settings() -> None:
    [package] = REGISTRY["packages"]
    defaults = {each["name"]: each["default"] for each in package["environmentVariables"] if "default" in each}
    given = {name: defaults[variable_of(name)] for name in Settings.model_fields if variable_of(name) in defaults}
    assert Settings.load(**given) == Settings.load()


def test_the_readme_proves_to_the_registry_whose_package_it_is() -> None:
    assert f"mcp-name: {REGISTRY['name']} " in (ROOT / PROJECT["readme"]).read_text()


# -- the bundle for desktop clients ---------------------------------------------------------------------------------


def test_the_bundle_holds_what_its_environment_is_made_from_and_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = bundle.pack(tmp_path / "first"), bundle.pack(tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = set(archive.namelist())
        assert json.loads(archive.read("manifest.json")) == MANIFEST
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], MANIFEST["server"]["entry_point"]} <= names
    assert {f"prompts/{path.relative_to(ROOT / 'prompts')}" for path in (ROOT / "prompts").rglob("*.md")} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "benchmarks", "."))]


def test_what_a_person_sets_in_the_bundle_reaches_the_settings() -> None:
    config = MANIFEST["server"]["mcp_config"]
    asked = MANIFEST["user_config"]
    assert set(config["env"]) <= VARIABLES
    assert set(config["env"].values()) == {f"${{user_config.{name}}}" for name in asked}
    defaults = {name: str(each["default"]) for name, each in asked.items()}
    assert Settings.load(**defaults) == Settings.load()  # a setting that nobody touched changes nothing
    assert PROJECT["name"] in config["args"]


def test_the_bundle_names_the_tools_that_there_are() -> None:
    assert [tool["name"] for tool in MANIFEST["tools"]] == list(MODELS)
    assert PROJECT["requires-python"] == MANIFEST["compatibility"]["runtimes"]["python"]


# -- the container --------------------------------------------------------------------------------------------------


def instructions(name: str) -> list[str]:
    joined = CONTAINERFILE.replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in joined.splitlines() if line.startswith(name + " ")]


def test_the_container_runs_as_an_ordinary_user_and_starts_the_command() -> None:
    [user] = instructions("USER")
    assert user not in ("root", "0")
    assert any(f" {user}" in run and "useradd" in run for run in instructions("RUN"))
    assert CONTAINERFILE.index("\nUSER ") > CONTAINERFILE.rindex("\nRUN ")
    assert json.loads(instructions("ENTRYPOINT")[0]) == [PROJECT["name"]]


def test_the_first_line_of_the_containerfile_says_what_the_sandbox_needs_as_doctor_does() -> None:
    from mcp_server.sandbox.mends import Surroundings, mend

    needed = re.findall(r"--security-opt [\w=]+", mend("mounts", "", Surroundings(container=True)))
    assert len(needed) == 3
    assert all(option in CONTAINERFILE.splitlines()[0] for option in needed)


def test_the_commands_of_the_container_can_be_read_by_a_shell() -> None:
    for run in instructions("RUN"):
        subprocess.run(["sh", "-n", "-c", run], check=True)
        assert shlex.split(run)


def test_the_container_installs_a_wheel_whatever_its_version(tmp_path: Path) -> None:
    [install] = [run for run in instructions("RUN") if "pip install" in run]
    (tmp_path / "mcp_code_interpreter-9.9-py3-none-any.whl").touch()
    said = install.replace("/tmp/", f"{tmp_path}/").split("&&")[0].replace("pip install", "printf '%s\\n'")
    done = subprocess.run(["sh", "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/mcp_code_interpreter-9.9-py3-none-any.whl[data]"


# -- systemd --------------------------------------------------------------------------------------------------------


def test_the_unit_divides_its_own_control_group_and_runs_as_nobody_else() -> None:
    lines = UNIT.read_text().splitlines()
    ours = {"Delegate=yes", "User=mcp-code-interpreter", "NoNewPrivileges=yes", "ProtectSystem=strict"}
    ours |= {f"SuccessExitStatus={128 + signal.SIGTERM}"}
    assert ours <= set(lines)


def test_the_unit_names_only_settings_that_there_are_and_leaves_the_sandbox_what_it_needs() -> None:
    text = UNIT.read_text()
    assert set(re.findall(r"CODE_INTERPRETER_\w+", text)) <= VARIABLES
    set_in_it = {line.split("=")[0] for line in text.splitlines() if re.match(r"[A-Z]\w+=", line)}
    assert not set_in_it & {
        "RestrictNamespaces",
        "RestrictSUIDSGID",
        "DynamicUser",
        "SystemCallFilter",
        "ProtectHostname",
        "ProtectProc",
        "ProcSubset",
        "ProtectKernelTunables",
        "ProtectKernelLogs",
        "ProtectControlGroups",
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """The command itself is not installed here; anything else that systemd says is a fault."""
    checked = tmp_path / UNIT.name
    checked.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('env')}", UNIT.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", checked], capture_output=True, text=True, check=False)
    about_it = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert about_it == []
