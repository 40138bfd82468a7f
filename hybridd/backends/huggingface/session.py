"""A Hugging Face model in memory: loading, forward passes, freeing. Knows no requests."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hybridd.backends.api import LoadCancelled, LoadSpec, Report
from hybridd.backends.cpu import threads_for
from hybridd.core.model import Facts
from hybridd.wire.errors import HybriddError, LoadFailed, ModelInvalid, Unsupported

from .inspect import inspect as inspect_files
from .library import AutoConfig, AutoModelForCausalLM, DynamicCache, following, torch
from .load_options import LoadOptions
from .safetensors import DTYPE_BITS, read_tensors
from .vocabulary import Vocabulary, load_tokenizer

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_MAX_REASON_CHARS = 300


class Aborted(Exception):
    """A forward pass was ended by its `abort`; its cache is of no use any more."""


class Session:
    """One model. `open` it, `close` it; everything on one thread.

    Attributes:
        vocabulary: The model's.
        context_length: Tokens of one sequence.
        end_tokens: Those that end a generation.
        dtype: torch's, of the weights in memory.
        threads: Used for what the processor computes.
        weights_bytes: Bytes of all weights in memory, shared ones once.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._abort: Callable[[], bool] | None = None
        self._arguments: dict[str, Any] = {"use_cache": True}

    # ------------------------------------------------------------------ loading

    def open(self, spec: LoadSpec, options: LoadOptions, report: Report) -> None:
        """Load tokenizer and weights.

        Raises:
            HybriddError: They cannot be loaded; says why.
            LoadCancelled: `report` said so.
        """
        path = Path(spec["path"])
        # The same bounded check that the daemon made: the files may have changed since.
        facts = inspect_files(path)
        if facts.reason is not None:
            raise ModelInvalid(
                f"{spec['model']} is no usable model: {facts.reason}", reason=facts.reason
            )
        report("tokenizer", 0, 1)
        tokenizer = load_tokenizer(path, spec["model"])
        try:
            config = AutoConfig.from_pretrained(str(path), **_LOCAL)
            _refuse_quantized(config, spec)
            self.dtype = options.dtype_for(_stored_dtype(config, facts))
            self._device = options.device
            self._model = self._load(spec, config, facts, report)
        except (HybriddError, LoadCancelled, MemoryError):
            raise
        except Exception as exc:
            # transformers and safetensors raise what they like; their texts name the trouble.
            raise _failure(exc, spec) from exc
        self._prepare(tokenizer, options)

    def _load(self, spec: LoadSpec, config: Any, facts: Facts, report: Report) -> Any:
        total = facts.weights_bytes
        sizes = _tensor_bytes(facts)
        done = 0

        def loaded(name: str) -> None:
            nonlocal done
            # A tensor that transformers renamed or merged counts at the end.
            done = min(total, done + sizes.get(name, 0))
            report("weights", done, total)

        report("weights", 0, total)
        placed = self._device != "cpu" and find_spec("accelerate") is not None
        arguments = {
            **_LOCAL,
            "config": config,
            "dtype": self.dtype,
            "use_safetensors": True,
            "output_loading_info": True,
            **({"device_map": {"": self._device}} if placed else {}),
        }
        with following(loaded):
            model, info = _from_pretrained(spec["path"], arguments)
        if info["missing_keys"]:
            # transformers would go on with random numbers in their place.
            missing = sorted(info["missing_keys"])[0]
            raise ModelInvalid(
                f"{spec['model']} is no usable model: the weights lack {missing}",
                reason=f"the weights lack {missing}",
            )
        model = model.eval()
        if self._device != "cpu" and not placed:
            model = model.to(self._device)
        report("weights", total, total)
        return model

    def _prepare(self, tokenizer: Any, options: LoadOptions) -> None:
        model = self._model
        text_config = model.config.get_text_config(decoder=True)
        self.context_length = options.context_for(_trained(text_config))
        self.vocabulary = Vocabulary(tokenizer, int(text_config.vocab_size))
        self.end_tokens = _end_tokens(model, self.vocabulary)
        self.weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.threads = options.threads or threads_for(self.weights_bytes)
        torch.set_num_threads(self.threads)
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            # The logits of a whole prompt would be its largest tensor by far.
            self._arguments["logits_to_keep"] = 1
        for layer in _layers(model):
            layer.register_forward_pre_hook(self._before_layer)

    # ------------------------------------------------------------------ computing

    def new_cache(self) -> Any:
        """The empty cache of one sequence; it grows as the sequence does."""
        return DynamicCache(config=self._model.config)

    def forward(
        self, tokens: Sequence[int], cache: Any, abort: Callable[[], bool] | None = None
    ) -> Any:
        """Run tokens through the model, behind those in the cache; returns the last one's logits.

        Raises:
            Aborted: `abort`, which is asked before each layer, said so.
        """
        self._abort = abort
        try:
            with torch.inference_mode():
                ids = torch.tensor([list(tokens)], device=self._device)
                output = self._model(input_ids=ids, past_key_values=cache, **self._arguments)
                return output.logits[0, -1]
        finally:
            self._abort = None

    def _before_layer(self, _layer: Any, _arguments: Any) -> None:
        if self._abort is not None and self._abort():
            raise Aborted

    def close(self) -> None:
        """Let go of the model; the process ends soon after."""
        self._model = None


# Nothing comes from elsewhere, and no code out of the model's directory is run.
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _from_pretrained(path: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """transformers' own loading, with its fastest attention that the architecture has.

    Named outright: a configuration may name other attention code, from elsewhere.
    """
    try:
        made = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa", **arguments)
    except ValueError as exc:
        if "attention" not in str(exc):
            raise
        made = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", **arguments)
    return made[0], made[1]


def _refuse_quantized(config: Any, spec: LoadSpec) -> None:
    quantized = getattr(config, "quantization_config", None)
    if quantized is None:
        return
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    raise Unsupported(
        f"{spec['model']} is stored quantized ({method or 'of an unknown kind'}), which the "
        "huggingface engine cannot load yet; take a GGUF build of it",
        capability="quantization",
        format="huggingface",
    )


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


def _trained(config: Any) -> int | None:
    found = (getattr(config, name, None) for name in _CONTEXT_NAMES)
    return next((n for n in found if isinstance(n, int) and n > 0), None)


def _end_tokens(model: Any, vocabulary: Vocabulary) -> frozenset[int]:
    found = set(vocabulary.known_end_tokens)
    for config in (model.generation_config, model.config):
        ids = getattr(config, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return frozenset(int(token) for token in found)


def _layers(model: Any) -> Any:
    """The decoder's layers: the longest list of modules that the model has."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def _failure(exc: Exception, spec: LoadSpec) -> HybriddError:
    if type(exc).__name__ == "OutOfMemoryError" or "not enough memory" in str(exc):
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
