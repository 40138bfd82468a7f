"""Vocabularies for random-weight GGUF models: small, deterministic, and whole.

Every one can write any text (single bytes or letters are in it), and holds words of several
letters, so that text has fewer tokens than bytes, as with real models.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import gguf

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # llama.cpp's `enum llama_token_type`
SPACE = "\u2581"  # sentencepiece's sign for a space

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COMMON = (
    "the of and to in is that it was for on are as with his they at be this have from or one had "
    "by word but not what all were we when your can said there use an each which she do how their "
    "if will up other about out many then them these so some her would make like him into time has "
    "look two more write go see number no way could people my than first water been call who oil "
    "its now find long down day did get come made may part"
)
COMMON_WORDS = tuple(_COMMON.split())


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's part of a GGUF header."""

    model: str
    tokens: Sequence[str]
    types: Sequence[int]
    eos: int
    bos: int | None = None
    scores: Sequence[float] = ()
    merges: Sequence[str] = ()
    pre: str | None = None
    unknown: int | None = None
    separator: int | None = None
    chat_template: str | None = CHAT_TEMPLATE

    def __len__(self) -> int:
        return len(self.tokens)

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add it to a header."""
        writer.add_tokenizer_model(self.model)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.types))
        writer.add_eos_token_id(self.eos)
        writer.add_add_bos_token(self.bos is not None)
        writer.add_add_space_prefix(False)
        if self.pre is not None:
            writer.add_tokenizer_pre(self.pre)
        if self.scores:
            writer.add_token_scores(list(self.scores))
        if self.merges:
            writer.add_token_merges(list(self.merges))
        if self.bos is not None:
            writer.add_bos_token_id(self.bos)
        if self.unknown is not None:
            writer.add_unk_token_id(self.unknown)
        if self.separator is not None:
            writer.add_sep_token_id(self.separator)
            writer.add_add_eos_token(True)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def made_up_words(seed: int = 1) -> Iterator[str]:
    """Pronounceable words without end, of four to eight letters; some come twice."""
    chance = random.Random(seed)
    while True:
        yield "".join(
            chance.choice("bcdfghjklmnprstvwz") + chance.choice("aeiou")
            for _ in range(chance.randint(2, 4))
        )


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary, as GPT-2 has them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def byte_pairs(words: Iterable[str], size: int | None = None) -> Vocabulary:
    """A byte-level BPE vocabulary, where each word of `words` is a token behind a space.

    Args:
        words: ASCII letters. Their beginnings become tokens as well.
        size: How many tokens to make; None: as many as the words need.
    """
    letters = byte_letters()
    tokens = dict.fromkeys(letters, NORMAL)
    merges: list[str] = []
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    room = None if size is None else size - len(special)
    for word in words:
        # Always the longest beginning with one letter more: no other merge can come between.
        made = letters[ord(" ")]
        for letter in word:
            if made + letter not in tokens:
                if room is not None and len(tokens) >= room:
                    break
                tokens[made + letter] = NORMAL
                merges.append(f"{made} {letter}")
            made += letter
        if room is not None and len(tokens) >= room:
            break
    eos = len(tokens) + special.index("<|im_end|>")
    tokens |= dict.fromkeys(special, CONTROL)
    return Vocabulary(
        model="gpt2",
        pre="qwen2",
        tokens=list(tokens),
        types=list(tokens.values()),
        merges=merges,
        eos=eos,
    )


def sentence_pieces(words: Sequence[str] = COMMON_WORDS) -> Vocabulary:
    """A vocabulary of the sentencepiece kind with byte tokens for what it has no letters for."""
    tokens = {"<pad>": CONTROL, "<eos>": CONTROL, "<bos>": CONTROL, "<unk>": UNKNOWN}
    tokens |= {f"<0x{byte:02X}>": BYTE for byte in range(256)}
    tokens |= {"<|im_start|>": CONTROL, "<|im_end|>": CONTROL}
    letters = [SPACE, *map(chr, range(0x21, 0x7F))]
    tokens |= dict.fromkeys(letters, NORMAL)
    for word in words:
        # Joined pairwise, so that each step has to be a token.
        tokens |= {(SPACE + word)[:end]: NORMAL for end in range(2, len(word) + 2)}
    scores = [float(len(token)) if kind == NORMAL else 0.0 for token, kind in tokens.items()]
    return Vocabulary(
        model="llama",
        tokens=list(tokens),
        types=list(tokens.values()),
        scores=scores,
        bos=2,
        eos=1,
        unknown=3,
    )


def word_pieces(words: Sequence[str] = COMMON_WORDS) -> Vocabulary:
    """A vocabulary of BERT's kind: whole words, and letters at the start and inside of words."""
    tokens = {"[PAD]": CONTROL, "[UNK]": UNKNOWN, "[CLS]": CONTROL, "[SEP]": CONTROL}
    letters = [chr(n) for n in range(0x21, 0x7F) if not chr(n).isupper()]
    tokens |= dict.fromkeys((SPACE + letter for letter in letters), NORMAL)
    tokens |= dict.fromkeys(letters, NORMAL)
    tokens |= dict.fromkeys((SPACE + word for word in words), NORMAL)
    return Vocabulary(
        model="bert",
        tokens=list(tokens),
        types=list(tokens.values()),
        bos=2,
        eos=3,
        unknown=1,
        separator=3,
        chat_template=None,
    )
