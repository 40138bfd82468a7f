"""The vocabulary of a loaded GGUF model, as `prompts.Tokenizer` wants it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any

from .llama import llama

_NAMED = {
    "bos_token": llama.llama_vocab_bos,
    "eos_token": llama.llama_vocab_eos,
    "pad_token": llama.llama_vocab_pad,
    "sep_token": llama.llama_vocab_sep,
}
_NULL_TOKEN = -1
_SPECIAL_ATTRIBUTES = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN
_PIECE_BYTES = 256
_SHORT_CHARS = 20_000


class Vocabulary:
    """Tokens to bytes and back.

    Args:
        vocab: llama.cpp's pointer, which lives as long as the model.

    Attributes:
        native: The same.
    """

    def __init__(self, vocab: Any) -> None:
        self.native = vocab
        self.vocab_size = int(llama.llama_vocab_n_tokens(vocab))
        self._byte_level = int(llama.llama_vocab_type(vocab)) == llama.LLAMA_VOCAB_TYPE_BPE
        bos = int(llama.llama_vocab_bos(vocab))
        wanted = llama.llama_vocab_get_add_bos(vocab) and bos != _NULL_TOKEN
        self.prefix: Sequence[int] = (bos,) if wanted else ()
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)

    def encode(self, text: str, special: bool) -> list[int]:
        """See `prompts.Tokenizer`."""
        data = text.encode("utf-8", "replace")
        # A token is at least a byte, but a tokenizer may put a space before the text.
        room = len(data) + 8
        tokens = (llama.llama_token * room)()
        count = llama.llama_tokenize(self.native, data, len(data), tokens, room, False, special)
        if count < 0:
            tokens = (llama.llama_token * -count)()
            count = llama.llama_tokenize(
                self.native, data, len(data), tokens, -count, False, special
            )
        return list(tokens[:count])

    def decode(self, tokens: Sequence[int]) -> str:
        """See `prompts.Tokenizer`."""
        if self._byte_level:
            # llama.cpp would take out spaces before punctuation, which are the text's own.
            data = b"".join(self._piece(token, special=True) for token in tokens)
            return data.decode("utf-8", "replace")
        array = (llama.llama_token * len(tokens))(*tokens)
        room = 16 * len(tokens) + 16
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = llama.llama_detokenize(
                self.native, array, len(tokens), buffer, room, False, True
            )
            if size >= 0:
                return buffer.raw[:size].decode("utf-8", "replace")
            room = -size

    def piece(self, token: int) -> bytes:
        """The bytes that a generated token adds to the text; none for a control token."""
        return self._piece(token, special=False)

    def _piece(self, token: int, *, special: bool) -> bytes:
        size = llama.llama_token_to_piece(
            self.native, token, self._buffer, len(self._buffer), 0, special
        )
        if size >= 0:
            return self._buffer.raw[:size]
        self._buffer = ctypes.create_string_buffer(-size)
        return self._piece(token, special=special)

    def name(self, token: int) -> str:
        """A token's string in the vocabulary, by which special tokens are known."""
        text = llama.llama_vocab_get_text(self.native, token)
        return text.decode("utf-8", "replace") if text else ""

    def ends(self, token: int) -> bool:
        """Whether the token says that the generation is over."""
        return bool(llama.llama_vocab_is_eog(self.native, token))

    @cached_property
    def end_tokens(self) -> list[int]:
        """Every token that does. Looks through the vocabulary: one that the file names as an end
        of messages or of a filled-in middle need not be of a special kind.
        """
        ends = map(llama.llama_vocab_is_eog, repeat(self.native), range(self.vocab_size))
        return [token for token, is_end in enumerate(ends) if is_end]

    def special_strings(self) -> Iterable[str]:
        """See `prompts.Tokenizer`."""
        return (self.name(token) for token in self._special)

    def may_have_special(self, text: str) -> bool:
        """See `prompts.Tokenizer`: parsing it makes a difference.

        Reading a short text twice is a hundred times faster than looking through a vocabulary,
        which the first request after a load would wait for.
        """
        if "_special" in self.__dict__ or len(text) > _SHORT_CHARS:
            return True
        return self.encode(text, True) != self.encode(text, False)

    @cached_property
    def _special(self) -> list[int]:
        """Tokens that are no text. Looks through the vocabulary: 40 ms for 152k tokens."""
        attributes = map(llama.llama_vocab_get_attr, repeat(self.native), range(self.vocab_size))
        return [token for token, bits in enumerate(attributes) if bits & _SPECIAL_ATTRIBUTES]

    def token_names(self) -> Mapping[str, str]:
        """See `prompts.Tokenizer`."""
        named = {name: int(find(self.native)) for name, find in _NAMED.items()}
        return {name: self.name(token) for name, token in named.items() if token != _NULL_TOKEN}
