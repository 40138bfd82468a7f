"""What of a load is otherwise than was asked for, or than one would expect, in sentences.

Says only what is known: llama.cpp decides much by itself, and tells some of it in its log alone.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hybridd.wire.units import format_size

from .weights.load_options import LoadOptions, RopeScaling


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load.

    Attributes:
        weights_bytes: Of all tensors.
        locked_bytes: Of this process's memory.
        trained_context: Tokens that the model was made for; 0 where it does not say.
        context_length: Of one request.
        draft_length: Tokens up to which a draft model follows; None without one.
        without_flash: llama.cpp said that it does without flash attention.
        has_gpu: Whether llama.cpp sees one.
        built_for_gpu: Whether it could use one.
    """

    weights_bytes: int
    locked_bytes: int
    trained_context: int
    context_length: int
    draft_length: int | None
    without_flash: bool
    has_gpu: bool
    built_for_gpu: bool


def notes_of(asked: Mapping[str, Any], options: LoadOptions, outcome: Outcome) -> list[str]:
    """The sentences of a load.

    Args:
        asked: `LoadSpec.load_options`.
        options: As they were read.
    """
    return [
        *_memory(options, outcome),
        *_devices(asked, options, outcome),
        *_lengths(options, outcome),
    ]


def _memory(options: LoadOptions, outcome: Outcome) -> Iterator[str]:
    if options.mlock and outcome.locked_bytes < outcome.weights_bytes:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        needed = format_size(outcome.weights_bytes)
        if 0 <= limit < outcome.weights_bytes:
            may = f"this process may lock {format_size(limit)} (ulimit -l), and they take {needed}"
        else:
            may = f"the kernel locked {format_size(outcome.locked_bytes)} of {needed}"
        yield f"the weights are not locked in memory: {may}"


def _devices(asked: Mapping[str, Any], options: LoadOptions, outcome: Outcome) -> Iterator[str]:
    layers = asked.get("gpu_layers")
    on_cpu = str(asked.get("device", "")) == "cpu" or layers == 0
    if not outcome.has_gpu and not on_cpu:
        if outcome.built_for_gpu:
            yield "no layer is on a GPU: llama.cpp was built for one and finds none"
        elif layers not in (None, "auto"):
            yield "no layer is on a GPU: this build of llama.cpp has no GPU support"
    if options.tensor_split and not options.splits:
        yield "tensor_split has no effect: no layer is on a GPU"
    if outcome.without_flash and options.flash_attention is not False:
        yield "flash attention is off: llama.cpp has none for this model on its device"


def _lengths(options: LoadOptions, outcome: Outcome) -> Iterator[str]:
    length, trained, asked = outcome.context_length, outcome.trained_context, options.context_length
    if length > trained > 0 and options.rope == RopeScaling():
        yield (
            f"the context of {length} tokens is longer than the {trained} that the model was made "
            "for: past those its answers may make no sense"
        )
    if asked is not None and length < asked:
        yield (
            f"a request has at most {length} tokens, not {asked} as asked: the model was made for "
            "no more"
        )
    if outcome.draft_length is not None and outcome.draft_length < length:
        yield (
            f"past {outcome.draft_length} tokens of a conversation nothing is drafted: the draft "
            "model was made for no more"
        )
