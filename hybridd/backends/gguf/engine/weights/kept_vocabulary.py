"""A model's vocabulary, kept by a template for the workers that are forked from it.

Most of a load from the page cache is llama.cpp making the vocabulary: 0.25 of 0.35 s for 152k
tokens. A template of one model reads it once; its workers load the weights with none and use the
one that they inherited. Only where llama.cpp was built for the processor alone: looking at a file
looks at the devices, and CUDA does not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, NamedTuple

from hybridd.wire.errors import LoadFailed

from .llama import llama, start

_NAME_BYTES = 256
_State = tuple[int, int, int, int]


class KeptVocabulary(NamedTuple):
    """What was read, and of which file.

    Attributes:
        native: llama.cpp's pointer to a model that has a vocabulary and no tensors. Never freed.
        state: Of the file when it was read.
    """

    native: Any
    path: str
    state: _State

    def overrides(self) -> Any:
        """Header values with which llama.cpp loads the rest of the model and no vocabulary.

        An array as `llama_model_params.kv_overrides` wants it, which ends with an empty key.
        """
        architecture = ctypes.create_string_buffer(_NAME_BYTES)
        llama.llama_model_meta_val_str(
            self.native, b"general.architecture", architecture, _NAME_BYTES
        )
        overrides: Any = (llama.llama_model_kv_override * 3)()
        overrides[0].key = b"tokenizer.ggml.model"
        overrides[0].tag = llama.LLAMA_KV_OVERRIDE_TYPE_STR
        overrides[0].value.val_str = b"none"
        # Logits are as many as tokens, so it has to know how many there would be.
        overrides[1].key = architecture.value + b".vocab_size"
        overrides[1].tag = llama.LLAMA_KV_OVERRIDE_TYPE_INT
        overrides[1].value.val_i64 = _size(self.native)
        return overrides


_kept: KeptVocabulary | None = None


def keep(path: str) -> None:
    """Read the vocabulary of the model at `path` into this process, which is to fork workers.

    Raises:
        LoadFailed: It has none, or it cannot be read; a worker will find out why. Or llama.cpp
            has a device, of a kind that `uses_gpu` does not know by its library.
    """
    global _kept
    start()
    if llama.llama_supports_gpu_offload():
        raise LoadFailed("a device would not survive the fork", reason="no_vocabulary")
    params = llama.llama_model_default_params()
    params.vocab_only = True
    params.n_gpu_layers = 0
    state = _state(path)
    native = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not native or _size(native) == 0 or _state(path) != state:
        raise LoadFailed("no vocabulary could be read", reason="no_vocabulary")
    _kept = KeptVocabulary(native, path, state)


def kept_of(path: str) -> KeptVocabulary | None:
    """What this process inherited, if it is of the file that lies at `path` now."""
    if _kept is None or _kept.path != path or _state(path) != _kept.state:
        return None
    return _kept


def _size(native: Any) -> int:
    """Tokens; 0 for a model without a vocabulary, whatever number it gives."""
    vocab = llama.llama_model_get_vocab(native)
    if int(llama.llama_vocab_type(vocab)) == llama.LLAMA_VOCAB_TYPE_NONE:
        return 0
    return int(llama.llama_vocab_n_tokens(vocab))


def _state(path: str) -> _State:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0, 0  # the load says so
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
