"""Importing transformers without what its modules name and no worker uses.

torch's compiler is there for decorators, torch's distributed tensors for models in many processes,
trio for an asynchronous client of the hub. They take a fifth of the time that all imports take, and
46 MiB. The compiler is imported when something asks it for more than marks; of the others
transformers has branches for where they are missing.

What workers import later, for adapters and quantized weights, is kept from the compiler too: each
of them would import it anew.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, cast

import torch  # noqa: TID253 - worker side, where it may be imported

_COMPILER = "torch._dynamo"
# A module of the compiler's that the masks of all models need, and which needs nothing of it.
_BESIDE = f"{_COMPILER}._trace_wrapped_higher_order_op"
_ASYNCHRONOUS = "trio"
# Of torch's distributed half: transformers imports them, and others take them as being there.
_ON_REQUEST = frozenset({"tensor", "fsdp", "checkpoint", "nn", "_functional_collectives"})

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def lean() -> Iterator[None]:
    """For the import of transformers' modules, or peft's; what they import later may be whole."""
    _put_off()
    distributed, had = torch.distributed, _ASYNCHRONOUS in sys.modules
    available = distributed.is_available
    if available():
        vars(distributed).setdefault("__getattr__", _on_request)
    # transformers keeps the answer, as peft does.
    distributed.is_available = lambda: False
    if not had:
        cast("dict[str, Any]", sys.modules)[_ASYNCHRONOUS] = None  # the import system's "no such"
    try:
        yield
    finally:
        distributed.is_available = available
        if not had:
            sys.modules.pop(_ASYNCHRONOUS, None)


class DeferredModule(ModuleType):
    """A module that is imported when it is asked for anything but what is defined here.

    The decorators keep what they were given, and hand it to the module's own once those are there.
    Until then nothing is compiled, and they mean nothing.

    Args:
        spec: Where the module is.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__dict__.update(vars(module_from_spec(spec)))
        # An import of what is inside asks for it, and finds that the package comes first.
        del self.__path__
        self._lock = threading.RLock()
        self._importing = False
        self._told: list[tuple[str, Any]] = []

    def assume_constant_result(self, fn: F) -> F:
        """Mark a function for the compiler."""
        self._told.append(("assume_constant_result", fn))
        return fn

    def allow_in_graph(self, fn: F) -> F:
        """Mark a function for the compiler."""
        self._told.append(("allow_in_graph", fn))
        return fn

    def mark_static_address(self, _tensor: Any, guard: bool = True) -> None:
        """Nothing: a hint for what will be compiled, and to keep tensors for it would be a leak."""

    def disable(self, fn: Any = None, *settings: Any, **options: Any) -> Any:
        """Keep a function from being compiled; without one, the decorator that does."""
        if fn is None:
            return lambda one: self.disable(one, *settings, **options)
        if not isinstance(fn, FunctionType | MethodType):
            return self.disable(fn, *settings, **options) if DeferredModule._imported(self) else fn
        own: Any = None

        @wraps(fn)
        def disabled(*args: Any, **kwargs: Any) -> Any:
            nonlocal own
            if own is None:
                if type(self) is DeferredModule:
                    return fn(*args, **kwargs)
                own = self.disable(fn, *settings, **options)  # the real one, by now
            return own(*args, **kwargs)

        marked: Any = disabled
        marked._torchdynamo_disable = True
        marked._torchdynamo_disable_msg = options.get("reason")
        return marked

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules asks each for names of this kind. The method is named by
        # its class, which may be another one's by now, in another thread.
        if (not name.startswith("__") or name == "__path__") and DeferredModule._imported(self):
            return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _imported(self) -> bool:
        """Be the real one; whether it is: not while it is just being imported."""
        with self._lock:
            if type(self) is DeferredModule:  # still: no other thread had it imported
                if self._importing:
                    return False
                self._import()
            return True

    def _import(self) -> None:
        """Become the real one."""
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self._importing, self.__path__ = True, spec.submodule_search_locations or []
        try:
            spec.loader.exec_module(self)
        except BaseException:
            del self.__path__
            raise
        finally:
            self._importing = False
        self.__class__ = ModuleType  # type: ignore[assignment]
        for decorator, fn in self._told:
            getattr(self, decorator)(fn)


def _put_off() -> None:
    """Have the compiler imported when it is needed, if it is not there yet."""
    spec = None if _COMPILER in sys.modules else find_spec(_COMPILER)
    if spec is None:
        return
    compiler = sys.modules[_COMPILER] = DeferredModule(spec)
    torch._dynamo = compiler
    compiler.__path__ = spec.submodule_search_locations or []
    try:
        importlib.import_module(_BESIDE)
    except Exception:
        compiler._imported()  # with another version of torch it may need the compiler
    if type(compiler) is DeferredModule:
        vars(compiler).pop("__path__", None)


def _on_request(name: str) -> Any:
    """A part of `torch.distributed` that somebody wants who did not import it."""
    if name in _ON_REQUEST:
        return importlib.import_module(f"torch.distributed.{name}")
    raise AttributeError(f"module 'torch.distributed' has no attribute {name!r}")


@contextmanager
def compiling_later() -> Iterator[None]:
    """For the import of a library that has functions compiled, whether they are called or not."""
    compile_now = torch.compile

    def compile_later(model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda one: compile_later(one, **options)
        if not isinstance(model, FunctionType):
            return compile_now(model, **options)
        compiled: Any = None

        @wraps(model)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal compiled
            if compiled is None:
                compiled = compile_now(model, **options)
            return compiled(*args, **kwargs)

        return call

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now
