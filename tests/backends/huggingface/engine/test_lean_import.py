"""What a worker of Hugging Face models imports, and that the rest is there when it is wanted."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.make_transformers import make
from tests.support_models import DEMO_HUGGINGFACE, make_engine

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine.compat import lean_import  # noqa: E402 - without torch: skipped
from hybridd.backends.huggingface.engine.compat.lean_import import DeferredModule, compiling_later  # noqa: E402 - the same

UNUSED = {"trio", "torch.distributed.tensor", "torch._dynamo.config", "torch._inductor"}
ANSWERS = """
import sys
from pathlib import Path
from tests.support_models import ask, ignore_progress, make_engine, spec_for
for path in {paths!r}:
    engine = make_engine("huggingface")
    engine.load(spec_for(Path(path), "huggingface"), ignore_progress)
    assert ask(engine, prompt="hello", options={{"temperature": 0, "max_tokens": 8}}).tokens
    engine.close()
print(*sys.modules)
"""


def run(code: str) -> str:
    """What a fresh interpreter prints that has the engine imported."""
    code = f"import hybridd.backends.huggingface.engine.any_engine\n{code}"
    command = [sys.executable, "-W", "ignore", "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_a_worker_has_no_trio() -> None:
    assert not set(run("import sys; print(*sys.modules)").split()) & UNUSED


def test_first_answers_need_no_compiler(tmp_path: Path) -> None:
    make_engine("huggingface")  # its import has progress bars off, and their thread
    families = ("qwen3", "gemma3", "mixtral", "mamba")
    paths = [str(make(family, tmp_path / family)) for family in families]
    loaded = run(ANSWERS.format(paths=[str(DEMO_HUGGINGFACE), *paths])).splitlines()[-1].split()
    assert {f"transformers.models.{f}.modeling_{f}" for f in families} <= set(loaded)
    # trio: a plugin of pytest's, which the tests' own modules import, may bring it.
    assert not set(loaded) & (UNUSED - {"trio"})


# What a load has to import is imported by each worker anew, without the compiler.
LOADED = """
import sys
{before}
from pathlib import Path
from tests.support_models import ask, ignore_progress, make_engine, spec_for
spec = spec_for(Path({path!r}), "huggingface", **{options!r})
spec["adapters"] = {adapters!r}
engine = make_engine("huggingface")
engine.load(spec, ignore_progress)
assert ask(engine, prompt="hello", options={{"temperature": 0, "max_tokens": 8}}).tokens
engine.close()
print(*sys.modules)
"""


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantized_model_needs_no_compiler(quantization: str) -> None:
    for package in ("bitsandbytes", "accelerate"):
        pytest.importorskip(package, reason="the extra quantization is not installed")
    options = {"quantization": quantization}
    path = str(DEMO_HUGGINGFACE)
    said = run(LOADED.format(path=path, options=options, adapters=[], before=""))
    assert "bitsandbytes" in (loaded := said.splitlines()[-1].split())
    assert not set(loaded) & (UNUSED - {"trio"})


# peft 0.21 asks transformers 5 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("beside", ["", "sys.modules['bitsandbytes'] = None"])
def test_adapters_need_neither_the_compiler_nor_another_extra(tmp_path: Path, beside: str) -> None:
    peft: Any = pytest.importorskip("peft", reason="the extra adapters is not installed")
    make_engine("huggingface")  # its import has progress bars off, and their thread
    base = make("llama", tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(
        tmp_path / "one"
    )
    named = [{"name": "one", "path": str(tmp_path / "one")}]
    options = {"adapters": [{"name": "one", "path_or_id": "one"}]}
    said = run(LOADED.format(path=str(base), options=options, adapters=named, before=beside))
    assert "peft" in (loaded := said.splitlines()[-1].split())
    assert not set(loaded) & (UNUSED - {"trio"})


COMPILING = """
import torch, transformers
from transformers import PreTrainedModel
def double(x):
    return x * 2 if x.sum() > 0 else x
assert type(torch._dynamo).__name__ == "DeferredModule"
assert torch.compile(double, backend="eager")(torch.ones(3)).tolist() == [2, 2, 2]
assert type(torch._dynamo).__name__ == "module"
# What was marked before the compiler was there is known to it.
from torch._dynamo import trace_rules
marked = PreTrainedModel.__dict__["can_record_outputs"]
assert trace_rules.is_callable_allowed(getattr(marked, "fget", marked))
"""
DISABLED = """
import torch
seen = []
@torch.compiler.disable
def inner(x):
    seen.append(torch.compiler.is_compiling())
    return x + 1
class Owner:
    def method(self, x):
        return inner(x)
kept = torch.compiler.disable(Owner().method)
assert inner(1) == kept(1) == 2 and type(torch._dynamo).__name__ == "DeferredModule"
def outer(x):
    return inner(x) * kept(x)
