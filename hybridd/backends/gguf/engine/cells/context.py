"""llama.cpp's context: the KV cells of all sequences, decoding, cutting back, copying, saving.

Knows sequences by their number only, and no requests.

Two ways to keep the cells. As *streams*, every sequence has a part of its own, as long as the
context: no request waits for cells, and attention looks at one sequence's cells only. *Unified*,
the sequences share one pool: less memory where `kv_cells` is smaller than context_length x
parallel, and attention passes over the cells of all of them. So it is streams unless memory was to
be saved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np  # noqa: TID253 - worker side, where it may be imported

from hybridd.backends.api import LoadSpec
from hybridd.backends.engine.passes import Aborted
from hybridd.wire.errors import Unsupported

from ..weights.llama import llama
from ..weights.load_options import CACHE_TYPES, FLASH, LoadOptions
from ..weights.model import Model
from .batch import Batch

# Of the KV cache, with which attention goes by tiles.
_TILED_TYPES = ("f16", "f32")
# llama_decode's answers
_NO_ROOM = 1
_ABORTED = 2


class NoRoom(Exception):
    """There are not enough free cells for the batch; nothing was changed."""


class Context:
    """One context of a model. `close` it before the model.

    Args:
        model: Loaded.
        options: Settled, but for what only the model knows.
        threads: For everything that the processor computes.
        draft_rows: Of one batch, rows with logits beside one of each sequence.
        unified: Whether the sequences share their cells; None leaves it to their number.

    Attributes:
        native: llama.cpp's pointer, for samplers.
        length: Tokens of one sequence.
        parallel: How many sequences there are.
        cells: Of all sequences together, as llama.cpp rounds them.
        unified: Whether they share them.
        recurrent: A state stands for the past: sequences cannot be cut back.
        window: Tokens that layers with a sliding window look back on; 0 without such layers.
        micro_batch: Most rows of one `decode`.
        batch: To be filled for `decode`.
        beyond_original: A model with rope factors for long contexts uses those.
        tiles: What attention gains by filled passes; None where a GPU may compute it, or where it
            is of a kind that takes no tiles.
    """

    def __init__(
        self,
        model: Model,
        options: LoadOptions,
        threads: int,
        spec: LoadSpec,
        *,
        draft_rows: int = 0,
        unified: bool | None = None,
    ) -> None:
        self._model = model
        self.length = options.context_for(model.trained_context)
        self.parallel = options.parallel
        self.cells = max(options.kv_cells or self.length * self.parallel, self.length)
        fewer = self.cells < self.length * self.parallel or self.parallel == 1
        self.unified = fewer if unified is None else unified
        self.micro_batch = min(options.ubatch_size, options.batch_size, self.length)
        self.micro_batch = max(self.micro_batch, self.parallel)
        self._abort: Callable[[], bool] | None = None
        # ctypes keeps no reference to a callback: these have to live as long as the context.
        self._abort_callback = llama.ggml_abort_callback(self._asked_to_abort)
        self._no_callback = llama.ggml_abort_callback()
        params = self._params(options, threads, draft_rows)
        self.native = llama.llama_init_from_model(model.native, params)
        if not self.native:
            raise model.failure(spec, "its context could not be made")
        self._memory = llama.llama_get_memory(self.native)
        if not self._memory or model.has_encoder:
            self.close()
            raise Unsupported(
                f"{spec['model']} is no model that goes on with a text",
                capability="completion",
                format="gguf",
            )
        self.batch = Batch(self.micro_batch)
        self.recurrent = model.recurrent
        self.window = model.sliding_window
        self._logits = ctypes.c_float * model.vocabulary.vocab_size
        self._views: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
        self._shifted = False
        # One sequence's cells, as llama.cpp rounds them, decide which rope factors count.
        self.beyond_original = int(llama.llama_n_ctx_seq(self.native)) > model.original_context
        self.cells = int(llama.llama_n_ctx(self.native))
        # Where there is a GPU, it takes part in long passes also of layers that are not on it.
        plain = options.flash_attention is False or options.kv_cache_type not in _TILED_TYPES
        with_gpu = llama.llama_supports_gpu_offload()
        self.tiles = None if with_gpu or plain else replace(model.tiles, threads=threads)

    def _params(self, options: LoadOptions, threads: int, draft_rows: int) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = self.cells if self.unified else self.length * self.parallel
        params.n_batch = params.n_ubatch = self.micro_batch
        params.n_seq_max = self.parallel
        params.kv_unified = self.unified
        # Only a sequence's last row and its draft are ever sampled. Without this the buffer for
        # logits is made for all rows of a batch, 300 MiB for a vocabulary of 152k.
        params.n_outputs_max = self.parallel + draft_rows
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH[options.flash_attention]
        params.type_k = params.type_v = CACHE_TYPES[options.kv_cache_type]
        params.no_perf = True
        options.rope.apply(params)
        return params

    # ------------------------------------------------------------------ decoding

    def decode(self, abort: Callable[[], bool] | None = None) -> None:
        """Run the batch through the model.

        Args:
            abort: Asked between the nodes of the graph, in native code's time: cheap. It costs
                a microsecond each, so it is for prompts rather than for single tokens.

        Raises:
            Aborted: `abort` said so; sequences of the batch may hold a part of it.
            NoRoom: Cells are short.
            RuntimeError: llama.cpp failed, and said nothing that could be put right here.
        """
        if self._shifted:
            # Positions are put right in the cells now; an abort would leave some layers behind.
            abort, self._shifted = None, False
        if abort is not None:
            self._abort = abort
            llama.llama_set_abort_callback(self.native, self._abort_callback, None)
        try:
            result = llama.llama_decode(self.native, self.batch.native)
        finally:
            if abort is not None:
                llama.llama_set_abort_callback(self.native, self._no_callback, None)
                self._abort = None
        if result == _ABORTED:
            raise Aborted
        if result == _NO_ROOM:
            raise NoRoom
        if result != 0:
            raise RuntimeError(f"llama_decode answered {result}")

    def logits(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Those of a row of the last batch, [vocabulary]; valid until the next `decode`.

        A view on llama.cpp's own memory: what is written to it is what its samplers see.
        """
        pointer = llama.llama_get_logits_ith(self.native, row)
        assert pointer, "the row's logits were not asked for"
        address = ctypes.addressof(pointer.contents)
        # llama.cpp writes them to the same few addresses all the time.
        if (view := self._views.get(address)) is None:
            view = np.ctypeslib.as_array(self._logits.from_address(address))
            self._views[address] = view
        return view

    def set_threads(self, count: int) -> None:
        """Compute with this many threads from now on."""
        llama.llama_set_n_threads(self.native, count, count)
        if self.tiles is not None:
            self.tiles = replace(self.tiles, threads=count)

    def _asked_to_abort(self, _data: Any) -> bool:
        return self._abort is not None and self._abort()

    # ------------------------------------------------------------------ cells

    def can_cut(self, sequence: int, held: int, length: int) -> bool:
        """Whether a sequence that holds `held` tokens can be cut back to its first `length`.

        A recurrent state stands for all that came before and has no way back. A sliding window
        has thrown away what lies before it: the next token must not look at what is missing.
        """
        if length in (0, held):
            return True
        if self.recurrent:
            return False
        if not self.window:
            return True
        first = int(llama.llama_memory_seq_pos_min(self._memory, sequence))
        return first <= max(0, length - self.window + 1)

    def can_copy(self, sequence: int, held: int, length: int) -> bool:
        """Whether another sequence can get the first `length` tokens of one that holds `held`.

        Between streams they go as a saved state, and llama.cpp saves nothing of what a sliding
        window has moved past: such a copy can be cut back no further than the window allows.
        """
        if not self.unified and self.window and held > self.window and length != held:
            return False
        return self.can_cut(sequence, held, length)

    def cut(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` tokens, which `can_cut` has to allow."""
        llama.llama_memory_seq_rm(self._memory, sequence, length if length else -1, -1)

    def clear(self) -> None:
        """Forget every sequence, and the numbers in the cells with them."""
        llama.llama_memory_clear(self._memory, True)

    def share(self, source: int, target: int) -> None:
        """Make `target` hold the cells of `source`, which have to be unified.

        Between streams llama.cpp would move the data at the next `decode` only, when a state may
        have been put into the source; there a state has to be copied.
        """
        llama.llama_memory_seq_rm(self._memory, target, -1, -1)
        llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    @property
    def can_shift(self) -> bool:
        """Whether a part in the middle can be thrown away, so that what follows moves up."""
        return self.can_cut_anywhere and bool(llama.llama_memory_can_shift(self._memory))

    def shift(self, sequence: int, start: int, count: int) -> None:
        """Throw `count` tokens from `start` away and move up what follows.

        llama.cpp puts the positions right at the next `decode`, which has to come before the
        cells are read or copied in any other way. A cell that several sequences share would move
        for all of them.
        """
        llama.llama_memory_seq_rm(self._memory, sequence, start, start + count)
        llama.llama_memory_seq_add(self._memory, sequence, start + count, -1, -count)
        self._shifted = True

    def held(self, sequence: int) -> int:
        """How many tokens llama.cpp has of a sequence."""
        return int(llama.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    @property
    def can_cut_anywhere(self) -> bool:
        """Whether any part at a sequence's end can be taken back without a trace."""
        return not (self.recurrent or self.window)

    # ------------------------------------------------------------------ states

    def state_bytes(self, sequence: int) -> int:
        """What `save` would give."""
        return int(llama.llama_state_seq_get_size(self.native, sequence))

    def save(self, sequence: int) -> bytearray:
        """A sequence's state, for `restore`."""
        size = self.state_bytes(sequence)
        data = bytearray(size)
        buffer = (ctypes.c_uint8 * size).from_buffer(data)
        written = llama.llama_state_seq_get_data(self.native, buffer, size, sequence)
        del buffer  # a bytearray that is exported cannot be cut
        del data[written:]
        return data

    def restore(self, sequence: int, data: bytearray) -> bool:
        """Put a saved state into a sequence; False, and an empty one, when it cannot be."""
        self.cut(sequence, 0)
        buffer = (ctypes.c_uint8 * len(data)).from_buffer(data)
        taken = llama.llama_state_seq_set_data(self.native, buffer, len(data), sequence)
        del buffer
        if not taken:
            self.cut(sequence, 0)
        return bool(taken)

    def close(self) -> None:
        """Free it. Safe to call twice."""
        if self.native:
            llama.llama_free(self.native)
        self.native = None
