"""Whether one model can draft for another, and for how many rows, as far as their headers tell.

The daemon asks before a load, so that no other model leaves memory for one that is refused. The
engine looks at the whole vocabularies once it has them (`draft_model`) and refuses in these words.
Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Facts
from hybridd.wire.errors import LoadFailed, Unsupported

from .. import card
from .types import RECURRENT

# Tokens of one draft. Where nine of ten are right, a ninth would be right in four cases of ten,
# which pays for its row on no processor.
MAX_DRAFT = 8
# Requests that may have drafts of that length in one step: logits are kept for so many rows.
_LONG_DRAFTS = 4
OTHER_KINDS = "their tokenizers are of different kinds"
# Values of tokenizer.ggml.model of which each is a kind of its own to llama.cpp. Of others some are
# the same kind by another name.
_KINDS = frozenset({"llama", "gpt2", "bert", "t5", "rwkv"})
# Models of one family fill their vocabularies up to different sizes.
_SIZE_DIFFERENCE = 128
_STATE = "keeps a state of all that it read, out of which no wrong draft can be taken"


def draft_rows(parallel: int) -> int:
    """Rows with logits of drafted tokens in one pass, of all requests together."""
    return MAX_DRAFT * min(parallel, _LONG_DRAFTS)


def check_draft(model: str, facts: Facts, draft: str, draft_facts: Facts) -> None:
    """Refuse a draft model that cannot draft for a model, or a model that none can draft for.

    Args:
        model, draft: Their ids.

    Raises:
        Unsupported, LoadFailed: Says why.
    """
    if facts.architecture in RECURRENT:
        raise recurrent_model(model)
    if draft_facts.architecture in RECURRENT:
        raise recurrent_draft(model, draft)
    ours, theirs = _tokenizer(facts), _tokenizer(draft_facts)
    kinds = {ours.get("model"), theirs.get("model")}
    if len(kinds) == 2 and kinds <= _KINDS:
        raise other_vocabulary(model, draft, OTHER_KINDS)
    our_tokens, their_tokens = ours.get("tokens"), theirs.get("tokens")
    if our_tokens and their_tokens and (said := sizes_difference(our_tokens, their_tokens)):
        raise other_vocabulary(model, draft, said)


def sizes_difference(one: int, other: int) -> str | None:
    """In what two vocabularies of so many tokens differ; None where that much does not matter."""
    if abs(one - other) <= _SIZE_DIFFERENCE:
        return None
    return f"their vocabularies have {one} and {other} tokens"


def other_vocabulary(model: str, draft: str, difference: str) -> LoadFailed:
    """The vocabularies differ: `difference` is the end of a sentence."""
    return LoadFailed(
        f"{draft} cannot draft for {model}: {difference}; name a smaller model of the same family "
        "as draft_model, or leave it out",
        reason="other vocabulary",
        draft_model=draft,
    )


def recurrent_model(model: str) -> Unsupported:
    """Nothing can draft for this one."""
    return unsupported(f"{model} {_STATE}; leave draft_model out")


def recurrent_draft(model: str, draft: str) -> Unsupported:
    """This one can draft for none."""
    return unsupported(f"{draft} {_STATE}; name another draft_model for {model}")


def unsupported(message: str) -> Unsupported:
    """What llama.cpp's models cannot do as draft models, or with one."""
    return Unsupported(message, capability="draft_model", format="gguf")


def _tokenizer(facts: Facts) -> Mapping[str, Any]:
    tokenizer: Mapping[str, Any] = card.of(facts.metadata).get("tokenizer", {})
    return tokenizer
