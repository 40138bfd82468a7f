"""That transformers finds the same modules, whether it reads its sources or what was kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.huggingface.engine.compat.import_structure import Reader

FILE = "hybridd/transformers-import-structure.json"
DEFINED = {frozenset({"torch"}): {"one.modeling_one": {"One", "Two"}}, frozenset[str](): {}}
# What transformers knows of itself after it was imported.
TELL = """
import transformers, transformers.models
for module in (transformers, transformers.models):
    print(sorted(module._class_to_module.items()), sorted(module._modules))
    print(sorted(module._object_missing_backend))
"""
OURS = f"import hybridd.backends.huggingface.engine.compat.library\n{TELL}"


class Sources:
    """A package like transformers, and how often it was read."""

    def __init__(self, directory: Path) -> None:
        self.utils = directory / "utils" / "import_utils.py"
        self.models = directory / "models"
        self.model = self.models / "one" / "modeling_one.py"
        self.reads = 0
        for file in (self.utils, self.model, self.models / "__init__.py"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("1")

    def read(self, path: Any, prefix: str | None = None) -> Any:
        self.reads += 1
        return {needed: dict(modules) for needed, modules in DEFINED.items()}

    def import_(self) -> Any:
        """What a new process is told."""
        return Reader(self.read, self.utils)(self.models)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / FILE


@pytest.fixture
def sources(tmp_path: Path, cache: Path) -> Sources:
    return Sources(tmp_path / "transformers")


def test_transformers_finds_the_same_modules_by_what_was_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    told = []
    for code in (TELL, OURS, OURS):
        command = [sys.executable, "-W", "ignore", "-c", code]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        told.append(ran.stdout)
        assert (tmp_path / FILE).exists() is (code is OURS)
    assert "modeling_llama" in told[0]
    assert told[0] == told[1] == told[2]


def test_sources_are_read_once(sources: Sources) -> None:
    for _ in range(3):
        assert sources.import_() == DEFINED
    assert sources.reads == 1


def test_both_calls_of_a_process_share_what_is_read(sources: Sources) -> None:
    reader = Reader(sources.read, sources.utils)
    first = reader(sources.models, prefix="models")
    assert first[frozenset({"torch"})] == {"models.one.modeling_one": {"One", "Two"}}
    first[frozenset()]["added"] = {"Three"}
    first[frozenset({"torch"})]["models.one.modeling_one"].clear()
    assert reader(str(sources.models / "__init__.py")) == DEFINED
    assert sources.reads == 1


def test_a_package_of_one_model_is_read_each_time(sources: Sources) -> None:
    reader = Reader(sources.read, sources.utils)
    for _ in range(2):
        reader(str(sources.model.parent / "__init__.py"))
    assert sources.reads == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.model.write_text("12"),
        lambda s: os.utime(s.model, ns=(1, 1)),
        lambda s: s.utils.write_text("12"),
        lambda s: s.model.unlink(),
        lambda s: (s.models / "two").mkdir(),
        lambda s: (s.model.parent / "modeling_two.py").write_text("1"),
        lambda s: s.model.rename(s.model.with_name("modeling_two.py")),
    ],
    ids=["longer", "touched", "reader", "removed", "directory", "added", "renamed"],
)
def test_a_change_is_noticed(sources: Sources, change: Callable[[Sources], None]) -> None:
    sources.import_()
    change(sources)
    sources.import_()
    assert sources.reads == 2
    sources.import_()
    assert sources.reads == 2


def test_what_python_compiled_is_no_change(sources: Sources) -> None:
    sources.import_()
    compiled = sources.model.parent / "__pycache__" / "modeling_one.pyc"
    compiled.parent.mkdir()
    compiled.write_text("1")
    sources.import_()
    assert sources.reads == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"state": 1}', "null", "[" * 100_000, "\0"],
    ids=["empty", "cut", "list", "object", "no structure", "null", "deep", "binary"],
)
def test_a_broken_file_is_replaced(sources: Sources, cache: Path, content: str) -> None:
    sources.import_()
    cache.write_text(content)
    assert sources.import_() == DEFINED
    assert sources.import_() == DEFINED
    assert sources.reads == 2


@pytest.mark.parametrize(
    "structure",
    [None, 1, [1], [[1, 2]], [["torch"]], [["a", {"b": 1}]], [], [[["torch"], {"a": ["B"]}]]],
)
def test_a_structure_of_another_kind_is_replaced(
    sources: Sources, cache: Path, structure: object
) -> None:
    sources.import_()
    cache.write_text(json.dumps({**json.loads(cache.read_text()), "structure": structure}))
    assert sources.import_() == DEFINED
    assert sources.reads == 2


def test_without_a_place_to_keep_it_sources_are_read(sources: Sources, cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file in the way")
    for reads in (1, 2):
        assert sources.import_() == DEFINED
        assert sources.reads == reads
    assert list(cache.parent.parent.iterdir()) == [cache.parent]


def test_where_sources_are_missing_transformers_answers(sources: Sources, cache: Path) -> None:
    sources.utils.unlink()
    assert sources.import_() == DEFINED
    assert not cache.exists()