assert torch.compile(outer, backend="eager")(torch.ones(2)).tolist() == [4, 4]
assert not any(seen)
# Of a class or a module it is the compiler's business.
assert isinstance(torch.compiler.disable(torch.nn.Linear(2, 2)), torch.nn.Module)
"""
OTHERS = """
import inspect, sys, torch
assert torch.distributed.tensor.DTensor and not hasattr(torch.distributed, "nothing")
inspect.getmodule(sys._getframe())
assert type(sys.modules['torch._dynamo']).__name__ == 'DeferredModule'
assert torch.distributed.is_available() == hasattr(torch._C, '_c10d_init')
import torch.distributed.tensor
import trio; trio.run(trio.sleep, 0)
"""


@pytest.mark.parametrize(
    "code",
    [
        COMPILING,
        DISABLED,
        OTHERS,
        "import torch._dynamo.config as c; assert c.recompile_limit > 0",
        "from torch._dynamo.utils import counters",
    ],
    ids=["compiling", "disabled", "others", "what is inside", "from what is inside"],
)
def test_what_was_left_out_is_there_when_wanted(code: str) -> None:
    run(code)


# ---------------------------------------------------------------- a module for later


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeferredModule]:
    """A package that counts how often it was imported, and has not been yet."""
    package = tmp_path / "put_off"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import builtins, threading\n"
        "builtins.put_off_imports.append(threading.get_ident())\n"
        "if builtins.put_off_fails.pop(): raise ImportError('not now')\n"
        "from . import inner\n"
        "value = inner.value\n"
        "def allow_in_graph(fn): builtins.put_off_told.append(fn)\n"
        "def disable(fn, recursive=True): return lambda: 'disabled'\n"
    )
    (package / "inner.py").write_text("import put_off\nvalue = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("builtins.put_off_imports", [], raising=False)
    monkeypatch.setattr("builtins.put_off_fails", [False], raising=False)
    monkeypatch.setattr("builtins.put_off_told", [], raising=False)
    spec = find_spec("put_off")
    assert spec is not None
    module = DeferredModule(spec)
    monkeypatch.setitem(sys.modules, "put_off", module)
    yield module
    sys.modules.pop("put_off.inner", None)


def counted(name: str) -> list[Any]:
    import builtins

    values: list[Any] = getattr(builtins, f"put_off_{name}")
    return values


def test_it_is_imported_when_it_is_asked_for_something(later: Any) -> None:
    assert later.__name__ == "put_off"
    assert later.__file__.endswith("__init__.py")
    assert not hasattr(later, "__warningregistry__")
    assert not counted("imports")
    assert later.value == 7
    assert later.inner.value == 7
    assert type(later) is ModuleType
    assert len(counted("imports")) == 1
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = later.missing


def test_what_is_inside_comes_after_it(later: Any) -> None:
    inner = importlib.import_module("put_off.inner")
    assert len(counted("imports")) == 1
    assert later.inner is inner


def test_its_decorators_wait_for_it(later: Any) -> None:
    def function() -> int:
        return 3

    assert later.allow_in_graph(function) is function
    assert later.assume_constant_result is not None
    decorated = later.disable(recursive=False)(function)
    assert decorated.__wrapped__ is function
    assert decorated() == 3
    later.mark_static_address([1])
    assert not counted("imports")
    assert later.value == 7
    assert counted("told") == [function]
    assert decorated() == "disabled", "the real one is asked now"


def test_what_is_no_function_is_disabled_by_the_real_one(later: Any) -> None:
    assert later.disable(Path)() == "disabled"
    assert len(counted("imports")) == 1


def test_one_that_fails_can_be_tried_again(later: Any) -> None:
    counted("fails")[:] = [False, True]
    with pytest.raises(ImportError, match="not now"):
        _ = later.value
    assert later.value == 7


def test_threads_that_ask_at_once_have_it_imported_once(later: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: later.value, range(32))) == [7] * 32
    assert len(counted("imports")) == 1


@pytest.mark.parametrize("missing", ["inner", "nothing"])
def test_it_comes_at_once_where_it_cannot_wait(
    later: Any, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Another version of torch may not have what all models need of it, or not without the rest."""
    monkeypatch.delitem(sys.modules, later.__name__)
    monkeypatch.setattr(torch, "_dynamo", torch._dynamo)
    monkeypatch.setattr(lean_import, "_COMPILER", "put_off")
    monkeypatch.setattr(lean_import, "_BESIDE", f"put_off.{missing}")
    failing = "import builtins\nif builtins.put_off_fails.pop(): raise ImportError('not now')\n"
    Path(later.__file__).with_name("inner.py").write_text(f"{failing}value = 7\n")
    counted("fails")[:] = [False, False] + [True] * (missing == "inner")
    lean_import._put_off()
    assert type(sys.modules["put_off"]) is ModuleType
    assert sys.modules["put_off"].value == 7
    assert not counted("fails")


# ---------------------------------------------------------------- functions for later


def test_functions_are_compiled_when_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[tuple[Any, dict[str, Any]]] = []

    def compile_now(model: Any, **options: Any) -> Any:
        compiled.append((model, options))
        return lambda *_args: "compiled"

    monkeypatch.setattr(torch, "compile", compile_now)

    def function() -> None:
        """Of somebody's."""

    with compiling_later():
        one = torch.compile(function, dynamic=False)
        other = torch.compile(fullgraph=True)(function)
        assert torch.compile(function.__call__)() == "compiled", "not a function's own"
    assert torch.compile is compile_now
    compiled.clear()
    assert one.__wrapped__ is function
    assert [one(), one(), other()] == ["compiled"] * 3
    assert compiled == [(function, {"dynamic": False}), (function, {"fullgraph": True})]
