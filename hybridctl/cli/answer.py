"""Prints a streamed answer: words as they come, made safe for a terminal, or JSON lines."""

from __future__ import annotations

import sys

from .render import print_json_line
from .terminal import TerminalFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hybridctl.sdk.blocking_streams import ChatStream, Stream
    from hybridd.wire.types import ChatCompletion, Completion

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def print_stream(stream: Stream | ChatStream, *, as_json: bool) -> Completion | ChatCompletion:
    """Print a stream to its end.

    With `as_json` each delta is a line `{"seq", "tokens", "delta"}`, and the last line is the
    whole result, with the full text. Otherwise the text; on a terminal also the model's
    reasoning, dimmed, which a pipe should not have to tell from the answer.

    Returns:
        The result.
    """
    if as_json:
        for delta in stream:
            print_json_line({k: v for k, v in delta.raw.items() if k != "id"})
        result = stream.result()
        print_json_line(_document(result))
        return result
    writer = _Writer()
    try:
        for delta in stream:
            writer.write(delta.reasoning or "", delta.text)
    finally:
        writer.end()
    return stream.result()


def _document(result: Completion | ChatCompletion) -> dict[str, object]:
    # The reply itself, for what this version does not know, and over it what the deltas made whole.
    return {**result.raw, **result.to_wire()}


class _Writer:
    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._filter = TerminalFilter()
        self._dim = False
        self._line_open = False

    def write(self, reasoning: str, text: str) -> None:
        if reasoning and self._terminal:
            self._switch(dim=True)
            self._print(reasoning)
        if text:
            self._switch(dim=False)
            self._print(text)
        sys.stdout.flush()

    def end(self) -> None:
        """Leave the terminal as it was, at the start of a line."""
        self._switch(dim=False)
        if self._line_open:
            sys.stdout.write("\n")
            self._line_open = False
        sys.stdout.flush()

    def _switch(self, *, dim: bool) -> None:
        if dim == self._dim:
            return
        self._dim = dim
        sys.stdout.write(_DIM if dim else _PLAIN)
        if not dim and self._line_open:
            sys.stdout.write("\n")
            self._line_open = False

    def _print(self, text: str) -> None:
        shown = self._filter.feed(text) if self._terminal else text
        if shown:
            sys.stdout.write(shown)
            self._line_open = not shown.endswith("\n")


def timings(result: Completion | ChatCompletion, load_s: float | None) -> str:
    """One line of where the time went, for `--verbose`."""
    usage, spent = result.usage, result.timings
    parts = []
    if load_s or spent.load_s:
        parts.append(f"load {load_s or spent.load_s:.2f} s")
    if spent.queue_s >= 0.01:
        parts.append(f"queue {spent.queue_s:.2f} s")
    prompt = f"prompt {usage.prompt_tokens} tokens in {spent.prompt_s:.2f} s"
    if usage.cached_tokens:
        prompt += f" ({usage.cached_tokens} cached)"
    parts.append(prompt + _rate(spent.prompt_tokens_per_s))
    generated = f"generated {usage.completion_tokens} tokens in {spent.generation_s:.2f} s"
    parts.append(generated + _rate(spent.generation_tokens_per_s))
    if spent.draft_tokens:
        parts.append(f"drafted {spent.draft_tokens} ({spent.draft_accepted_tokens or 0} right)")
    parts.append(f"first token after {spent.first_token_s:.2f} s")
    parts.append(f"ended by {result.finish_reason}")
    return "; ".join(parts)


def _rate(tokens_per_s: float | None) -> str:
    return "" if tokens_per_s is None else f", {tokens_per_s:.1f} tokens/s"
