"""Loading a draft model beside a model, and whether the two go together.

The facts are those of llama.cpp's own check (`common/speculative.cpp`): tokens pass between the two
as numbers, so both vocabularies have to mean the same by them. What headers tell of that the daemon
has asked before (`draft_facts`).
"""

from __future__ import annotations

from itertools import repeat
from typing import Any

from hybridd.backends.api import LoadSpec, Report
from hybridd.backends.cpu import threads_for
from hybridd.wire.errors import LoadFailed

from ...draft_facts import (
    OTHER_KINDS,
    other_vocabulary,
    recurrent_draft,
    recurrent_model,
    sizes_difference,
    unsupported,
)
from ..cells.context import Context
from ..weights.llama import Log, llama
from ..weights.load_options import LoadOptions
from ..weights.model import Model
from ..weights.vocabulary import Vocabulary
from .drafter import Drafter

# The first tokens are special ones, which members of a family name differently.
_FIRST_COMPARED = 5


def check_model(model: Model, spec: LoadSpec) -> None:
    """Refuse to draft for a model that cannot take a token back.

    Raises:
        Unsupported: Says why.
    """
    if model.encodes:
        raise unsupported(
            f"a draft model helps to generate text; {spec['model']} makes vectors or scores"
        )
    if model.recurrent:
        raise recurrent_model(spec["model"])


def open_draft(
    log: Log,
    model: Model,
    context: Context,
    options: LoadOptions,
    spec: LoadSpec,
    report: Report,
) -> Drafter:
    """Load the draft model that the spec names; a model that drafts for itself is loaded once.

    Args:
        model, context: What it is to draft for; `check_model` was called.
        options: Of the load.

    Raises:
        HybriddError: It cannot be loaded, or does not suit the model; names it.
        LoadCancelled: `report` said so.
    """
    placed = spec.get("draft")
    if placed is None:
        raise LoadFailed(f"the draft model {options.draft_model} went away", reason="absent")
    if placed["path"] == spec["path"]:
        return _drafter(model, context, model, options, spec)  # it drafts for itself
    log.errors.clear()  # what the model's own load said is not the draft model's
    own_spec: LoadSpec = {**spec, "model": placed["model"], "path": placed["path"]}
    draft = Model(log)

    def progress(_stage: str, done: int, total: int) -> None:
        report("draft model", done, total)

    # How many tokens it was trained on is known only later, and no matter for the weights.
    own = options.for_draft(model.layers, context.length, context.parallel, context.cells)
    draft.open(own_spec, own, progress)
    try:
        _check_draft(draft, own_spec, spec)
        if difference := vocabulary_difference(model.vocabulary, draft.vocabulary):
            raise other_vocabulary(spec["model"], placed["model"], difference)
        return _drafter(model, context, draft, options, own_spec)
    except BaseException:
        draft.close()
        raise


def _drafter(
    model: Model, context: Context, draft: Model, options: LoadOptions, own_spec: LoadSpec
) -> Drafter:
    """Make the draft model's context, which is no longer than it was trained for."""
    length = min(context.length, draft.trained_context or context.length)
    cells = min(context.cells, length * context.parallel)
    own = options.for_draft(model.layers, length, context.parallel, cells)
    threads = options.threads or threads_for(draft.weights_bytes)
    drafting = Context(draft, own, threads, own_spec, unified=True)
    on_gpu = options.layers_for(model.layers) not in range(model.layers + 1)
    return Drafter(model, context, draft, drafting, threads, on_gpu=on_gpu)


def vocabulary_difference(one: Vocabulary, other: Vocabulary) -> str | None:
    """In what two vocabularies differ, as the end of a sentence; None where they agree."""
    ours, theirs = one.native, other.native
    if llama.llama_vocab_type(ours) != llama.llama_vocab_type(theirs):
        return OTHER_KINDS
    if _added(ours) != _added(theirs):
        return "they begin or end texts with different tokens"
    sizes = one.vocab_size, other.vocab_size
    if difference := sizes_difference(*sizes):
        return difference
    compared = range(_FIRST_COMPARED, min(sizes))
    texts = [map(llama.llama_vocab_get_text, repeat(v), compared) for v in (ours, theirs)]
    for token, (text, their_text) in zip(compared, zip(*texts, strict=True), strict=True):
        if text != their_text:
            return f"token {token} is not the same in both vocabularies"
    return None


def _added(vocabulary: Any) -> tuple[int | None, int | None]:
    """The tokens that are put before and after a text, where any are."""
    first = llama.llama_vocab_get_add_bos(vocabulary) and llama.llama_vocab_bos(vocabulary)
    last = llama.llama_vocab_get_add_eos(vocabulary) and llama.llama_vocab_eos(vocabulary)
    return None if first is False else int(first), None if last is False else int(last)


def _check_draft(draft: Model, spec: LoadSpec, whole: LoadSpec) -> None:
    if draft.encodes or draft.has_encoder:
        raise unsupported(
            f"{spec['model']} does not go on with a text, so it can draft nothing for "
            f"{whole['model']}; name a smaller model of the same family as draft_model"
        )
    if draft.recurrent:
        raise recurrent_draft(whole["model"], spec["model"])
