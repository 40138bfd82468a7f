# ruff: noqa: TID253 - a script: the heavy libraries are what it is for
"""Checks the exported demo model through both engines: `python etc/demo-model/check.py`.

Reads only the exported files. Asks every held-out wording and says how many answers contain what
they must; then compares transformers (float32) with llama.cpp (F16) over tokens of odd strings and
greedy text of many prompts, and says by how much the chosen token led the runner-up: a wide
margin is what keeps two engines with different rounding at one text.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from corpus import Corpus, HeldOut, Message, load_corpus, load_held_out
from export import GGUF_FILE, HF_DIRECTORY
from network import CONTEXT_LENGTH
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

# An aborting llama.cpp would otherwise start a debugger. Read when it is imported.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
import llama_cpp

disable_progress_bar()

DEFAULT_MODELS = Path(__file__).parents[2] / "hybridd" / "demo"

# More than the longest answer, so that an answer that never ends shows as a missing EOS.
MAX_TOKENS = 300

SYSTEM: Message = {"role": "system", "content": "You are a helpful assistant."}

# Strings that pre-tokenizers disagree about, if they do about anything.
ODD_STRINGS = (
    "",
    " ",
    "   three spaces before, two after  ",
    "tabs\tand\t\ttabs",
    "one\ntwo\n\nthree\n\n\n",
    "\r\n\r\n",
    " \n \n",
    "12345678901234567890 3.14159 1e-9 0x1F 1,000,000",
    "it's we're I'll you've I'm they'd IT'S don't",
    "CamelCase snake_case kebab-case UPPER",
    "~/.local/share/hybridd/models/*.gguf",
    "$XDG_RUNTIME_DIR/hybridd/hybridd.sock",
    '{"jsonrpc": "2.0", "id": 1, "method": "system.ping"}',
    "hybridctl load MODEL --keepalive 10m && echo done; exit $?",
    "Grüße aus Österreich, à bientôt, mañana, smørrebrød, žluťoučký kůň",
    "Привет, как дела? Γειά σου Κόσμε",
    "你好，世界。こんにちは 안녕하세요 สวัสดี नमस्ते שלום مرحبا",
    "👋 👩‍👩‍👧‍👦 🇩🇪 ❤️ 1️⃣ 🤖🤖🤖",
    "e\u0301 é n\u0303 \u00a0no-break\u00a0 \u2003em\u2003 \u200bzero \ufeffmark",
    "١٢٣ ४५६ Ⅷ ½ ² ㊗",
    "…—–“quotes”‘single’«guillemets» ¿qué? ¡sí!",
    "a" * 300,
    "\u0000\u0001\u007f control",
    "def f(x):\n    return x ** 2  # comment\n\n\tif y:\n",
    "<|im_start|> <|im_end|> <|bos|> <s> </s> as text",
)

PLAIN_PROMPTS = (
    "",
    "To load a model,",
    "To unload",
    "You can",
    "hybridd is",
    "The demo models are",
    "The socket",
    "Once upon a time",
    "The quick brown fox",
    "One, two, three,",
    "In Python",
    "Every morning the sun",
    "The meaning of life is",
    "def main():",
    "zzzz",
)


@dataclass(frozen=True)
class Answer:
    """What an engine made of a prompt: its tokens without EOS, and whether EOS came."""

    tokens: tuple[int, ...]
    text: str
    ended: bool


class TransformersEngine:
    """The directory through transformers, in a given dtype."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
        self.eos = int(self.model.config.eos_token_id)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text that gets BOS, or of a rendered template (`special`)."""
        if special:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(text, split_special_tokens=True)["input_ids"])

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the chat template writes it."""
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        )

    @torch.no_grad()
    def greedy(self, prompt: list[int]) -> Answer:
        """The greedy continuation of a prompt."""
        ids = torch.tensor([prompt])
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_TOKENS
        )
        return self._answer(out[0, len(prompt) :].tolist())

    @torch.no_grad()
    def margin(self, prompt: list[int], answer: Answer) -> float:
        """The smallest lead of a chosen token over the next best, in logits."""
        tokens = [*answer.tokens, *([self.eos] if answer.ended else [])]
        logits = self.model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        best = logits.float().topk(2).values
        return float((best[:, 0] - best[:, 1]).min())

    def _answer(self, tokens: list[int]) -> Answer:
        ended = self.eos in tokens
        if ended:
            tokens = tokens[: tokens.index(self.eos)]
        return Answer(tuple(tokens), str(self.tokenizer.decode(tokens)), ended)


