"""Loading a Hugging Face model: tokenizer, weights, and what is in force of the load options."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from hybridd.backends.api import LoadCancelled, LoadSpec, Report
from hybridd.backends.cpu import threads_for
from hybridd.backends.engine.failures import is_out_of_memory
from hybridd.core.model import Facts
from hybridd.wire.errors import HybriddError, LoadFailed, ModelInvalid, Unsupported

from ...estimate import estimate
from ...inspect import inspect as inspect_files
from ...inspect import is_permitted
from ...quantization import check_stored, quantized_already
from ...safetensors import DTYPE_BITS, read_tensors
from ..compat import auto_classes, imports
from ..compat.auto_classes import AutoConfig, attention_names, concrete, generator
from ..compat.imports import torch
from ..compat.load_progress import following
from ..compat.quantizing import configuration
from ..tokens.pictures import PictureReader, PictureVocabulary, load_processor
from ..tokens.vocabulary import Vocabulary, load_tokenizer
from .devices import check as check_devices
from .devices import is_spread, max_memory
from .lengths import context_length
from .load_options import LoadOptions
from .memory import give_back_memory, keep_few_programs

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: transformers' one, in evaluation mode on its device.
        attention: transformers' name of the attention that it computes with.
        device: torch's name of the device that takes the input.
        dtype: Of what is computed and of the weights that are not quantized.
        quantization: none, int8, int4, or how the files were quantized already.
        vocabulary: The model's.
        context_length: Tokens of one sequence.
        end_tokens: Those that end a generation.
        threads: Used for what the processor computes.
        weights_bytes: Bytes of all weights in memory, shared ones once.
        pictures: Reads them, where the model and what is installed allow it.
        pictures_problem: Why a model that is made for pictures does not read them here.
        identity: Names this state of its files.
        notes: What a user should know of how it was loaded; see `LoadedFacts`.
    """

    model: Any
    attention: str
    device: str
    dtype: torch.dtype
    quantization: str
    vocabulary: Vocabulary
    context_length: int
    end_tokens: frozenset[int]
    threads: int
    weights_bytes: int
    pictures: PictureReader | None = None
    pictures_problem: Unsupported | None = None
    identity: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Opened:
    """A model of any kind with its tokenizer, in memory.

    Attributes:
        model: transformers' one, in evaluation mode on its device.
        config: transformers' configuration.
        attention: transformers' name of the attention that it computes with.
        device: torch's name of the device that takes the input.
        dtype: Of what is computed and of the weights that are not quantized.
        quantization: none, int8, int4, or how the files were quantized already.
        threads: Used for what the processor computes.
        weights_bytes: Bytes of all weights in memory, shared ones once.
        notes: What a user should know of how it was loaded.
    """

    model: Any
    tokenizer: Any
    config: Any
    attention: str
    device: str
    dtype: torch.dtype
    quantization: str
    threads: int
    weights_bytes: int
    notes: list[str]


def examine(spec: LoadSpec) -> Facts:
    """The same bounded check that the daemon made: the files may have changed since.

    Raises:
        ModelInvalid: They are no usable model now.
    """
    try:
        facts = inspect_files(Path(spec["path"]))
    except OSError as exc:
        raise ModelInvalid(
            f"the files of {spec['model']} cannot be read", reason="unreadable"
        ) from exc
    if facts.reason is not None and not is_permitted(facts, spec.get("permissions", ())):
        raise ModelInvalid(
            f"{spec['model']} is no usable model: {facts.reason}", reason=facts.reason
        )
    return facts


def load(
    spec: LoadSpec, options: LoadOptions, report: Report, facts: Facts | None = None
) -> LoadedModel:
    """Load a model that generates text.

    Args:
        facts: What `examine` said, if it was asked already.

    Raises:
        HybriddError: It cannot be loaded; says why.
        LoadCancelled: `report` said so.
    """
    facts = facts or examine(spec)
    opened = open_model(spec, facts, options, report, generator)
    text_config = opened.config.get_text_config(decoder=True)
    words = int(text_config.vocab_size)
    vocabulary = Vocabulary(opened.tokenizer, words)
    pictures, problem = None, None
    if "vision" in facts.capabilities:
        try:
            processor = load_processor(opened.model, Path(spec["path"]), _trusts(spec))
        except Unsupported as exc:
            opened.notes.append(exc.message)
            problem = exc
        else:
            pictures = PictureReader(processor)
            vocabulary = PictureVocabulary(processor, words, pictures.placeholders)
    return LoadedModel(
        model=opened.model,
        attention=opened.attention,
        device=opened.device,
        dtype=opened.dtype,
        quantization=opened.quantization,
        vocabulary=vocabulary,
        context_length=context_length(options, opened.model, trained_length(text_config)),
        end_tokens=_end_tokens(opened.model, vocabulary),
        threads=opened.threads,
        weights_bytes=opened.weights_bytes,
        pictures=pictures,
        pictures_problem=problem,
        identity=spec["identity"],
        notes=opened.notes,
    )


