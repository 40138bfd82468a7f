# ruff: noqa: TID253 - a script: the heavy libraries are what it is for
"""The demo model's tokenizer and network, and the loop that trains them.

Responsible for what is between the corpus and a trained model in memory. Knows nothing of files:
export.py writes them. The network is transformers' own Llama, so that what is trained is what
the Hugging Face format runs.
"""

import math
import time
from dataclasses import dataclass
from random import Random

import torch
from corpus import Corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils.hooks import RemovableHandle
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, IM_START, IM_END, PAD = "<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (BOS, IM_START, IM_END, PAD)  # their ids are 0, 1, 2, 3

# ChatML. BOS is part of it, once, because transformers adds none to a rendered template; an
# engine that adds BOS by itself must not do so here. Content may be a string or a list of parts.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] or [] %}
            {%- if part['type'] == 'text' %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

VOCABULARY = 1024
CONTEXT_LENGTH = 1024
HIDDEN = 192
FEED_FORWARD = 512
LAYERS = 6
HEADS = 6
KV_HEADS = 2
HEAD_SIZE = HIDDEN // HEADS
NORM_EPSILON = 1e-5
ROPE_THETA = 10000.0

# Padded tokens of one training step, and the conversations that are sorted by length together
# before they are cut into steps, which keeps padding small.
STEP_TOKENS = 2048
POOL = 400

# One training text in this many is plain text without the chat template.
PLAIN_SHARE = 0.08

IGNORE = -100  # torch's label for "no loss here"


@dataclass(frozen=True)
class Recipe:
    """What determines the weights, beside the corpus and the machine's arithmetic."""

    seed: int = 1
    steps: int = 1700
    learning_rate: float = 2.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.1
    threads: int = 2


def build_tokenizer(corpus: Corpus, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, split as GPT-2's is (llama.cpp's pre-tokenizer `gpt-2`)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.tokenizer_texts(Random(seed)), trainer)
    # Text as such gets BOS; a rendered template, encoded without special tokens, brings its own.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=IM_END,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_network(vocabulary: int) -> LlamaForCausalLM:
    """The untrained network, in float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=HIDDEN,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=CONTEXT_LENGTH,
            rms_norm_eps=NORM_EPSILON,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            tie_word_embeddings=True,
            bos_token_id=SPECIAL.index(BOS),
            eos_token_id=SPECIAL.index(IM_END),
            pad_token_id=SPECIAL.index(PAD),
        )
    )


class Sampler:
    """Endless batches of training tokens and labels, the same for the same seed."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._rng = Random(seed)
        self._header = self._encode(f"{IM_START}assistant\n")
        self._end = SPECIAL.index(IM_END)
        self._batches: list[list[tuple[list[int], list[int]]]] = []

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and labels, each (texts, length), padded on the right.

        No attention mask is needed: the network is causal, so what is to the left of the padding
        never sees it.
        """
        if not self._batches:
            self._batches = self._fill()
        batch = self._batches.pop()
        width = max(len(ids) for ids, _ in batch)
        pad = SPECIAL.index(PAD)
        ids = [ids + [pad] * (width - len(ids)) for ids, _ in batch]
        labels = [labels + [IGNORE] * (width - len(labels)) for _, labels in batch]
        return torch.tensor(ids), torch.tensor(labels)

    def _fill(self) -> list[list[tuple[list[int], list[int]]]]:
        texts = sorted((self._text() for _ in range(POOL)), key=lambda text: len(text[0]))
        batches: list[list[tuple[list[int], list[int]]]] = [[]]
        for text in texts:
            if (len(batches[-1]) + 1) * len(text[0]) > STEP_TOKENS and batches[-1]:
                batches.append([])
            batches[-1].append(text)
        self._rng.shuffle(batches)
        return batches

    def _text(self) -> tuple[list[int], list[int]]:
        if self._rng.random() < PLAIN_SHARE:
            ids = self._encode(BOS + self._corpus.passage(self._rng) + IM_END)
            return ids, list(ids)
        messages = self._corpus.conversation(self._rng)
        ids = self._encode(str(self._tokenizer.apply_chat_template(messages, tokenize=False)))
        ids = ids[:CONTEXT_LENGTH]
        return ids, self._answers_only(ids)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _answers_only(self, ids: list[int]) -> list[int]:
        """Labels: the assistant's words and the end of its turn, nothing else."""
        labels = [IGNORE] * len(ids)
        size = len(self._header)
        answering = False
        for at in range(len(ids)):
            if answering:
                labels[at] = ids[at]
                answering = ids[at] != self._end
            elif at + 1 >= size and ids[at + 1 - size : at + 1] == self._header:
                answering = True
        return labels


def train(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForCausalLM:
    """Trains a network from nothing, printing its loss now and then."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = build_network(len(tokenizer))
    sampler = Sampler(corpus, tokenizer, recipe.seed)
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    dropouts = _add_dropout(network, recipe.dropout)
    network.train()
    started = time.monotonic()
    average = math.nan
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        ids, labels = sampler.next()
        loss = network(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0 or step == recipe.steps:
            elapsed = time.monotonic() - started
            print(f"step {step}/{recipe.steps}  loss {average:.4f}  {elapsed:.0f} s", flush=True)
    for dropout in dropouts:
        dropout.remove()
    network.eval()
    return network


def _add_dropout(network: LlamaForCausalLM, share: float) -> list[RemovableHandle]:
    """Dropout on the embeddings and on what each layer's feed-forward part adds.

    Llama has none of its own. Without it the network learns single wordings by heart, and a word
    it has not seen there can lead it to any answer.
    """

    def hook(module: torch.nn.Module, _arguments: object, out: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(out, share, training=module.training)

    places = [network.model.embed_tokens, *(layer.mlp for layer in network.model.layers)]
    return [place.register_forward_hook(hook) for place in places]


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    if step < recipe.warmup_steps:
        return step / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * done))
