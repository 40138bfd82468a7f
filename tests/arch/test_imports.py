"""What each process imports, and which floor imports which: told by fresh interpreters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "llama_cpp", "onnxruntime", "numpy", "tokenizers", "safetensors"}


def modules_after(code: str) -> set[str]:
    """The modules of a fresh interpreter once it ran `code`."""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\nimport sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.split())


def tops(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


DAEMON = """
import hybridd.__main__, hybridd.app
from hybridd.backends.registry import load_backends
for backend in load_backends().values():
    backend.uses_gpu()
"""


def test_the_daemon_imports_no_heavy_library() -> None:
    loaded = modules_after(DAEMON)
    assert "trio" in loaded
    assert not tops(loaded) & HEAVY
    engines = {name for name in loaded if name.startswith("hybridd.backends") and "engine" in name}
    assert not engines


@pytest.mark.parametrize(
    ("code", "never"),
    [
        # What a worker is: no daemon in it.
        (
            "import hybridd.worker.loop, hybridd.worker.template",
            {"trio", "hybridd.host", "hybridd.processes", "hybridd.serving", "hybridd.rpc",
             "watchdog", *HEAVY},
        ),
        # What every call of the CLI pays for.
        (
            "import hybridctl.cli",
            {"trio", "anyio", "asyncio", "rich", "dataclasses", "importlib.metadata", "typing",
             "hybridd.core", "hybridd.backends", "hybridd.serving", *HEAVY},
        ),
        ("import hybridctl", {"trio", "rich", "hybridd.core", *HEAVY}),
        ("import hybridd.wire.framing, hybridd.wire.types, hybridd.wire.errors, "
         "hybridd.wire.units, hybridd.wire.paths, hybridd.wire.protocol",
         {"trio", "dataclasses", "typing", "importlib.metadata", "inspect"}),
        ("import hybridd.core.scheduler, hybridd.core.settings, hybridd.core.catalog",
         {"trio", "asyncio", "socket", "subprocess", "hybridd.backends", "hybridd.host", *HEAVY}),
        ("import hybridd.serving.manager", {"hybridd.rpc", "jsonrpcserver", *HEAVY}),
    ],
    ids=lambda value: value[7:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_never_imported(code: str, never: set[str]) -> None:
    assert not modules_after(code) & never


def test_a_base_install_loads_every_backend() -> None:
    """Without any engine's package the daemon's half of each format still works."""
    code = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in {MISSING} else find(name, path, target)
PathFinder.find_spec = find_spec
""".replace("{MISSING}", repr(HEAVY | {"jinja2"}))
    assert "hybridd.backends.gguf.inspect" in modules_after(code + DAEMON)


def test_every_format_is_held_to_the_contracts() -> None:
    """They name formats one by one, as `hybridd.backends.*` would take every module for one."""
    contracts = (ROOT / ".importlinter").read_text().split("[importlinter:contract:")
    (formats,) = (text for text in contracts if text.startswith("formats]"))
    (engines,) = (text for text in contracts if text.startswith("engines]"))
    folders = {path.parent.name for path in ROOT.glob("hybridd/backends/*/inspect.py")}
    assert "gguf" in folders
    assert set(re.findall(r"^    hybridd\.backends\.(\w+)$", formats, re.M)) == folders
    assert set(re.findall(r"^    hybridd\.backends\.(\w+)\.\*$", engines, re.M)) == folders


def test_the_floors() -> None:
    """The contracts of .importlinter."""
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed (dependency group lint)")
    told = subprocess.run(
        [linter, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "0 broken" in told.stdout
