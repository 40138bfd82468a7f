"""A GGUF model's weights in memory: loading with progress, facts, freeing. Knows no context."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from hybridd.backends.api import LoadSpec, Report
from hybridd.wire.errors import HybriddError, LoadFailed, ModelInvalid

from ...reader import read_header
from ...types import ENCODERS
from .attention_tiles import Tiles
from .kept_vocabulary import KeptVocabulary, kept_of
from .llama import Log, llama
from .load_options import LoadOptions
from .vocabulary import Vocabulary

# What llama.cpp and its backends write when memory runs out.
_NO_MEMORY = ("failed to allocate", "unable to allocate", "out of memory", "insufficient memory")

_VALUE_BYTES = 256  # for names and numbers


class Model:
    """One model. `open` it, `close` it; everything on one thread.

    Attributes:
        vocabulary: Its own, which may be one that was kept.
        native: llama.cpp's pointer.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.native: Any = None

    def open(self, spec: LoadSpec, options: LoadOptions, report: Report) -> None:
        """Load the weights.

        Raises:
            HybriddError: They cannot be loaded; says why.
            LoadCancelled: `report` said so.
        """
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
        kept = kept_of(spec["path"])
        params, _alive = _params(options, path, kept)
        params.progress_callback = callback
        self.native = llama.llama_model_load_from_file(os.fsencode(path), params)
        if stopped:
            self.close()
            raise stopped[0]
        if not self.native:
            self.native = None
            raise self.failure(spec, "the file could not be loaded")
        with_words = self.native if kept is None else kept.native
        self.vocabulary = Vocabulary(llama.llama_model_get_vocab(with_words))

    def failure(self, spec: LoadSpec, otherwise: str) -> HybriddError:
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
        kind = ModelInvalid if self.native is None and lines else LoadFailed
        return kind(f"{spec['model']} could not be loaded: {reason}", reason=reason, detail=detail)

    # ------------------------------------------------------------------ facts

    @property
    def layers(self) -> int:
        """How many it has."""
        return int(llama.llama_model_n_layer(self.native))

    @property
    def tiles(self) -> Tiles:
        """What attention on processors gains by filled passes."""
        heads = int(llama.llama_model_n_head(self.native))
        hidden = int(llama.llama_model_n_embd(self.native))
        said = self._value(f"{self._value('general.architecture')}.attention.key_length")
        width = heads * int(said) if said.isdecimal() else hidden
        weights = int(llama.llama_model_n_params(self.native))
        weights -= hidden * self.vocabulary.vocab_size  # looked up, or for a pass's last row only
        return Tiles.of(max(0, weights), max(1, self.layers), max(1, heads), max(1, width))

    @property
    def trained_context(self) -> int:
        """Tokens it was made for; 0 when the file does not say."""
        return int(llama.llama_model_n_ctx_train(self.native))

    @property
    def original_context(self) -> int:
        """Tokens beyond which a model with two sets of rope factors takes the long ones."""
        architecture = self._value("general.architecture")
        given = self._value(f"{architecture}.rope.scaling.original_context_length")
        return int(given) if given.isdecimal() else self.trained_context

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(llama.llama_model_size(self.native))

    @property
    def recurrent(self) -> bool:
        """Whether a state stands for the past, in some layers at least: it cannot be cut back."""
        return bool(
            llama.llama_model_is_recurrent(self.native) or llama.llama_model_is_hybrid(self.native)
        )

    @property
    def sliding_window(self) -> int:
        """Tokens that its layers with a sliding window look back on; 0 without such layers."""
        return int(llama.llama_model_n_swa(self.native))

    @property
    def has_encoder(self) -> bool:
        """Whether it reads the prompt with an encoder of its own, as T5 does."""
        return bool(llama.llama_model_has_encoder(self.native))

    @property
    def encodes(self) -> bool:
        """Whether its output is a vector or a score, as the header's reader has it too."""
        architecture = self._value("general.architecture")
        pooling = self._value(f"{architecture}.pooling_type")
        return architecture in ENCODERS or pooling not in ("", "0")

    def _value(self, key: str) -> str:
        """A value of the header as text; empty when it has none."""
        buffer = ctypes.create_string_buffer(_VALUE_BYTES)
        size = llama.llama_model_meta_val_str(self.native, key.encode(), buffer, _VALUE_BYTES)
        return buffer.value.decode("utf-8", "replace") if size >= 0 else ""

    def chat_template(self) -> str | None:
        """The template in the file, if there is one."""
        if not self._value("tokenizer.chat_template"):
            return None  # llama.cpp might answer with the name of one that it knows
        text = llama.llama_model_chat_template(self.native, None)
        return text.decode("utf-8", "replace") if text else None

    def close(self) -> None:
        """Free it; contexts have to be gone by then. Safe to call twice."""
        if self.native:
            llama.llama_model_free(self.native)
        self.native = None


def _params(
    options: LoadOptions, path: Path, kept: KeptVocabulary | None = None
) -> tuple[Any, Any]:
    """llama.cpp's parameters, and what has to live as long as they are used."""
    params = llama.llama_model_default_params()
    params.load_mode = options.load_mode
    params.n_gpu_layers = options.layers_for(
        _layers(path) if isinstance(options.gpu_layers, float) else 0
    )
    if options.main_gpu is not None:
        params.split_mode = llama.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = options.main_gpu
    shares = None
    if options.tensor_split:
        count = int(llama.llama_max_devices())
        shares = (ctypes.c_float * count)(*options.tensor_split[:count])
        params.tensor_split = shares
    overrides = None
    if kept is not None:
        params.kv_overrides = overrides = kept.overrides()
    return params, (shares, overrides)


def locked_bytes() -> int:
    """How much of this process's memory the kernel may not move out."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmLck:"):
            return int(line.split()[1]) * 1024
    return 0


def _size(path: Path) -> int:
    """Bytes of the model's file; of all its parts where it is the first of several."""
    stem, of, count = path.name.rpartition("-of-")
    if not of or not stem.endswith("-00001"):
        return path.stat().st_size
    pattern = f"{stem.removesuffix('00001')}*-of-{count}"
    return sum(part.stat().st_size for part in path.parent.glob(pattern))


def _layers(path: Path) -> int:
    """How many layers a model has, by its header: llama.cpp says it after the weights only."""
    said = read_header(path).metadata
    count = said.get(f"{said.get('general.architecture')}.block_count")
    return count if isinstance(count, int) else 0


def _reason(line: str) -> str | None:
    """The sentence inside one of llama.cpp's error lines, which begin with function names."""
    _, marker, reason = line.partition("error loading model: ")
    return reason.strip() or None if marker else None
