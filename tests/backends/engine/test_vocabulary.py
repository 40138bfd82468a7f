"""Tokens to bytes and back, for the schemes that tokenizers have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

import tokenizers
import transformers  # noqa: TID253 - a test of what runs in workers

from hybridd.backends.engine.prompts import Tokenizer
from hybridd.backends.gguf.engine import generator as gguf
from hybridd.backends.huggingface.engine.tokens.vocabulary import Vocabulary, load_tokenizer
from tests.support_models import DEMO_GGUF, DEMO_HUGGINGFACE, ignore_progress, spec_for

SPECIAL = "<|im_end|>"


@pytest.fixture(scope="module")
def native() -> Iterator[Tokenizer]:
    engine = gguf.GGUFEngine()
    engine.load(spec_for(DEMO_GGUF, "gguf"), ignore_progress)
    yield engine.model.vocabulary
    engine.close()


@pytest.fixture(scope="module")
def byte_level() -> Vocabulary:
    return Vocabulary(load_tokenizer(DEMO_HUGGINGFACE, "demo"), 1024)


def sentencepiece_like() -> Vocabulary:
    """As Llama 2 and Mistral have it: ▁ for a space, bytes for what has no token."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += ["▁", "h", "i", "▁h", "▁hi", "<0xZZ>"]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {name: i for i, name in enumerate(names)},
            [("▁", "h"), ("▁h", "i")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return Vocabulary(wrapped, len(names))


@example(" !")
@example("it 's so , isn 't it ?")
@given(text=st.text(max_size=40))
def test_pieces_of_a_byte_level_text_are_the_text(
    native: Tokenizer, byte_level: Vocabulary, text: str
) -> None:
    clean = text.encode("utf-8", "replace")
    tokens = byte_level.encode(text, special=False)
    assert tokens == native.encode(text, special=False)
    assert b"".join(map(byte_level.piece, tokens)) == clean
    assert b"".join(map(native.piece, tokens)) == clean  # type: ignore[attr-defined]
    assert native.decode(tokens) == byte_level.decode(tokens) == clean.decode()


def test_both_know_the_same_of_the_demo_model(native: Tokenizer, byte_level: Vocabulary) -> None:
    assert native.vocab_size == byte_level.vocab_size
    assert list(native.prefix) == list(byte_level.prefix) == [0]
    assert set(native.special_strings()) == set(byte_level.special_strings())
    for name in ("bos_token", "eos_token", "pad_token"):
        assert native.token_names()[name] == byte_level.token_names()[name]
    ends = set(native.end_tokens)  # type: ignore[attr-defined]
    assert ends == byte_level.known_end_tokens == {2}


def test_special_tokens_are_parsed_on_demand_and_have_no_text(
    native: Tokenizer, byte_level: Vocabulary
) -> None:
    for vocabulary in (native, byte_level):
        assert vocabulary.encode(SPECIAL, special=True) == [2]
        assert len(vocabulary.encode(SPECIAL, special=False)) > 1
        assert vocabulary.piece(2) == b""  # type: ignore[attr-defined]
        assert vocabulary.decode([2]) == SPECIAL


def test_a_sentencepiece_scheme() -> None:
    vocabulary = sentencepiece_like()
    tokens = vocabulary.encode("hi é", special=False)
    assert b"".join(map(vocabulary.piece, tokens)) == " hi é".encode()
    assert vocabulary.piece(tokens[-1]) == b"\xa9"
    assert list(vocabulary.prefix) == [1]
    assert vocabulary.piece(2) == b""
    assert vocabulary.known_end_tokens == {2}
    # The last one only looks like a byte.
    assert vocabulary.piece(vocabulary.vocab_size - 1) == b"<0xZZ>"


def test_text_that_is_no_utf8_is_replaced_not_refused(
    native: Tokenizer, byte_level: Vocabulary
) -> None:
    assert native.encode("a\ud800", False) == byte_level.encode("a\ud800", False)
    assert native.decode(native.encode("a\ud800", False)) == "a?"