def _trusts(spec: LoadSpec) -> bool:
    return "trust_remote_code" in spec.get("permissions", ())


def open_model(
    spec: LoadSpec,
    facts: Facts,
    options: LoadOptions,
    report: Report,
    kind: Any,
    spare: tuple[str, ...] = (),
) -> Opened:
    """Load tokenizer and weights.

    Args:
        kind: transformers' auto class, or a function that gives it for a configuration.
        spare: Beginnings of names of weights that may be missing, since nobody uses them.

    Raises:
        HybriddError: They cannot be loaded; says why.
        LoadCancelled: `report` said so.
    """
    path = Path(spec["path"])
    report("tokenizer", 0, 1)
    local = {**_LOCAL, "trust_remote_code": _trusts(spec)}
    tokenizer = load_tokenizer(path, spec["model"], local["trust_remote_code"])
    stored: str | None = None
    notes = [*imports.missed(), *auto_classes.missed()]
    try:
        config = AutoConfig.from_pretrained(str(path), **local)
        stored = check_stored(config, spec["model"], options.device)
        if stored is not None and options.quantization != "none":
            raise quantized_already(spec["model"], stored)
        wanted = _stored_dtype(config, facts)
        dtype = options.dtype_for(wanted)
        if isinstance(wanted, torch.dtype) and dtype != wanted and options.dtype is None:
            notes.append(
                f"{_name(wanted)} weights are computed as {_name(dtype)}: processors have no "
                f"arithmetic for {_name(wanted)}"
            )
        auto_class = kind if hasattr(kind, "from_pretrained") else kind(config)
        model, attention = _load_weights(
            spec, config, facts, options, dtype, report, auto_class, spare, local, notes
        )
    except (HybriddError, LoadCancelled, MemoryError):
        raise
    except Exception as exc:
        # transformers and safetensors raise what they like; their texts name the trouble.
        raise _failure(exc, spec) from exc
    keep_few_programs(model)
    if options.quantization != "none":
        gc.collect()  # transformers leaves cycles that hold weights
        give_back_memory()
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    threads = options.threads or threads_for(weights_bytes)
    torch.set_num_threads(threads)
    return Opened(
        model=model,
        tokenizer=tokenizer,
        config=config,
        attention=attention,
        device=options.device,
        dtype=dtype,
        quantization=stored or options.quantization,
        threads=threads,
        weights_bytes=weights_bytes,
        notes=notes,
    )


def _load_weights(
    spec: LoadSpec,
    config: Any,
    facts: Facts,
    options: LoadOptions,
    dtype: torch.dtype,
    report: Report,
    auto_class: Any,
    spare: tuple[str, ...],
    local: Mapping[str, Any],
    notes: list[str],
) -> tuple[Any, str]:
    """The model on its device, and the name of its attention."""
    device = options.device
    total = facts.weights_bytes
    sizes = _tensor_bytes(facts)
    done = 0

    def loaded(name: str) -> None:
        nonlocal done
        # A tensor that transformers renamed or merged counts at the end.
        done = min(total, done + sizes.get(name, 0))
        report("weights", done, total)

    report("weights", 0, total)
    placed = device != "cpu" and find_spec("accelerate") is not None
    where_to: dict[str, Any] = {"device_map": {"": device}} if placed else {}
    if is_spread(placement := spec.get("placement", {})):
        planned = estimate(facts, spec["load_options"])
        check_devices(placement, planned, spec["model"], torch.cuda.device_count())
        limits = max_memory(placement, planned)
        where_to, placed = {"device_map": "sequential", "max_memory": limits}, True
    arguments = {
        **local,
        "config": config,
        "dtype": dtype,
        **_weights_in(spec, facts),
        "output_loading_info": True,
        **configuration(options.quantization, dtype),
        **where_to,
    }
    with following(loaded) as missed:
        notes += missed
        # Weights that are in memory already are not looked for anywhere.
        where: str | None = spec["path"]
        if "state_dict" in arguments:
            where, auto_class = None, concrete(auto_class, config, local["trust_remote_code"])
        model, info, attention = _from_pretrained(auto_class, where, arguments)
    if missing_keys := [name for name in info["missing_keys"] if not name.startswith(spare)]:
        # transformers would go on with random numbers in their place.
        missing = min(missing_keys)
        raise ModelInvalid(
            f"{spec['model']} is no usable model: the weights lack {missing}",
            reason=f"the weights lack {missing}",
        )
    model = model.eval()
    if device != "cpu" and not placed:
        model = model.to(device)
    report("weights", total, total)
    return model, attention


