"""Formats are found through entry points; broken ones are left out."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridd.backends import echo, gguf, installed, onnx, registry
from hybridd.backends.api import Engine
from hybridd.backends.registry import FormatInfo, availability, load_backends
from hybridd.core.model import Facts

ROOT = Path(__file__).parents[2]


def _points(monkeypatch: pytest.MonkeyPatch, *values: tuple[str, str]) -> None:
    made = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in values)
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: made)


def test_the_built_in_ones_register_like_anybodys() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    listed = {
        name: value.removesuffix(":BACKEND") for name, value in points[registry.GROUP].items()
    }
    assert sorted(listed) == ["echo", "gguf", "huggingface", "onnx"]
    for name, module in listed.items():
        assert registry._problem(name, importlib.import_module(module).BACKEND) is None
    # An editable install knows the names of the day it was made.
    assert set(listed) >= set(load_backends()) >= {"echo", "gguf", "huggingface"}
    assert list(load_backends({"echo", "unknown"})) == ["echo"]
    assert load_backends(set()) == {}


def test_their_engines_take_all_that_a_worker_asks_of_them() -> None:
    for backend in load_backends({"echo", "gguf", "huggingface"}).values():
        module, _, name = backend.engine_factory.partition(":")
        try:
            factory = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            continue  # its library is not installed
        asked = {name for name in vars(Engine) if not name.startswith("_")}
        assert asked <= set(dir(factory)), backend.name


def test_what_is_served_at_a_time() -> None:
    echoes = Facts("echo", (), metadata={"parallel": 3})
    assert echo.BACKEND.parallel(echoes).auto == 3
    assert echo.BACKEND.parallel(Facts("echo", ())).auto == 1
    assert gguf.BACKEND.parallel(Facts("gguf", ())) == (4, 256)
    assert onnx.BACKEND.parallel(Facts("onnx", ())) == (1, 1)


def test_broken_backends_are_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(echo, "HALF", SimpleNamespace(name="half", engine="x"), raising=False)
    _points(
        monkeypatch,
        ("echo", "hybridd.backends.echo:BACKEND"),
        ("gone", "hybridd.no.such.module:BACKEND"),
        ("half", "hybridd.backends.echo:HALF"),
        ("liar", "hybridd.backends.echo:BACKEND"),
        ("none", "hybridd.backends.echo:NOTHING"),
    )
    assert list(load_backends()) == ["echo"]
    said = [record.getMessage() for record in caplog.records]
    assert [text.split()[2] for text in said] == ["gone", "half", "liar", "none"]
    assert "calls itself 'echo'" in said[2]


def _backend(*distributions: str, extra: str | None = "some") -> Any:
    return SimpleNamespace(
        name="x", engine="y", extra=extra, distributions=distributions, engine_factory="m:f"
    )


def test_availability_by_installed_packages() -> None:
    assert availability(echo.BACKEND).available
    found = availability(_backend("trio", "pytest"))
    assert found == FormatInfo("x", True, "y", version=installed.version_of("trio"))
    missing = availability(_backend("trio", "no-such-distribution"))
    assert not missing.available
    assert missing.reason == ("no-such-distribution is not installed: pip install 'hybridd[some]'")
    assert missing.to_wire() == {
        "name": "x",
        "available": False,
        "engine": "y",
        "reason": missing.reason,
    }
    other = availability(_backend("no-such-distribution", extra=None))
    assert other.reason is not None
    assert other.reason.endswith("pip install 'no-such-distribution'")


def test_a_format_without_an_engine() -> None:
    found = availability(onnx.BACKEND)
    assert not found.available
    assert "no engine yet" in str(found.reason)


def test_files_of_a_package_without_importing_it() -> None:
    assert "__init__.py" in installed.files_of("hybridd", "backends")
    assert installed.files_of("hybridd", "nowhere") == ()
    assert installed.files_of("no_such_package", "lib") == ()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from hybridd.backends.registry import availability, load_backends\n"
        "for b in load_backends().values(): availability(b); b.uses_gpu()\n"
        "import hybridd.catalog.library\n"
        "heavy = {'torch', 'transformers', 'llama_cpp', 'numpy', 'jinja2', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
