"""A GGUF model in memory with its context: loading, decoding, freeing. Knows no requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hybridd.backends.api import LoadSpec, Report
from hybridd.backends.cpu import threads_for
from hybridd.wire.errors import HybriddError, LoadFailed, ModelInvalid, Unsupported

from .library import Log, llama
from .load_options import CACHE_TYPES, LoadOptions
from .vocabulary import Vocabulary

_FLASH = {
    None: llama.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: llama.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}
# What llama.cpp and its backends write when memory runs out.
_NO_MEMORY = ("failed to allocate", "unable to allocate", "out of memory", "insufficient memory")
_ABORTED = 2  # llama_decode's answer when the abort callback ended it


class Aborted(Exception):
    """`decode` was ended by its `abort`; the sequence's cells hold what was done of it."""


class Session:
    """One model, one context. `open` it, `close` it; everything on one thread.

    Attributes:
        vocabulary: The model's.
        context_length: Tokens of one sequence.
        threads: Used for everything that the processor computes.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        self._abort: Callable[[], bool] | None = None
        # ctypes keeps no reference to a callback: these have to live as long as the context.
        self._abort_callback = llama.ggml_abort_callback(self._asked_to_abort)
        self._no_callback = llama.ggml_abort_callback()

    # ------------------------------------------------------------------ loading

    def open(self, spec: LoadSpec, options: LoadOptions, report: Report) -> None:
        """Load the model and make its context.

        Raises:
            HybriddError: It cannot be loaded; says why.
            LoadCancelled: `report` said so.
        """
        self._model = self._load_model(spec, options, report)
        self.vocabulary = Vocabulary(llama.llama_model_get_vocab(self._model))
        trained = int(llama.llama_model_n_ctx_train(self._model))
        self.context_length = options.context_for(trained)
        self.threads = options.threads or threads_for(self.weights_bytes)
        self._ubatch = min(options.ubatch_size, self.context_length)
        report("context", 0, 1)
        self._context = self._make_context(spec, options)
        self._memory = llama.llama_get_memory(self._context)
        if not self._memory:
            raise Unsupported(
                f"{spec['model']} is no model that generates text",
                capability="completion",
                format="gguf",
            )
        self._batch = llama.llama_batch_init(self._ubatch, 0, 1)
        report("context", 1, 1)

    def _load_model(self, spec: LoadSpec, options: LoadOptions, report: Report) -> Any:
        path = Path(spec["path"])
        try:
            total = _size(path)
        except OSError as exc:
            reason = os.strerror(exc.errno or 0)
            raise LoadFailed(
                f"{spec['model']} could not be read: {reason}", reason="unreadable", detail=reason
            ) from exc
        stopped: list[BaseException] = []

        def progress(fraction: float, _data: Any) -> bool:
            try:
                report("weights", int(fraction * total), total)
            except BaseException as exc:
                # Native code is between here and the caller: the exception goes around it.
                stopped.append(exc)
                return False
            return True

        callback = llama.llama_progress_callback(progress)
        params = self._model_params(options, path)
        params.progress_callback = callback
        model = llama.llama_model_load_from_file(os.fsencode(path), params)
        if stopped:
            if model:
                llama.llama_model_free(model)
            raise stopped[0]
        if not model:
            raise self._failure(spec, "the file could not be loaded")
        return model

    def _model_params(self, options: LoadOptions, path: Path) -> Any:
        params = llama.llama_model_default_params()
        params.load_mode = (
            llama.LLAMA_LOAD_MODE_MMAP if options.mmap else llama.LLAMA_LOAD_MODE_NONE
        )
        params.n_gpu_layers = options.layers_for(
            _layers(path) if isinstance(options.gpu_layers, float) else 0
        )
        if options.main_gpu is not None:
            params.split_mode = llama.LLAMA_SPLIT_MODE_NONE
            params.main_gpu = options.main_gpu
        return params

    def _make_context(self, spec: LoadSpec, options: LoadOptions) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = self.context_length
        params.n_batch = max(self._ubatch, min(options.batch_size, self.context_length))
        params.n_ubatch = self._ubatch
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = _FLASH[options.flash_attention]
        params.type_k = params.type_v = CACHE_TYPES[options.kv_cache_type]
        params.no_perf = True
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise self._failure(spec, "its context could not be made")
        return context

    def _failure(self, spec: LoadSpec, otherwise: str) -> HybriddError:
        """What llama.cpp's last error lines mean. The file's path stays out of it."""
        lines = [line.replace(spec["path"], "the file") for line in self._log.errors]
        text = " ".join(lines).lower()
        detail = lines[-3:]
        if any(sign in text for sign in _NO_MEMORY):
            return LoadFailed(
                f"there was not enough memory to load {spec['model']}; unload another model or "
                "load it with a smaller context_length",
                reason="out_of_memory",
                detail=detail,
            )
        reason = next((r for line in lines if (r := _reason(line))), otherwise)
        kind = ModelInvalid if self._model is None and lines else LoadFailed
        return kind(f"{spec['model']} could not be loaded: {reason}", reason=reason, detail=detail)

    # ------------------------------------------------------------------ facts

    @property
    def native(self) -> Any:
        """The context's pointer, for samplers."""
        return self._context

    @property
    def chunk(self) -> int:
        """How many tokens of a prompt one `decode` takes."""
        return self._ubatch

    @property
    def layers(self) -> int:
        """How many the model has."""
        return int(llama.llama_model_n_layer(self._model))

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(llama.llama_model_size(self._model))

    def chat_template(self) -> str | None:
        """The template in the file, if there is one."""
        text = llama.llama_model_chat_template(self._model, None)
        return text.decode("utf-8", "replace") if text else None

    # ------------------------------------------------------------------ decoding

    def decode(
        self, tokens: Sequence[int], position: int, abort: Callable[[], bool] | None = None
    ) -> None:
        """Run tokens of the sequence through the model; the last one's logits can be sampled.

        Args:
            tokens: At most `chunk`.
            position: Of the first one in the sequence.
            abort: Asked between the nodes of the graph, in native code's time: cheap. It costs
                a microsecond each, so it is for prompts rather than for single tokens.

        Raises:
            Aborted: `abort` said so.
            RuntimeError: llama.cpp failed, which is nobody's fault here.
        """
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 0
        batch.logits[len(tokens) - 1] = 1
        if abort is not None:
            self._abort = abort
            llama.llama_set_abort_callback(self._context, self._abort_callback, None)
        try:
            result = llama.llama_decode(self._context, batch)
        finally:
            if abort is not None:
                llama.llama_set_abort_callback(self._context, self._no_callback, None)
                self._abort = None
        if result == _ABORTED:
            raise Aborted
        if result != 0:
            raise RuntimeError(f"llama_decode answered {result}")

    def forget(self) -> None:
        """Empty the sequence's cells."""
        llama.llama_memory_seq_rm(self._memory, 0, -1, -1)

    def _asked_to_abort(self, _data: Any) -> bool:
        return self._abort is not None and self._abort()

    def close(self) -> None:
        """Free everything, in the order that llama.cpp asks for. Safe to call twice."""
        if self._batch is not None:
            llama.llama_batch_free(self._batch)
            self._batch = None
        if self._context is not None:
            llama.llama_free(self._context)
            self._context = None
        if self._model is not None:
            llama.llama_model_free(self._model)
            self._model = None


def _size(path: Path) -> int:
    """Bytes of the model's file; of all its parts where it is the first of several."""
    stem, of, count = path.name.rpartition("-of-")
    if not of or not stem.endswith("-00001"):
        return path.stat().st_size
    pattern = f"{stem.removesuffix('00001')}*-of-{count}"
    return sum(part.stat().st_size for part in path.parent.glob(pattern))


def _layers(path: Path) -> int:
    """How many layers a model has, by loading its vocabulary only."""
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return 0
    layers = int(llama.llama_model_n_layer(model))
    llama.llama_model_free(model)
    return layers


def _reason(line: str) -> str | None:
    """The sentence inside one of llama.cpp's error lines, which begin with function names."""
    _, found, reason = line.partition("error loading model: ")
    return reason.strip() or None if found else None