def _weights_in(spec: LoadSpec, facts: Facts) -> dict[str, Any]:
    """How transformers is to find the weights: safetensors, or pickles where allowed."""
    first = next(file for file in facts.files if file.suffix != ".json")
    if first.suffix == ".safetensors":
        return {"use_safetensors": True}
    if "allow_pickle" not in spec.get("permissions", ()):
        raise ModelInvalid(
            f"the weights of {spec['model']} are pickles, which are not allowed for it",
            reason="the weights are pickles",
        )
    if first.name.startswith("pytorch_model"):
        return {"use_safetensors": False, "weights_only": True}
    # Files of before torch 1.6 are no archives, and cannot be mapped.
    mapped = is_zipfile(first)
    weights = torch.load(first, map_location="cpu", weights_only=True, mmap=mapped)
    for key in ("state_dict", "model", "module"):
        weights = weights.get(key, weights) if isinstance(weights, dict) else weights
    if not isinstance(weights, dict):
        raise ModelInvalid(
            f"{first.name} of {spec['model']} holds no weights by their names",
            reason="a pickle of something else",
        )
    return {"state_dict": weights}


def in_force(opened: Opened) -> dict[str, Any]:
    """The load options that every engine of this format reports."""
    return {
        "device": opened.device,
        "dtype": _name(opened.dtype),
        "quantization": opened.quantization,
        "threads": opened.threads,
    }


# Nothing comes from elsewhere, and no code out of the model's directory is run.
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _from_pretrained(
    auto_class: Any, path: str | None, arguments: Mapping[str, Any]
) -> tuple[Any, Any, str]:
    """transformers' own loading: the model, what it says of it, and the name of its attention.

    That is the fastest that the architecture has. Named outright: a configuration may name other
    attention code, from elsewhere.
    """
    *others, last = attention_names(arguments["config"])
    for name in others:
        try:
            model, info = auto_class.from_pretrained(path, attn_implementation=name, **arguments)
        except ValueError as exc:
            if "attention" not in str(exc):
                raise
        else:
            return model, info, name
    model, info = auto_class.from_pretrained(path, attn_implementation=last, **arguments)
    return model, info, last


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _stored_dtype(config: Any, facts: Facts) -> Any:
    """How the weights are stored, by the files themselves, else as the configuration says."""
    stored = _STORED.get(facts.quantization or "")
    return stored if stored is not None else getattr(config, "dtype", None)


def _tensor_bytes(facts: Facts) -> dict[str, int]:
    """Bytes of every tensor in the files, by its name."""
    sizes: dict[str, int] = {}
    for file in facts.files:
        if file.suffix == ".safetensors":
            for name, (dtype, shape) in read_tensors(file).shapes.items():
                sizes[name] = math.prod(shape) * DTYPE_BITS[dtype] // 8
    return sizes


def trained_length(config: Any) -> int | None:
    """Tokens of a text that the model was made for, as its configuration says it."""
    lengths = (getattr(config, name, None) for name in _CONTEXT_NAMES)
    return next((n for n in lengths if isinstance(n, int) and n > 0), None)


def _end_tokens(model: Any, vocabulary: Vocabulary) -> frozenset[int]:
    ends = set(vocabulary.known_end_tokens)
    inner = model.config.get_text_config(decoder=True)
    for config in (model.generation_config, model.config, inner):
        ids = getattr(config, "eos_token_id", None)
        ends.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return frozenset(int(token) for token in ends)


def _failure(exc: Exception, spec: LoadSpec) -> HybriddError:
    if is_out_of_memory(exc):
        return LoadFailed(
            f"there was not enough memory to load {spec['model']}; unload another model or take "
            "a smaller dtype",
            reason="out_of_memory",
        )
    text = str(exc).replace(spec["path"], "the model's directory")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = (lines[0] if lines else type(exc).__name__)[:_MAX_REASON_CHARS]
    kind = ModelInvalid if type(exc).__name__ == "SafetensorError" else LoadFailed
    return kind(f"{spec['model']} could not be loaded: {reason}", reason=reason)
