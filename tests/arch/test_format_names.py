"""No format's name outside its own folder: what the daemon needs to know is in `Backend`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd.backends.registry import installed_formats

PACKAGES = [Path(__file__).parents[2] / name for name in ("hybridd", "hybridctl")]
NAMES = ("echo", "gguf", "huggingface", "onnx")
# Where the same word is something else.
OTHERWISE = {
    "hybridd/catalog/stores/hub.py": {"huggingface"},  # a directory: ~/.cache/huggingface/hub
    "hybridd/http/faces/openai/completions.py": {"echo"},  # whether the prompt comes back
}


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string of the code, without docstrings and the other sentences."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named_in(text: str, name: str) -> bool:
    """Whether a string names the format, alone or as a setting or module of that name."""
    return text == name or text in (f"formats.{name}", f"hybridd.backends.{name}")


def test_the_names_are_those_of_the_formats() -> None:
    assert set(NAMES) <= set(installed_formats())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_format_is_named_outside_its_folder(package: Path) -> None:
    found = []
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package.parent).as_posix()
        own = {name for name in NAMES if file.startswith(f"hybridd/backends/{name}/")}
        for text in texts(ast.parse(path.read_text())):
            for name in set(NAMES) - own - OTHERWISE.get(file, set()):
                if named_in(text, name):
                    found.append(f"{file}: {text!r}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("code", ["x = {'gguf'}", "f(format='onnx')", "c['formats.echo']"])
def test_it_would_be_found(code: str) -> None:
    assert any(named_in(text, name) for text in texts(ast.parse(code)) for name in NAMES)
