"""The tokenizer of a Hugging Face model, as `prompts.Tokenizer` wants it, and token by token.

A generated token is turned into its bytes by the tokenizer's own scheme, so that streamed text is
the whole text byte for byte; decoding a growing list of ids again and again would be slower, and
would have to take back characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hybridd.wire.errors import InvalidParams, LoadFailed, ModelInvalid

from ..compat import auto_classes
from ..compat.imports import torch

_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")
# Tokens that end a turn in some model family, whatever its configuration says; llama.cpp takes
# them for such too.
_END_STRINGS = frozenset(
    {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|EOT|>",
        "<EOT>",
        "<｜end▁of▁sentence｜>",
        "<turn|>",
    }
)


def load_tokenizer(path: Path, model: str, trust_remote_code: bool = False) -> Any:
    """transformers' tokenizer of the model in the directory `path`.

    Args:
        trust_remote_code: Code in the directory may be run.

    Raises:
        ModelInvalid: Its files are no tokenizer.
        LoadFailed: It needs a package that is not installed.
    """
    try:
        return auto_classes.load_tokenizer(path, trust_remote_code)
    except ImportError as exc:
        raise LoadFailed(
            f"the tokenizer of {model} needs a Python package that is not installed",
            reason="tokenizer",
            module=exc.name,
        ) from exc
    except Exception as exc:
        # The tokenizers library raises bare exceptions.
        raise ModelInvalid(
            f"the tokenizer of {model} cannot be read", reason="bad tokenizer files"
        ) from exc


def embedded(model: Any) -> int | None:
    """How many tokens a model has a vector for; None where it keeps none of the usual kind."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return int(table.num_embeddings) if isinstance(table, torch.nn.Embedding) else None


def check_embedded(
    tokens: Sequence[int], count: int | None, field: str, but: Collection[int] = ()
) -> None:
    """Refuse what a tokenizer knows and its model does not, as of a token that was added to one.

    Not left to the model: it would fail for all that share the pass, and on a GPU for good.

    Args:
        count: As `embedded` gives it.
        field: Where the text came from.
        but: Tokens that the model replaces before it looks them up.

    Raises:
        InvalidParams: With the token.
    """
    if count is None or max(tokens, default=0) < count:
        return
    for token in tokens:
        if token >= count and token not in but:
            raise InvalidParams(
                f"the text makes token {token} of the tokenizer, but the model has only {count}; "
                "its tokenizer does not fit it, and this text cannot be computed",
                field=field,
                reason="a token that the model does not have",
            )


class Vocabulary:
    """Tokens to bytes and back.

    Args:
        tokenizer: transformers' one.
        vocab_size: Of the model's output, which may be padded beyond the tokenizer's.

    Attributes:
        suffix: What ends a text that is whole; a prompt is none, unless an encoder reads it.
    """

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size
        self._added = {int(i): t for i, t in tokenizer.added_tokens_decoder.items()}
        self._special = {i for i, t in self._added.items() if t.special}
        self._special.update(tokenizer.all_special_ids)
        self._to_bytes = _scheme(tokenizer)
        self.prefix: Sequence[int]
        self.suffix: Sequence[int]
        self.prefix, self.suffix = self._around()

    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before a text and after one."""
        plain = self._tokenizer.encode("a", add_special_tokens=False)
        whole = self._tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return list(whole[:start]), list(whole[start + len(plain) :])
        return [], []

    def encode(self, text: str, special: bool) -> list[int]:
        """See `prompts.Tokenizer`."""
        clean = text.encode("utf-8", "replace").decode()
        ids = self._tokenizer.encode(
            clean, add_special_tokens=False, split_special_tokens=not special, verbose=False
        )
        return list(ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `prompts.Tokenizer`."""
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def piece(self, token: int) -> bytes:
        """The bytes that a generated token adds to the text; none for a special token."""
        if token in self._special:
            return b""
        if token in self._added:
            return str(self._added[token].content).encode()
        name = self._tokenizer.convert_ids_to_tokens(token)
        return b"" if name is None else self._to_bytes(name)

    def first_piece(self, token: int) -> bytes:
        """The bytes of a token that begins a text of its own: without the space before a word.

        A text that goes on with a prompt has that space, and begins with `piece`.
        """
        piece = self.piece(token)
        return piece.removeprefix(b" ") if self._to_bytes is _from_sentencepiece else piece

    @cached_property
    def known_end_tokens(self) -> set[int]:
        """Special tokens that end a turn, going by the tokenizer alone."""
        ends = {i for i in self._special if self.name(i) in _END_STRINGS}
        if self._tokenizer.eos_token_id is not None:
            ends.add(int(self._tokenizer.eos_token_id))
        return ends

    def special_strings(self) -> Iterable[str]:
        """See `prompts.Tokenizer`."""
        return {self.name(i) for i in self._special}

    def may_have_special(self, _text: str) -> bool:
        """See `prompts.Tokenizer`."""
        return True

    def token_names(self) -> Mapping[str, str]:
        """See `prompts.Tokenizer`."""
        names = {name: getattr(self._tokenizer, name, None) for name in _NAMES}
        return {name: str(token) for name, token in names.items() if token is not None}

    def chat_template(self) -> str | None:
        """The template's source; of several the default one."""
        template = getattr(self._tokenizer, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        return template if isinstance(template, str) else None

    def name(self, token: int) -> str:
        """A token's string in the vocabulary; empty where it has none."""
        return str(self._tokenizer.convert_ids_to_tokens(token) or "")


def _scheme(tokenizer: Any) -> Callable[[str], bytes]:
    """How this tokenizer's strings stand for bytes."""
    kinds = _decoder_kinds(tokenizer)
    if "ByteLevel" in kinds:
        return _from_byte_level
    if kinds & {"ByteFallback", "Metaspace"} or not kinds:
        return _from_sentencepiece
    # A scheme that changes text as it joins tokens (WordPiece's ##): a token is what it is alone.
    return lambda name: str(tokenizer.convert_tokens_to_string([name])).encode()


def _decoder_kinds(tokenizer: Any) -> set[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = getattr(backend, "decoder", None)
    if decoder is None:
        return set()
    try:
        state = json.loads(decoder.__getstate__())
    except (AttributeError, TypeError, ValueError):
        return {type(decoder).__name__}
    steps = state.get("decoders", [state])
    return {str(step.get("type")) for step in steps}


def _byte_of_char() -> dict[str, int]:
    """GPT-2's table: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if chr(byte) not in table]
    table.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return table


_BYTES = _byte_of_char()


def _from_byte_level(name: str) -> bytes:
    try:
        return bytes([_BYTES[char] for char in name])
    except KeyError:
        return name.encode()


_BYTE_NAME = re.compile("<0x([0-9A-Fa-f]{2})>")


def _from_sentencepiece(name: str) -> bytes:
    if byte := _BYTE_NAME.fullmatch(name):
        return bytes.fromhex(byte[1])
    return name.replace("\u2581", " ").encode()
