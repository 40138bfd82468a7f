"""No module of the product imports itself by way of others, not even for its types alone.

Read from the sources: imports within `if TYPE_CHECKING:` count like all others of a module, those
inside functions do not. What a package's `__init__` imports counts as that of one more module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Imports that close a circle, and why that stands. Empty is the aim.
ALLOWED: Mapping[tuple[str, str], str] = {
    ("hybridctl.sdk.blocking_connection", "hybridctl.sdk.blocking_streams"): (
        "for a type alone: it opens streams, and each stream keeps the connection it reads from"
    ),
}
PACKAGES = ("hybridd", "hybridctl")


def modules(package: str) -> dict[str, Path]:
    """Every module below a package by its dotted name; a package is its `__init__`."""
    named: dict[str, Path] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """A module's imports outside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from statements(node)


def imported(name: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules among `known` that a module imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    targets: set[str] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets.update(alias.name for alias in node.names)
            continue
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        # A name is a module of its own or comes from the one that it is imported from.
        inner = {alias.name: f"{source}.{alias.name}" for alias in node.names}
        targets.update(full if full in known else source for full in inner.values())
    return (targets & known.keys()) - {name}


def graph(package: str) -> dict[str, set[str]]:
    """What each module imports."""
    known = modules(package)
    return {name: imported(name, path, known) for name, path in known.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_is_circular(package: str) -> None:
    imports = graph(package)
    assert len(imports) > 5
    for importer, target in ALLOWED:
        imports.get(importer, set()).discard(target)
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_what_is_allowed_is_there() -> None:
    imports = {name: targets for package in PACKAGES for name, targets in graph(package).items()}
    assert [edge for edge in ALLOWED if edge[1] not in imports.get(edge[0], ())] == []


def test_a_circle_is_seen() -> None:
    """Or an empty graph would pass."""
    imports = graph("hybridd")
    assert "hybridd.catalog.walk" in imports["hybridd.catalog.library"]
    assert "hybridd.catalog.stores" in imports["hybridd.catalog.settings"]  # `from . import`
    imports["hybridd.catalog.candidate"].add("hybridd.catalog.library")
    with pytest.raises(CycleError):
        TopologicalSorter(imports).prepare()
