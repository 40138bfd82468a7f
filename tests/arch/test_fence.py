"""Only `huggingface/engine/compat` leans on what torch, transformers and peft do not promise.

Told from the sources: which modules they import, which underscore names they take from others than
themselves, and whether they spell a name that differs between versions of a library.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "hybridd" / "backends" / "huggingface" / "engine"
SHARED = ROOT / "hybridd" / "backends" / "engine"
FENCE = ENGINE / "compat"

LIBRARIES = {"torch", "transformers", "peft"}
# What a version calls otherwise, or has not.
CHANGING = {
    *("past_key_values", "cache_params", "DynamicCache", "DynamicLayer", "sliding_window"),
    *("set_attn_implementation", "AttentionInterface", "ALL_ATTENTION_FUNCTIONS"),
    *("image_token", "image_token_id", "image_token_ids", "get_text_with_replacements"),
    *("rope_deltas", "set_tqdm_hook", "set_scale", "base_model", "mkldnn"),
}
NAMED_TUPLES = {"_replace", "_asdict", "_fields"}
LOOKS_UP = {"getattr", "hasattr", "setattr", "delattr"}
IMPORTS = {"import_module", "__import__", "importorskip"}


def trespasses(source: str, inherited: Collection[str] = ()) -> list[str]:
    """What a module of the engine, outside of the fence, does that only the fence may.

    Args:
        inherited: Underscore names that its classes may have of their parents.
    """
    tree = ast.parse(source)
    seen = {*_imports(tree), *_names(tree, inherited)}
    return [f"line {line}: {what}" for line, what in sorted(seen)]


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        modules: list[str] = []
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case ast.Call(args=[ast.Constant(value=str(module)), *_]):
                modules = [module] if _called(node) in IMPORTS else []
        for module in modules:
            if module.partition(".")[0] in LIBRARIES:
                yield node.lineno, f"imports {module}"


def _names(tree: ast.AST, inherited: Collection[str]) -> Iterator[tuple[int, str]]:
    own = set(_defined(tree))
    for node in ast.walk(tree):
        names: list[str] = []
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in inherited:
                pass
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                names = [] if name in inherited else [name]
            case ast.Attribute(attr=name):
                names = [name]
            case ast.Call(args=[_, ast.Constant(value=str(name)), *_], keywords=keywords):
                names = [name] if _called(node) in LOOKS_UP else []
                names += [keyword.arg for keyword in keywords if keyword.arg]
            case ast.Call(keywords=keywords):
                names = [keyword.arg for keyword in keywords if keyword.arg]
            case ast.Constant(value=str(name)) if name in CHANGING:
                names = [name]
        for name in names:
            private = name.startswith("_") and not name.endswith("__")
            if (private and name not in own | NAMED_TUPLES) or name in CHANGING:
                yield getattr(node, "lineno", 0), f"names {name}"


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", None) or getattr(call.func, "id", "")


def _defined(tree: ast.AST) -> Iterator[str]:
    """The underscore names that a module, and its classes, have of their own."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def sources(directory: Path) -> dict[str, str]:
    """The modules of a directory but for the fence's."""
    paths = (path for path in directory.rglob("*.py") if FENCE not in path.parents)
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def test_no_module_outside_leans_on_a_library() -> None:
    engine = sources(ENGINE)
    inherited = {
        name
        for source in {**engine, **sources(SHARED)}.values()
        for name in _defined(ast.parse(source))
    }
    told = {path: trespasses(source, inherited) for path, source in engine.items()}
    assert {path: seen for path, seen in told.items() if seen} == {}
    assert "hybridd/backends/huggingface/engine/forward/batched.py" in told


def test_no_other_module_imports_these_libraries() -> None:
    told = {
        path: list(_imports(ast.parse(source)))
        for path, source in sources(ROOT / "hybridd").items()
    }
    assert {path: seen for path, seen in told.items() if seen} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import transformers",
        "def load():\n    from transformers.cache_utils import Cache",
        "import torch.nn",
        "import peft",
        "import importlib\nimportlib.import_module('transformers.models.auto')",
        "config._attn_implementation",
        "config._attn_implementation_internal = 'sdpa'",
        "getattr(model, '_supports_attention_backend', False)",
        "torch.ops.mkldnn._linear_pointwise.default",
        "auto_factory._get_model_class(config, mapping)",
        "class Own:\n    def one(self):\n        return self.loaded._model_mapping",
        "model(input_ids=ids, past_key_values=cache)",
        "output.past_key_values",
        "getattr(output, 'cache_params')",
        "given = {'past_key_values': cache}",
        "keeper.rope_deltas = None",
    ],
)
def test_a_trespass_is_seen(planted: str) -> None:
    assert trespasses(planted)


def test_what_is_a_modules_own_is_none() -> None:
    assert not trespasses(
        "from ..compat.imports import torch\n"
        "class Own:\n"
        "    def __init__(self):\n"
        "        self._rows = []\n"
        "    def _all(self, other):\n"
        "        return other._rows, self._all, self.__class__\n"
        "torch.nn.functional.linear(rows, weight)\n"
    )
    assert not trespasses("self._parents", inherited={"_parents"})
