"""Renders a model's chat template, which came with the model's files and is not trusted.

Runs in workers only, and in the same way for every engine. The sandbox keeps a template from
reaching Python; on top of it a template gets a bounded number of iterations and calls, bounded
time, output and memory, since a sandbox stops code, not endless loops.

Special tokens in what a user wrote are text. Before rendering each such string becomes one
character from a private plane; afterwards the prompt is cut at these characters into segments,
and only the template's own segments may be parsed for special tokens.
"""

from __future__ import annotations

import json
import re
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hybridd.wire.errors import HybriddError, InvalidParams, Unsupported

# The longest in public models has some 30 kB.
_MAX_SOURCE_CHARS = 512 * 1024
# A conversation of a million tokens has some 5 MB; what is longer no model takes.
_MAX_OUTPUT_CHARS = 32 * 1024 * 1024
# Ten thousand messages through a long template take 200,000 iterations and calls and 0.3 s.
_MAX_TICKS = 5_000_000
_MAX_SECONDS = 5.0
# Beyond what the process has already; a rendering of 32 MB of text takes some 200 MB.
_MAX_MEMORY_BYTES = 1024 * 1024 * 1024
# Numbers in templates count messages.
_MAX_NUMBER_BITS = 4096
_MAX_MESSAGE_CHARS = 300
# Supplementary private use planes: characters that mean nothing in any text.
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")
_PRIVATE_FIRST, _PRIVATE_LAST = 0xF0000, 0x10FFFD


class Segment(NamedTuple):
    """A piece of a prompt; `special` says whether special tokens in it are meant as such."""

    text: str
    special: bool


class _Raised(jinja2.TemplateError):
    """The template refused its input by `raise_exception`."""


class _TooMuch(jinja2.TemplateError):
    """The template used more than it may."""


class _Budget:
    """What one rendering may use."""

    def __init__(self) -> None:
        self._ticks = 0
        self._until = time.monotonic() + _MAX_SECONDS

    def tick(self) -> None:
        self._ticks += 1
        if self._ticks > _MAX_TICKS:
            raise _TooMuch("it does not come to an end")
        if time.monotonic() > self._until:
            raise _TooMuch(f"it takes longer than {_MAX_SECONDS:.0f} s")


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, by which training marks the assistant's part."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """Counts every iteration and every call against the budget of the rendering under way."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
            optimized=False,
        )
        self.budget = _Budget()
        self.filters["tojson"] = _to_json
        self.filters["_counted"] = self._counted
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        return tree

    def _counted(self, iterable: Iterable[Any]) -> Iterable[Any]:
        # Sized things stay so, for `loop.length` and `loop.last` without buffering.
        return _CountedList(self, iterable) if isinstance(iterable, list) else self._count(iterable)

    def _count(self, iterable: Iterable[Any]) -> Iterator[Any]:
        for item in iterable:
            self.budget.tick()
            yield item

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.tick()
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, int) and value.bit_length() > _MAX_NUMBER_BITS:
                raise _TooMuch("it computes with numbers that are too big")
        if operator == "**" and isinstance(right, int) and right > _MAX_NUMBER_BITS:
            raise _TooMuch("it computes with numbers that are too big")
        return super().call_binop(context, operator, left, right)


