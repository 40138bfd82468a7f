"""Embedding models and cross-encoders: padded batches through transformers' own classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hybridd.backends.api import LoadSpec, Report
from hybridd.backends.engine.embedding import Input
from hybridd.backends.engine.passes import Aborted
from hybridd.core.model import Facts
from hybridd.wire.errors import ModelInvalid, Unsupported

from ...estimate import ENCODER_TOKENS
from ...sentence import Recipe, activation, read_recipe
from ..compat.auto_classes import AutoModelForSequenceClassification, text_encoder
from ..compat.imports import Tensor, torch
from ..forward.session import probe_tokens
from ..tokens.vocabulary import check_embedded, embedded
from ..weights.lengths import learned_length
from ..weights.load_options import LoadOptions
from ..weights.loading import Opened, open_model, trained_length
from .pooling import after_pooling, pool

_BATCH_INPUTS = 64
# Tokenizers without a limit say 10**30.
_NO_LIMIT = 10**9
# How far two vectors may be apart, as a share of their length, and be the same but for rounding.
_SAME = 0.01


class HuggingFaceEncoder:
    """See `embedding.Encoder`; one model, everything on one thread.

    Args:
        opened: The model; the encoder is its only user.
        context_length: The longest input that is to be taken; None leaves it to the model.

    Attributes:
        opened: As given.
    """

    batch_inputs = _BATCH_INPUTS
    dimensions = 0
    capabilities: Sequence[str] = ()

    def __init__(self, opened: Opened, context_length: int | None) -> None:
        self.opened = opened
        self._tokenizer = opened.tokenizer
        self._embedded = embedded(opened.model)
        self._padding = int(opened.tokenizer.pad_token_id or 0)
        self._takes_types = "token_type_ids" in inspect.signature(opened.model.forward).parameters
        limits = (context_length, self._longest())
        self.context_length = min(limit for limit in limits if limit)
        self.batch_tokens = max(ENCODER_TOKENS, self.context_length)
        self._abort: Callable[[], bool] | None = None
        for layer in _layers(opened.model):
            layer.register_forward_pre_hook(self._before_layer)

    def _longest(self) -> int:
        """Tokens that the model can take at all."""
        tokenizer = int(min(getattr(self._tokenizer, "model_max_length", _NO_LIMIT), _NO_LIMIT))
        trained = trained_length(self.opened.config)
        learned = learned_length(self.opened.model, trained)
        return min(tokenizer, trained or _NO_LIMIT, learned or _NO_LIMIT)

    # ------------------------------------------------------------------ tokens

    def tokenize(self, text: str) -> Input:
        """See `embedding.Encoder`."""
        return self._encoded(_clean(text))

    def tokenize_pair(self, query: str, document: str) -> Input:
        """See `embedding.Encoder`: by the tokenizer's own form of a pair."""
        return self._encoded(_clean(query), _clean(document))

    def _encoded(self, *texts: str) -> Input:
        encoded = self._tokenizer(
            *texts,
            split_special_tokens=True,
            return_token_type_ids=self._takes_types,
            return_attention_mask=False,
            verbose=False,
        )
        field = "input" if len(texts) == 1 else "documents"
        check_embedded(encoded["input_ids"], self._embedded, field)
        return Input(list(encoded["input_ids"]), list(encoded.get("token_type_ids") or ()))

    # ------------------------------------------------------------------ numbers

    def vectors(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[list[float]]:
        """See `embedding.Encoder`."""
        raise _lacks("embedding")

    def scores(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[float]:
        """See `embedding.Encoder`."""
        raise _lacks("reranking")

    def _run(self, batch: Sequence[Input], abort: Callable[[], bool]) -> tuple[Any, Tensor]:
        """The model's output for a batch, and its mask, `(inputs, tokens)`.

        Raises:
            Aborted: `abort`, which is asked before each layer, said so.
        """
        longest = max(len(one.tokens) for one in batch)
        shape = len(batch), longest
        ids, mask = torch.full(shape, self._padding), torch.zeros(shape, dtype=torch.long)
        types = torch.zeros(shape, dtype=torch.long)
        for row, one in enumerate(batch):
            size = len(one.tokens)
            ids[row, :size] = torch.tensor(one.tokens)
            mask[row, :size] = 1
            if one.types:
                types[row, :size] = torch.tensor(one.types)
        device = self.opened.device
        arguments = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if self._takes_types:
            arguments["token_type_ids"] = types.to(device)
        self._abort = abort
        try:
            return self.opened.model(**arguments), arguments["attention_mask"]
        finally:
            self._abort = None

    def _before_layer(self, _layer: Any, _arguments: Any) -> None:
        if self._abort is not None and self._abort():
            raise Aborted


class _Embedder(HuggingFaceEncoder):
    """Makes vectors of the last hidden states by a recipe."""

    capabilities = ("embedding",)

    def __init__(self, opened: Opened, context_length: int | None, recipe: Recipe) -> None:
        self._recipe = recipe
        super().__init__(opened, context_length)
        self._poolings = recipe.poolings or self._default_poolings()
        text = opened.config.get_text_config()
        size = int(getattr(text, "hidden_size", 0) or getattr(text, "d_model", 0))
        steps, self.dimensions = after_pooling(recipe.steps, size * len(self._poolings))
        self._finish = steps
        self._skipped = 0 if recipe.pools_prompt else self._prompt_tokens()

    def _default_poolings(self) -> tuple[str, ...]:
        """As sentence-transformers does without its files: a decoder's last token has seen all."""
        first, *others = probe_tokens(self.opened.config.get_text_config())
        # Whether what a text begins with depends on what follows is seen, not told.
        batch = [Input([first, other], []) for other in others[:2]]
        with torch.inference_mode():
            output, _ = self._run(batch, lambda: False)
        one, two = output.last_hidden_state[:, 0].float()  # (size,)
        return ("lasttoken",) if (one - two).norm() <= _SAME * one.norm() else ("mean",)

    def _longest(self) -> int:
        return min(super()._longest(), self._recipe.max_length or _NO_LIMIT)

    def _prompt_tokens(self) -> int:
        """How many tokens the recipe's prompt has at the beginning of a text, counted as there.

        What begins a text is among them, and what ends it is not.
        """
        if not self._recipe.prompt:
            return 0
        tokens = self.tokenize("").tokens
        return len(tokens) - (tokens[-1] in self._tokenizer.all_special_ids)

    def tokenize(self, text: str) -> Input:
        """See `embedding.Encoder`; with the recipe's prompt before the text."""
        whole = self._recipe.prompt + text
        return super().tokenize(whole.lower() if self._recipe.lower_case else whole)

    def vectors(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[list[float]]:
        """See `embedding.Encoder`."""
        with torch.inference_mode():
            output, mask = self._run(batch, abort)
            hidden = output.last_hidden_state.float()  # (inputs, tokens, size)
            for row, one in enumerate(batch):
                # Where the text is empty and nothing ends it, something has to count.
                mask[row, : min(self._skipped, len(one.tokens) - 1)] = 0
            vectors: list[list[float]] = self._finish(pool(hidden, mask, self._poolings)).tolist()
        return vectors


class _CrossEncoder(HuggingFaceEncoder):
    """Scores pairs by a classifier with one label."""

    capabilities = ("reranking",)

    def __init__(self, opened: Opened, context_length: int | None) -> None:
        super().__init__(opened, context_length)
        config = opened.config
        if config.num_labels != 1:
            raise Unsupported(
                f"the classifier has {config.num_labels} labels; a reranker has one",
                capability="reranking",
                format="huggingface",
            )
        # A decoder finds a text's last token by what pads it: by the configuration's token, and
        # without one (some say -1) by any that is in none of a batch's texts.
        self._text_config = opened.model.config.get_text_config()
        said = self._text_config.pad_token_id
        self._any_padding = said is None or said < 0
        self._padding = self._padding if self._any_padding else int(said)
        self._activate = getattr(torch.nn, _score_activation(config))()

    def scores(self, batch: Sequence[Input], abort: Callable[[], bool]) -> list[float]:
        """See `embedding.Encoder`; with the activation function that the model asks for."""
        if self._any_padding:
            self._padding = _unused(batch, self._embedded or 1)
            self._text_config.pad_token_id = self._padding
        with torch.inference_mode():
            logits = self._run(batch, abort)[0].logits[:, 0].float()
            scores: list[float] = self._activate(logits).tolist()
        return scores


def load_encoder(
    spec: LoadSpec, facts: Facts, options: LoadOptions, report: Report
) -> HuggingFaceEncoder:
    """Load an embedding model or a cross-encoder.

    Args:
        facts: Of the model's files, as `loading.examine` gives them.

    Raises:
        HybriddError: It cannot be loaded; says why.
        LoadCancelled: `report` said so.
    """
    if "reranking" in facts.capabilities:
        opened = open_model(spec, facts, options, report, AutoModelForSequenceClassification)
        return _CrossEncoder(opened, options.context_length)
    try:
        recipe = read_recipe(Path(spec["path"]))
    except OSError as exc:
        raise ModelInvalid(
            f"the modules of {spec['model']} cannot be read", reason="unreadable modules"
        ) from exc
    # The pooler that some classes have is not part of any recipe.
    opened = open_model(spec, facts, options, report, text_encoder, ("pooler.",))
    return _Embedder(opened, options.context_length, recipe)


def _unused(batch: Sequence[Input], words: int) -> int:
    """The smallest of so many tokens that is in none of these; 0 if all of them are."""
    used = {token for one in batch for token in one.tokens}
    return next((token for token in range(words) if token not in used), 0)


def _score_activation(config: Any) -> str:
    said = getattr(config, "sentence_transformers", None)
    named = said.get("activation_fn") if isinstance(said, dict) else None
    named = named or getattr(config, "sbert_ce_default_activation_function", None)
    return "Sigmoid" if named is None else activation(named)


def _clean(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _layers(model: Any) -> Any:
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def _lacks(capability: str) -> Unsupported:
    return Unsupported(
        f"this model has no {capability}", capability=capability, format="huggingface"
    )
