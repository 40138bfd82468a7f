"""The text that the demo model is trained on, drawn from corpus.toml.

Responsible for reading the corpus, for drawing conversations from it (a question in one of its
wordings, with the capitals, marks, courtesies and slips that people put around it) and for
telling whether the corpus can make a given question, so that a held-out wording is known to be
one. Knows nothing of tokens and of training; everything random comes from the caller's `Random`.
"""

import re
import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus.toml"
HELD_OUT = HERE / "held_out.toml"

SLOT = re.compile(r"\{(\w+)\}")

# Words without which a question still asks the same. Others are never dropped: without its verb
# "how do i unload a model" would be taught the wrong answer.
DROPPABLE = frozenset({"a", "an", "the", "do", "i", "to", "is", "my", "of", "me", "please", "are"})

# How many questions a conversation has, and how often. The long ones are there to train the
# positions far from the start of the context.
TURNS = ((1, 60), (2, 20), (3, 12), (5, 5), (9, 3))


Message = dict[str, str]  # "role" and "content", as chat templates take it


@dataclass(frozen=True)
class Topic:
    """One fact: its answer and the wordings of its question, which may hold `{slots}`."""

    name: str
    answer: str
    questions: tuple[str, ...]
    weight: float
    tokenizer: bool


@dataclass(frozen=True)
class HeldOut:
    """Wordings kept out of the corpus, and what an answer to them must contain."""

    name: str
    must_contain: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Everything in corpus.toml."""

    slots: dict[str, tuple[str, ...]]
    before: tuple[str, ...]
    after: tuple[str, ...]
    fillers: tuple[str, ...]
    systems: tuple[str, ...]
    topics: tuple[Topic, ...]
    plain: tuple[str, ...]

    def expand(self, rng: Random, wording: str) -> str:
        """Fills each slot of a wording with one of its entries."""
        return SLOT.sub(lambda match: rng.choice(self.slots[match[1]]), wording)

    def tokenizer_texts(self, rng: Random, per_wording: int = 6) -> Iterator[str]:
        """Texts for the tokenizer's training, all topics alike but for those that opt out."""
        for topic in self.topics:
            if not topic.tokenizer:
                continue
            for _ in range(10):
                yield topic.answer
            for wording in topic.questions:
                for _ in range(per_wording if SLOT.search(wording) else 1):
                    question = self.expand(rng, wording)
                    yield question
                    yield question[:1].upper() + question[1:] + "?"
        for text in (*self.systems, *self.plain, *self.fillers):
            yield text
            yield text

    def question(self, rng: Random, topic: Topic) -> str:
        """One question of a topic as a person might type it."""
        text = self.expand(rng, rng.choice(topic.questions))
        if rng.random() < 0.20:
            words = text.split(" ")
            words.insert(rng.randint(1, len(words)), rng.choice(self.fillers))
            text = " ".join(words)
        if rng.random() < 0.15:
            text = rng.choice(self.before) + text
        if rng.random() < 0.10:
            text += rng.choice(self.after)
        if rng.random() < 0.15:
            text = _slip(rng, text)
        return _dress(rng, text)

    def conversation(self, rng: Random) -> list[Message]:
        """A conversation of one or more questions with their answers."""
        messages: list[Message] = []
        if rng.random() < 0.35:
            messages.append({"role": "system", "content": rng.choice(self.systems)})
        turns = rng.choices([n for n, _ in TURNS], [share for _, share in TURNS])[0]
        weights = [topic.weight for topic in self.topics]
        for topic in rng.choices(self.topics, weights, k=turns):
            messages.append({"role": "user", "content": self.question(rng, topic)})
            messages.append({"role": "assistant", "content": topic.answer})
        return messages

    def passage(self, rng: Random) -> str:
        """Plain text: one to three sentences, the earlier ones of the corpus more often."""
        weights = [1 / (rank + 3) for rank in range(len(self.plain))]
        drawn = rng.choices(self.plain, weights, k=rng.choice((1, 1, 1, 2, 3)))
        return " ".join(dict.fromkeys(drawn))

    def can_make(self, question: str) -> bool:
        """Whether a question, whatever its marks, capitals and courtesies, is in the corpus."""
        around = {normalise(text) for text in (*self.before, *self.after)}
        candidates = {normalise(question)}
        # As training puts one filler in, take one out.
        for filler in self.fillers:
            for match in re.finditer(
                rf" {re.escape(normalise(filler))}(?= |$)", normalise(question)
            ):
                text = normalise(question)
                candidates.add(text[: match.start()] + text[match.end() :])
        for extra in around:
            for text in tuple(candidates):
                candidates.add(text.removeprefix(extra + " "))
                candidates.add(text.removesuffix(" " + extra))
        return any(pattern.fullmatch(text) for text in candidates for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [
            re.compile(self._pattern(wording))
            for topic in self.topics
            for wording in topic.questions
        ]

    def _pattern(self, wording: str) -> str:
        # The odd parts of the split are slot names. Each part is normalised by itself, so what
        # lies between parts is optional space.
        parts = []
        for index, part in enumerate(SLOT.split(wording)):
            if index % 2:
                entries = {re.escape(normalise(entry)) for entry in self.slots[part]}
                parts.append(f"(?:{'|'.join(sorted(entries))})")
            elif normalise(part):
                parts.append(re.escape(normalise(part)))
        return r"\ ?".join(parts)


def normalise(text: str) -> str:
    """Lower case, without punctuation, single spaces: what makes two wordings the same."""
    table = str.maketrans(dict.fromkeys(string.punctuation, " "))
    return " ".join(text.lower().translate(table).split())


def load_corpus(path: Path = CORPUS) -> Corpus:
    """Reads and checks the corpus.

    Raises:
        ValueError: If a wording names a slot that does not exist, or two topics share a name.
    """
    data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    slots = {name: tuple(entries) for name, entries in data["slots"].items()}
    topics = tuple(
        Topic(
            name=topic["name"],
            answer=topic["answer"],
            questions=tuple(topic["questions"]),
            weight=float(topic.get("weight", 1.0)),
            tokenizer=bool(topic.get("tokenizer", True)),
        )
        for topic in data["topic"]
    )
    if len({topic.name for topic in topics}) != len(topics):
        raise ValueError("two topics have the same name")
    for topic in topics:
        for wording in topic.questions:
            for name in SLOT.findall(wording):
                if name not in slots:
                    raise ValueError(f"topic {topic.name}: no slot {name!r} for {wording!r}")
    around = data["around"]
    return Corpus(
        slots=slots,
        before=tuple(around["before"]),
        after=tuple(around["after"]),
        fillers=tuple(around["fillers"]),
        systems=tuple(around["systems"]),
        topics=topics,
        plain=tuple(data["plain"]["sentences"]),
    )


def load_held_out(path: Path = HELD_OUT) -> tuple[HeldOut, ...]:
    """Reads the held-out wordings."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(
        HeldOut(topic["name"], topic["must_contain"], tuple(topic["questions"]))
        for topic in data["topic"]
    )


def _slip(rng: Random, text: str) -> str:
    """A small mistake: a word left out, a letter left out, or two letters swapped."""
    words = text.split(" ")
    droppable = [i for i, word in enumerate(words) if word in DROPPABLE]
    if len(words) > 3 and droppable and rng.random() < 0.5:
        del words[rng.choice(droppable)]
        return " ".join(words)
    if len(text) < 12:  # a short question may not survive it
        return text
    at = rng.randrange(1, len(text) - 1)
    if rng.random() < 0.5:
        return text[:at] + text[at + 1 :]
    return text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]


def _dress(rng: Random, text: str) -> str:
    """Capitals and a final mark, or neither."""
    style = rng.random()
    if style < 0.60:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
        text = re.sub(r"\bgguf\b", "GGUF", text)
        text = re.sub(r"\bhugging face\b", "Hugging Face", text)
        text = re.sub(r"\b(gpu|ram|llm|json)\b", lambda match: match[1].upper(), text)
    elif style < 0.68:
        text = text.upper()
    elif style < 0.72:
        text = text.title()
    mark = rng.random()
    if mark < 0.55:
        text += "?"
    elif mark < 0.70:
        text += "."
    elif mark < 0.75:
        text += rng.choice(("!", "??", "...", " ?", "?!", " "))
    return text
