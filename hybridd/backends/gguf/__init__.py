"""GGUF files, served by llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Facts

from .. import installed
from ..api import Adapters, Backend, Drafting, Parallel, Switch
from .draft_facts import check_draft
from .estimate import draft_estimate, estimate
from .inspect import FORMAT, inspect
from .option_checks import check_load_options
from .projector import companions

# Four conversations at a time cost little more than one in a batch, and their cells are reserved
# only where there is room. 256 is llama.cpp's LLAMA_MAX_SEQ.
_PARALLEL = Parallel(auto=4, most=256)
_GPU_LIBRARIES = ("libggml-cuda", "libggml-hip", "libggml-vulkan", "libggml-sycl", "libggml-musa")


class GGUFBackend(Backend):
    """The daemon's half of the format."""

    name = FORMAT
    engine = "llama.cpp"
    extra = "gguf"
    distributions = ("llama-cpp-python", "jinja2")
    engine_factory = "hybridd.backends.gguf.engine.generator:GGUFEngine"
    switch = Switch("Serve GGUF models (llama.cpp).", variable="ENABLE_GGUF_MODELS")
    preload = ("llama_cpp.llama_cpp", "jinja2")
    prepare = "hybridd.backends.gguf.engine.weights.kept_vocabulary:keep"
    suffixes = (".gguf",)
    splits_layers = True
    keeps_states = True
    tagged = True
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)
    adapters = Adapters(lambda facts: facts.weights_bytes)
    drafting = Drafting(check_draft, draft_estimate)
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


BACKEND: Backend = GGUFBackend()
