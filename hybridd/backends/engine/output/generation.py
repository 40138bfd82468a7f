"""What every engine keeps of one generation: its text, its limits, its counts and its times.

The engine decides which token comes next; this decides what is sent of it and when it is enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from hybridd.backends.api import Delta, Output
from hybridd.wire.errors import ContextExceeded, HybriddError, Unsupported

from ..options import GenerationOptions
from .text import TextStream

Reason = Literal["stop", "length"]

# With `context_shift` nothing ends a text that has no end; without `max_tokens` this many contexts
# do.
_SHIFTED_CONTEXTS = 4


def check_prompt(prompt_tokens: int, context_length: int) -> None:
    """Refuse a prompt that leaves no room for one token.

    Raises:
        ContextExceeded: With both numbers.
    """
    if prompt_tokens >= context_length:
        raise ContextExceeded(
            f"the prompt has {prompt_tokens} tokens, but the model is loaded with a context of "
            f"{context_length}; shorten the prompt or load it with a larger context_length",
            prompt_tokens=prompt_tokens,
            context_length=context_length,
        )


def refuse_context_shift(options: GenerationOptions, format_name: str) -> None:
    """Say that `context_shift` cannot be had, if it is asked for.

    Raises:
        Unsupported: With the capability.
    """
    if options.context_shift:
        raise Unsupported(
            "this model cannot shift its context; leave context_shift out, or load the model with "
            "a larger context_length",
            capability="context_shift",
            format=format_name,
        )


def joined(outputs: Sequence[Output]) -> Output:
    """What several tokens of one step brought for one request; one output at least."""
    last = outputs[-1]
    deltas = [each["delta"] for each in outputs if "delta" in each]
    return {**last, "delta": Delta.merged(deltas)} if deltas else last


class Generation:
    """The bookkeeping of one request, from its prompt to its `done`.

    Args:
        request_id: For the outputs.
        options: Of the request.
        prompt_tokens: How many the prompt has; `check_prompt` was called.
        context_length: How many tokens prompt and completion may have together; with
            `context_shift` that limits the prompt only.

    Attributes:
        id: The request's id.
        finished: `done` or an error went out.
        cached_tokens: How many of the prompt's tokens the engine did not have to compute.
        draft_tokens: How many tokens a draft model proposed; None without one.
        draft_accepted_tokens: How many of them were right.
    """

    def __init__(
        self,
        request_id: int,
        options: GenerationOptions,
        prompt_tokens: int,
        context_length: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = request_id
        self.options = options
        self.finished = False
        self.cached_tokens = 0
        self.draft_tokens: int | None = None
        self.draft_accepted_tokens = 0
        self._prompt_tokens = prompt_tokens
        shifts, remaining = options.context_shift, context_length - prompt_tokens
        default = context_length * _SHIFTED_CONTEXTS if shifts else remaining
        wanted = default if options.max_tokens is None else options.max_tokens
        self._limit = wanted if shifts else min(wanted, remaining)
        self._stream = TextStream(options.stop)
        self._completion_tokens = 0
        self._clock = clock
        self._began = clock()
        self._prompt_s = 0.0
        self._first_token_s: float | None = None

    @property
    def completion_tokens(self) -> int:
        """How many tokens were generated so far."""
        return self._completion_tokens

    @property
    def remaining_tokens(self) -> int:
        """How many may still come."""
        return self._limit - self._completion_tokens

    def begin(self) -> None:
        """The request has its slot: its times count from now, what it waited is the queue's."""
        self._began = self._clock()

    def prefilled(self) -> Output | None:
        """The prompt is processed. An output when no token is wanted."""
        self._prompt_s = self._clock() - self._began
        return self._end("length") if self._limit <= 0 else None

    def accept(self, piece: bytes, logprobs: dict[str, Any] | None = None) -> Output:
        """A token came. The output ends the request when it is enough.

        Args:
            piece: The token's bytes.
            logprobs: Its entry (`logprobs.entry`), where the request wants one.
        """
        if self._first_token_s is None:
            self._first_token_s = self._clock() - self._began
        self._completion_tokens += 1
        text = self._stream.feed(piece)
        reason: Reason | None = None
        if self._stream.stopped:
            reason = "stop"
        elif self._completion_tokens >= self._limit:
            text += self._stream.finish()
            reason = "stop" if self._stream.stopped else "length"
        delta = Delta(text, 1) if logprobs is None else Delta(text, 1, logprobs=[logprobs])
        return {"id": self.id, "delta": delta} if reason is None else self._end(reason, delta)

    def end_of_text(self) -> Output:
        """The model said that it is done; that token is neither text nor counted."""
        rest = self._stream.finish()
        return self._end("stop", Delta(rest) if rest else None)

    def fail(self, error: HybriddError) -> Output:
        """It cannot go on."""
        self.finished = True
        return Output(id=self.id, error=error.to_wire())

    def _end(self, reason: Reason, delta: Delta | None = None) -> Output:
        self.finished = True
        total_s = self._clock() - self._began
        first_s = self._first_token_s if self._first_token_s is not None else total_s
        drafts = {
            "draft_tokens": self.draft_tokens,
            "draft_accepted_tokens": self.draft_accepted_tokens,
        }
        done = {
            "finish_reason": reason,
            "usage": {
                "prompt_tokens": self._prompt_tokens,
                "completion_tokens": self._completion_tokens,
                "cached_tokens": self.cached_tokens,
            },
            "timings": {
                "prompt_s": round(self._prompt_s, 6),
                "first_token_s": round(first_s, 6),
                "generation_s": round(total_s - self._prompt_s, 6),
                **({} if self.draft_tokens is None else drafts),
            },
        }
        output = Output(id=self.id, done=done)
        if delta is not None:
            output["delta"] = delta
        return output
