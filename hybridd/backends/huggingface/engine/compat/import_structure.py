"""transformers' import structure, kept on disk as Python keeps compiled modules.

That is what each of its modules defines. Whenever it is imported transformers reads the sources of
all its models for it, twice: a seventh of a cold start. The answer is the same until one of these
files changes, which their times and sizes tell. Where anything is not as expected, transformers
reads its sources as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import cache_files
from ..cache_files import fingerprint

_READER = "transformers.utils.import_utils"
_FUNCTION = "define_import_structure"
_FILE = "transformers-import-structure.json"

# Names by module, by what has to be installed for them. Of two modules the later has a name.
Structure = dict[frozenset[str], dict[str, set[str]]]


@contextmanager
def kept() -> Iterator[None]:
    """For the import of transformers: have the structure taken from the disk, or left there."""
    hook = _Hook()
    sys.meta_path.insert(0, hook)
    try:
        yield
    finally:
        sys.meta_path.remove(hook)


class _Hook(MetaPathFinder):
    """Puts our function in the place of transformers' as soon as that is there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _READER:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_replace(module: ModuleType) -> None:
                execute(module)
                read = getattr(module, _FUNCTION, None)
                if read is not None and spec.origin is not None:
                    setattr(module, _FUNCTION, Reader(read, Path(spec.origin)))

            loader.exec_module = execute_and_replace
        return spec


class Reader:
    """Stands in for transformers' function, for the directory of its models.

    Args:
        read: transformers' own.
        source: Where that is from.
    """

    def __init__(self, read: Callable[..., Structure], source: Path) -> None:
        self._read = read
        self._source = source
        self._models = source.parent.parent / "models"
        self._structure: Structure | None = None

    def __call__(self, module_path: Any, prefix: str | None = None) -> Structure:
        path = Path(module_path)
        if path not in (self._models, self._models / "__init__.py"):
            return self._read(module_path, prefix)
        if self._structure is None:
            self._structure = self._kept()
        begin = "" if prefix is None else f"{prefix}."
        # Fresh ones each time: transformers adds to what it gets.
        return {
            needed: {begin + module: set(names) for module, names in modules.items()}
            for needed, modules in self._structure.items()
        }

    def _kept(self) -> Structure:
        try:
            state = fingerprint(self._source, self._models)
        except OSError:
            return self._read(str(self._models))
        found = _from_json(cache_files.read(_FILE), state)
        if found is None:
            found = self._read(str(self._models))
            cache_files.write(_FILE, _to_json(state, found))
        return found


def _from_json(kept: Any, state: str) -> Structure | None:
    """The structure that was kept; None where there is none of this state."""
    try:
        if kept["state"] != state:
            return None
        structure = {
            frozenset(needed): {module: set(names) for module, names in modules.items()}
            for needed, modules in kept["structure"]
        }
        # Without these nothing of transformers could be imported.
        return structure if frozenset() in structure else None
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _to_json(state: str, structure: Structure) -> dict[str, Any]:
    data = [
        [sorted(needed), {module: sorted(names) for module, names in modules.items()}]
        for needed, modules in structure.items()
    ]
    return {"state": state, "structure": data}
