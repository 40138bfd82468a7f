"""What documents, comments and docstrings say where things are is so: modules move, words stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hybridd"
# `serving/manager`, `wire/delta.Delta`, `rpc/methods/`: from a package's folder, or below one.
CITED = re.compile(r"`((?:hybridd/)?[a-z_]+(?:/[a-z_0-9]+)+)/?(?:\.py)?(?:\.(\w+))?`")
FOLDERS = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
TEXTS = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *PACKAGE.rglob("*.py")]
# Where the same word begins a path of another project.
ELSEWHERE = {"src/models", "common/speculative"}


def stale(text: str) -> Iterator[str]:
    """Paths of modules that are cited in a text and not there."""
    for path, name in CITED.findall(text):
        path = path.removeprefix("hybridd/")
        if path.partition("/")[0] in FOLDERS and path not in ELSEWHERE and not _there(path, name):
            yield f"{path}.{name}" if name else path


def _there(path: str, name: str) -> bool:
    found = [*PACKAGE.glob(f"**/{path}.py"), *PACKAGE.glob(f"**/{path}/__init__.py")]
    found += [directory for directory in PACKAGE.glob(f"**/{path}") if directory.is_dir()]
    files = [file for file in found if file.is_file()]
    return bool(found) and (
        not name or any(re.search(rf"\b{name}\b", f.read_text()) for f in files)
    )


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_cited_is_there(text: Path) -> None:
    assert list(stale(text.read_text())) == []


def test_a_stale_one_is_seen() -> None:
    cited = "`serving/manager`, `catalog/manager`, `wire/delta.Delta`, `wire/delta.Gone`, `a/b`"
    assert list(stale(cited)) == ["catalog/manager", "wire/delta.Gone"]