class LlamaCppEngine:
    """The GGUF file through llama.cpp."""

    def __init__(self, path: Path) -> None:
        self.model = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT_LENGTH, n_threads=1, n_threads_batch=1, verbose=False
        )
        self.chat_template = self.model.metadata["tokenizer.chat_template"]

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text that gets BOS, or of a rendered template (`special`)."""
        return list(self.model.tokenize(text.encode(), add_bos=not special, special=special))

    def greedy(self, prompt: list[int]) -> Answer:
        """The greedy continuation of a prompt."""
        tokens: list[int] = []
        ended = False
        for token in self.model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            ended = token == self.model.token_eos()
            if ended or len(tokens) == MAX_TOKENS:
                break
            tokens.append(int(token))
        text = self.model.detokenize(tokens).decode(errors="replace")
        return Answer(tuple(tokens), text, ended)


def check(models: Path = DEFAULT_MODELS, dtype: torch.dtype = torch.float32) -> int:
    """Prints the figures. Returns 0 if every load wording passes and the engines agree."""
    corpus = load_corpus()
    ours = TransformersEngine(models / HF_DIRECTORY, dtype)
    theirs = LlamaCppEngine(models / GGUF_FILE)
    faults = _check_held_out(corpus, ours)
    faults += _check_tokens(corpus, ours, theirs) + _check_text(corpus, ours, theirs)
    print("all well" if not faults else f"{faults} FAULTS")
    return 1 if faults else 0


def _check_held_out(corpus: Corpus, engine: TransformersEngine) -> int:
    """Asks the held-out wordings. Returns how many about loading failed; others may fail."""
    answers = {topic.name: topic.answer for topic in corpus.topics}
    earlier: list[Message] = []
    for question, name in (("Hello", "hello"), ("Which models are there?", "list")):
        earlier.append({"role": "user", "content": question})
        earlier.append({"role": "assistant", "content": answers[name]})
    load_missed = 0
    for label, before in (("alone", []), ("after system", [SYSTEM]), ("third turn", earlier)):
        scores = {
            topic.name: (_score(engine, before, topic), len(topic.questions))
            for topic in load_held_out()
        }
        right = sum(hits for hits, _ in scores.values())
        asked = sum(count for _, count in scores.values())
        each = ", ".join(f"{name} {hits}/{count}" for name, (hits, count) in scores.items())
        print(f"held out, {label}: {right} of {asked} ({each})")
        load_missed += scores["load"][1] - scores["load"][0]
    return load_missed


def _score(engine: TransformersEngine, before: Sequence[Message], topic: HeldOut) -> int:
    """How many of a topic's held-out wordings are answered right."""
    hits = 0
    for question in topic.questions:
        text = _ask(engine, [*before, {"role": "user", "content": question}]).text
        if topic.must_contain in text:
            hits += 1
        else:
            print(f"  missed: {question!r} -> {text!r}")
    return hits


def _check_tokens(corpus: Corpus, ours: TransformersEngine, theirs: LlamaCppEngine) -> int:
    """Compares templates and tokens. Returns the number of differences."""
    faults = int(theirs.chat_template != ours.tokenizer.chat_template)
    if faults:
        print("the chat templates differ")
    strings = [*ODD_STRINGS, *(topic.answer for topic in corpus.topics), *_noise(500)]
    for string in strings:
        if ours.tokenize(string, special=False) != theirs.tokenize(string, special=False):
            faults += 1
            print(f"  tokens differ: {string!r}")
    print(f"tokens compared over {len(strings)} strings, {faults} differ")
    return faults


def _check_text(corpus: Corpus, ours: TransformersEngine, theirs: LlamaCppEngine) -> int:
    """Compares greedy text. Returns the number of differences."""
    faults = count = endless = 0
    margins: list[tuple[float, str]] = []
    for prompt in _prompts(corpus, ours):
        special = prompt.startswith("<|bos|>")
        ids = ours.tokenize(prompt, special=special)
        if ids != theirs.tokenize(prompt, special=special):
            faults += 1
            print(f"  prompt tokens differ: {prompt!r}")
            continue
        ours_says, theirs_says = ours.greedy(ids), theirs.greedy(ids)
        count += 1
        endless += not ours_says.ended
        margins.append((ours.margin(ids, ours_says), prompt))
        if ours_says != theirs_says:
            faults += 1
            print(f"  text differs: {prompt!r}\n    {ours_says.text!r}\n    {theirs_says.text!r}")
    margins.sort()
    print(f"greedy text compared over {count} prompts, {faults} differ, {endless} without end")
    for margin, prompt in margins[:5]:
        print(f"  smallest margin {margin:.4f} logits: {prompt[-80:]!r}")
    print(f"  median of the smallest margins {margins[len(margins) // 2][0]:.2f} logits")
    return faults


def _prompts(corpus: Corpus, engine: TransformersEngine) -> Iterator[str]:
    """Rendered conversations, and plain texts for `generate`."""
    rng = Random(0)
    questions = [question for topic in load_held_out() for question in topic.questions]
    for question in [*questions, *ODD_STRINGS]:
        user: Message = {"role": "user", "content": question}
        yield engine.render([user])
        yield engine.render([SYSTEM, user])
    for _ in range(60):  # conversations from the corpus, without the last answer
        yield engine.render(corpus.conversation(rng)[:-1])
    for _ in range(20):  # and ones in which every question is held out
        messages: list[Message] = []
        for question in rng.sample(questions, 3):
            messages.append({"role": "user", "content": question})
            text = _ask(engine, messages).text
            messages.append({"role": "assistant", "content": text})
        yield engine.render(messages[:-1])
    yield from PLAIN_PROMPTS


def _ask(engine: TransformersEngine, messages: Sequence[Message]) -> Answer:
    return engine.greedy(engine.tokenize(engine.render(messages), special=True))


def _noise(count: int) -> Iterator[str]:
    """Random strings of characters from many scripts."""
    rng = Random(0)
    ranges = [(9, 13), (32, 126), (32, 126), (160, 0x17F), (0x370, 0x4FF), (0x5D0, 0x64A)]
    ranges += [(0x900, 0x97F), (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x4FFF)]
    ranges += [(0xAC00, 0xAD00), (0x1F300, 0x1F64F), (32, 32), (48, 57)]
    for _ in range(count):
        yield "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 60)))


def main() -> int:
    """Parses the arguments and checks. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=DEFAULT_MODELS, help="directory of both")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--ask", help="only answer this question, through both engines")
    arguments = parser.parse_args()
    if arguments.ask is None:
        return check(arguments.models, getattr(torch, arguments.dtype))
    ours = TransformersEngine(arguments.models / HF_DIRECTORY, getattr(torch, arguments.dtype))
    theirs = LlamaCppEngine(arguments.models / GGUF_FILE)
    ids = ours.tokenize(ours.render([{"role": "user", "content": arguments.ask}]), special=True)
    print(f"transformers: {ours.greedy(ids).text}\nllama.cpp:    {theirs.greedy(ids).text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
