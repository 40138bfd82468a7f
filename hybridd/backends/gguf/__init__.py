"""GGUF files, served by llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from hybridd.core.model import Facts

from .. import installed
from ..api import Backend, Parallel
from .draft_facts import check_draft
from .estimate import draft_estimate, estimate
from .inspect import FORMAT, inspect
from .option_checks import check_load_options
from .projector import companions

# Four conversations at a time cost little more than one in a batch, and their cells are reserved
# only where there is room. 256 is llama.cpp's LLAMA_MAX_SEQ.
_PARALLEL = Parallel(auto=4, most=256)
_GPU_LIBRARIES = ("libggml-cuda", "libggml-hip", "libggml-vulkan", "libggml-sycl", "libggml-musa")


class GGUFBackend:
    """The daemon's half of the format."""

    name = FORMAT
    engine = "llama.cpp"
    extra: str | None = "gguf"
    distributions: tuple[str, ...] = ("llama-cpp-python", "jinja2")
    engine_factory = "hybridd.backends.gguf.engine.generator:GGUFEngine"
    preload: tuple[str, ...] = ("llama_cpp.llama_cpp", "jinja2")
    prepare = "hybridd.backends.gguf.engine.weights.kept_vocabulary:keep"
    suffixes: tuple[str, ...] = (".gguf",)
    splits_layers = True
    keeps_states = True
    tagged = True
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)
    check_draft = staticmethod(check_draft)
    draft_estimate = staticmethod(draft_estimate)
    companions = staticmethod(companions)

    def uses_gpu(self) -> bool:
        """Whether llama.cpp was built with a GPU backend: each is a library of its own."""
        return any(
            name.startswith(_GPU_LIBRARIES) for name in installed.files_of("llama_cpp", "lib")
        )

    def check_load_options(self, load_options: Mapping[str, Any]) -> None:
        """See `api.Backend`."""
        check_load_options(load_options, self.uses_gpu)

    def parallel(self, facts: Facts) -> Parallel:
        """Sequences in one batch."""
        return _PARALLEL

    def claims(self, names: Set[str]) -> bool:
        """A model of this format is a file, never a directory."""
        return False


BACKEND: Backend = GGUFBackend()
