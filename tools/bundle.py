"""Packs the bundle that desktop clients install with one click: `dist/mcp-code-interpreter-VERSION.mcpb`.

    python tools/bundle.py

It is a zip archive of the sources and `packaging/mcpb/manifest.json`; the client's own `uv` makes the environment. The
same sources give the same bytes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "packaging" / "mcpb" / "manifest.json"
CONTENTS = ("LICENSE", "README.md", "mcp_server", "prompts", "pyproject.toml")

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can say."""


def pack(directory: Path) -> Path:
    """Write the bundle into `directory`, and give its path."""
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    directory.mkdir(parents=True, exist_ok=True)
    bundle = directory / f"{manifest['name']}-{manifest['version']}.mcpb"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, MANIFEST, "manifest.json")
        for path in _files():
            _add(archive, path, path.relative_to(ROOT).as_posix())
    return bundle


def _files() -> Iterator[Path]:
    for name in CONTENTS:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, path.read_bytes())


if __name__ == "__main__":
    print(pack(ROOT / "dist"))  # noqa: T201