class _CountedList(list[Any]):
    """A list whose iterations count; a copy, as loops are over messages and tools."""

    def __init__(self, environment: _Environment, items: Iterable[Any]) -> None:
        super().__init__(items)
        self._environment = environment

    def __iter__(self) -> Iterator[Any]:
        return self._environment._count(super().__iter__())


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As templates of the Hugging Face kind expect it: without Jinja's escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> None:
    raise _Raised(str(message)[:_MAX_MESSAGE_CHARS])


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form[:100])


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Have allocations fail that go far beyond what the process has now.

    A limit of the whole process, so it is on for a rendering only; the worker's other thread does
    nothing that needs memory meanwhile.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + _MAX_MEMORY_BYTES
    if soft not in (resource.RLIM_INFINITY, -1):
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class ChatTemplate:
    """One model's template, compiled.

    Args:
        source: Jinja, as the model's files have it.
        special: Gives the strings of the model's special tokens. Asked once and only when needed,
            for it may look through a large vocabulary.
        may_have: Whether a text may have such strings in it.
        names: What templates call them: `bos_token`, `eos_token`, ….
        format_name: For errors.

    Raises:
        Unsupported: It is no template.
    """

    def __init__(
        self,
        source: str,
        special: Callable[[], Iterable[str]],
        names: Mapping[str, str],
        format_name: str,
        may_have: Callable[[str], bool] = lambda _text: True,
    ) -> None:
        self._may_have = may_have
        self._names = dict(names)
        self._format = format_name
        self._special_strings = special
        self._environment = _Environment()
        if len(source) > _MAX_SOURCE_CHARS:
            raise self._unusable(f"it has more than {_MAX_SOURCE_CHARS} characters")
        try:
            with _bounded_memory():
                self._template = self._environment.from_string(source)
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, ValueError) as exc:
            raise self._unusable(_first_line(exc)) from exc

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[Segment]:
        """The prompt for these messages, up to where the assistant begins.

        Args:
            messages: As `messages.normalize` returns them.
            tools: In OpenAI's shape.
            kwargs: Further variables for the template.

        Raises:
            InvalidParams: The template does not take these messages; its own words say why.
            Unsupported: The template uses more time or room than it may.
        """
        try:
            hidden = self._hidden([messages, tools, kwargs])
            variables = {
                **self._names,
                "add_generation_prompt": True,
                "documents": None,
                **(hidden.hide(kwargs) or {}),
                "messages": hidden.hide(messages),
                "tools": hidden.hide(tools) or None,
            }
        except RecursionError as exc:
            raise InvalidParams(
                "messages or tools are nested too deeply", field="messages", reason="too deep"
            ) from exc
        return hidden.segments(self._render(variables))

    def _hidden(self, values: object) -> _Hidden:
        needed = any(self._may_have(text) for text in _strings(values))
        return _Hidden(self._special if needed else None, values)

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        # The longest first, or <|end would hide the better half of <|end_of_text|>.
        strings = sorted({s for s in self._special_strings() if s}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, strings))) if strings else None

    def _render(self, variables: dict[str, Any]) -> str:
        self._environment.budget = _Budget()
        pieces: list[str] = []
        size = 0
        try:
            with _bounded_memory():
                for piece in self._template.generate(variables):
                    pieces.append(piece)
                    size += len(piece)
                    if size > _MAX_OUTPUT_CHARS:
                        raise _TooMuch(f"it makes more than {_MAX_OUTPUT_CHARS} characters")
                return "".join(pieces)
        except _Raised as exc:
            raise InvalidParams(
                f"the model's chat template refused the messages: {_first_line(exc)}",
                field="messages",
                reason=_first_line(exc),
            ) from exc
        except (_TooMuch, MemoryError, RecursionError, OverflowError) as exc:
            raise self._unusable(_first_line(exc)) from exc
        except Exception as exc:
            # A template is a program: any Python exception may come out of it.
            raise InvalidParams(
                f"the model's chat template failed at these messages: {_first_line(exc)}",
                field="messages",
                reason=_first_line(exc),
            ) from exc

    def _unusable(self, reason: str) -> HybriddError:
        return Unsupported(
            f"the model's chat template cannot be used: {reason}",
            capability="chat",
            format=self._format,
            reason=reason,
        )


class _Hidden:
    """The special strings of one conversation, each hidden behind a character of its own."""

    def __init__(self, special: re.Pattern[str] | None, values: object) -> None:
        self._special = special
        self._char_of: dict[str, str] = {}
        taken = {c for text in _strings(values) for c in _PRIVATE.findall(text)}
        self._free = (c for n in range(_PRIVATE_FIRST, _PRIVATE_LAST) if (c := chr(n)) not in taken)

    def hide(self, value: Any) -> Any:
        """A copy with every special string in every string replaced."""
        if isinstance(value, str):
            return value if self._special is None else self._special.sub(self._replace, value)
        if isinstance(value, Mapping):
            return {self.hide(k): self.hide(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(v) for v in value]
        return value

    def segments(self, prompt: str) -> list[Segment]:
        """Cut a rendered prompt at the hidden strings, and bring them back."""
        if not self._char_of:
            return [Segment(prompt, True)] if prompt else []
        text_of = {char: text for text, char in self._char_of.items()}
        parts = re.split(f"([{''.join(text_of)}])", prompt)
        segments = [Segment(text_of.get(part, part), part not in text_of) for part in parts]
        return [segment for segment in segments if segment.text]

    def _replace(self, match: re.Match[str]) -> str:
        text = match.group()
        if text not in self._char_of:
            self._char_of[text] = next(self._free)
        return self._char_of[text]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _first_line(exc: BaseException) -> str:
    if isinstance(exc, MemoryError):
        return "it needs too much memory"
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:_MAX_MESSAGE_CHARS]
