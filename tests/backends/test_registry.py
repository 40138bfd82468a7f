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

from hybridd.backends import echo, gguf, installed, onnx, registry, switches
from hybridd.backends.api import Engine
from hybridd.backends.registry import (
    FormatInfo,
    availability,
    installed_formats,
    load_backends,
)
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


def test_their_engines_take_all_that_a_worker_asks_of_them() -> None:
    for backend in load_backends().values():
        if not backend.engine_factory:
            continue
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


def test_broken_backends_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (*registry._ATTRIBUTES, *registry._METHODS)
    parts = {name: getattr(echo.BACKEND, name) for name in names}
    half, old = SimpleNamespace(name="half", engine="x"), SimpleNamespace(**parts)
    del old.senses
    wrong = SimpleNamespace(**{**parts, "suffixes": ".x"})
    monkeypatch.setattr(echo, "HALF", half, raising=False)
    monkeypatch.setattr(echo, "OLD", old, raising=False)
    monkeypatch.setattr(echo, "WRONG", wrong, raising=False)
    mixed = SimpleNamespace(**{**parts, "suffixes": (".x", 3)})
    monkeypatch.setattr(echo, "MIXED", mixed, raising=False)
    _points(
        monkeypatch,
        ("echo", "hybridd.backends.echo:BACKEND"),
        ("gone", "hybridd.no.such.module:BACKEND"),
        ("half", "hybridd.backends.echo:HALF"),
        ("liar", "hybridd.backends.echo:BACKEND"),
        ("mixed", "hybridd.backends.echo:MIXED"),
        ("none", "hybridd.backends.echo:NOTHING"),
        ("old", "hybridd.backends.echo:OLD"),
        ("type", "hybridd.backends.echo:EchoBackend"),
        ("wrong", "hybridd.backends.echo:WRONG"),
    )
    assert list(load_backends()) == ["echo"]
    formats = installed_formats()
    assert list(formats) == [
        *("echo", "gone", "half", "liar", "mixed", "none", "old", "type", "wrong")
    ]
    for name, said in {
        "gone": "ModuleNotFoundError",
        "half": "it has no engine_factory, which every backend has to say",
        "liar": "calls itself 'echo'",
        "mixed": "its suffixes are not all texts",
        "none": "AttributeError",
        "old": "it has no senses; a class that inherits from hybridd.backends.api.Backend has",
        "type": "it is the class EchoBackend, not an instance of it",
        "wrong": "its suffixes is a str, not a tuple",
    }.items():
        assert not formats[name].info.available
        assert said in str(formats[name].info.reason), name
        # A switch all the same: a file that names it is no mistake of its owner.
        assert said in switches.keys(formats)[f"formats.{name}"].description


def test_a_switch_turns_a_format_off_and_says_so() -> None:
    formats = installed_formats()
    values = {f"formats.{name}": name != "gguf" for name in formats}
    assert set(switches.enabled(formats, values.__getitem__)) == set(formats) - {"gguf"}
    shown = {info.name: info for info in switches.shown(formats, values.__getitem__)}
    assert shown["echo"] == formats["echo"].info
    assert not shown["gguf"].available
    assert "hybridctl config set formats.gguf true" in str(shown["gguf"].reason)


def _backend(*distributions: str, extra: str | None = "some") -> Any:
    return SimpleNamespace(
        name="x", engine="y", extra=extra, distributions=distributions, engine_factory="m:f"
    )


def test_availability_by_installed_packages() -> None:
    assert availability(echo.BACKEND, "7") == FormatInfo("echo", True, "echo", version="7")
    found = availability(_backend("trio", "pytest"), "7")
    assert found == FormatInfo("x", True, "y", version=installed.version_of("trio"))
    missing = availability(_backend("trio", "no-such-distribution"), "7")
    assert not missing.available
    assert missing.reason == ("no-such-distribution is not installed: pip install 'hybridd[some]'")
    assert missing.to_wire() == {
        "name": "x",
        "available": False,
        "engine": "y",
        "reason": missing.reason,
    }
    other = availability(_backend("no-such-distribution", extra=None), "7")
    assert other.reason is not None
    assert other.reason.endswith("pip install 'no-such-distribution'")


def test_a_format_without_an_engine() -> None:
    found = availability(onnx.BACKEND, "7")
    assert not found.available
    assert "no engine yet" in str(found.reason)


def test_files_of_a_package_without_importing_it() -> None:
    assert "__init__.py" in installed.files_of("hybridd", "backends")
    assert installed.files_of("hybridd", "nowhere") == ()
    assert installed.files_of("no_such_package", "lib") == ()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from hybridd.backends.registry import load_backends\n"
        "for b in load_backends().values(): b.uses_gpu()\n"
        "import hybridd.catalog.library\n"
        "heavy = {'torch', 'transformers', 'llama_cpp', 'numpy', 'jinja2', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
