"""From a request to the tokens of its prompt, in the same way for every engine with a tokenizer.

What differs between engines is the tokenizer alone, behind `Tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from hybridd.backends.api import WorkRequest
from hybridd.core.kinds import KINDS
from hybridd.wire.errors import HybriddError, InvalidParams, Unsupported

from .chat_template import ChatTemplate, Segment
from .messages import normalize


class Tokenizer(Protocol):
    """What an engine knows of its model's vocabulary."""

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        ...

    @property
    def prefix(self) -> Sequence[int]:
        """What every prompt begins with: the BOS token, where the model wants one."""
        ...

    def encode(self, text: str, special: bool) -> list[int]:
        """The text's tokens, without BOS and EOS; special tokens are parsed only if asked."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones by their names."""
        ...

    def special_strings(self) -> Iterable[str]:
        """The strings of the special tokens."""
        ...

    def may_have_special(self, text: str) -> bool:
        """Whether a special token's string may be in the text; True where that is not cheap."""
        ...

    def token_names(self) -> Mapping[str, str]:
        """What chat templates get: `bos_token`, `eos_token`, … where there are such."""
        ...


class Prompts:
    """Makes prompts for one loaded model.

    Args:
        tokenizer: The engine's.
        template: The chat template's source, if the model has one.
        format_name: For errors.

    Attributes:
        format: For errors.
        chat_problem: Why there is no chat; None when there is.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None, format_name: str) -> None:
        self._tokenizer = tokenizer
        self.format = format_name
        self._template: ChatTemplate | None = None
        self.chat_problem: HybriddError | None = None
        if template is None:
            self.chat_problem = Unsupported(
                "this model has no chat template; use generate with a prompt",
                capability="chat",
                format=format_name,
            )
            return
        try:
            self._template = ChatTemplate(
                template,
                tokenizer.special_strings,
                tokenizer.token_names(),
                format_name,
                tokenizer.may_have_special,
            )
        except Unsupported as exc:
            self.chat_problem = exc

    @property
    def capabilities(self) -> list[str]:
        """What can be asked of the model, as far as prompts go."""
        return ["completion"] if self.chat_problem else ["completion", "chat"]

    def tokens(self, request: WorkRequest) -> list[int]:
        """The prompt of a `generate` or `chat` request.

        Raises:
            HybriddError: Of any kind that says what is wrong with the request.
        """
        if request["kind"] == "chat":
            return self._chat_tokens(self._segments(request))
        prompt = Segment(request["prompt"], bool(request.get("special", False)))
        return self._chat_tokens([prompt], "prompt")

    def answer(self, request: WorkRequest) -> dict[str, Any]:
        """The result of a request that needs no generation.

        Raises:
            HybriddError: Also for a kind that no engine knows.
        """
        match request["kind"]:
            case "tokenize":
                special = bool(request.get("special", False))
                return {"tokens": self._tokenizer.encode(request["text"], special)}
            case "detokenize":
                return {"text": self._tokenizer.decode(self._checked(request["tokens"]))}
            case "apply_template":
                return {"prompt": "".join(s.text for s in self._segments(request))}
        kind = KINDS.get(request["kind"])
        raise Unsupported(
            f"this model cannot {request['kind']}",
            capability=(kind and kind.capability) or request["kind"],
            format=self.format,
        )

    def _segments(self, request: WorkRequest) -> list[Segment]:
        return self._rendered(normalize(request.get("messages"), self.format), request)

    def _rendered(
        self, messages: Sequence[Mapping[str, Any]], request: WorkRequest
    ) -> list[Segment]:
        if self._template is None:
            assert self.chat_problem is not None
            raise type(self.chat_problem)(self.chat_problem.message, **self.chat_problem.data)
        return self._template.render(
            messages, request.get("tools"), request.get("chat_template_kwargs")
        )

    def _chat_tokens(self, segments: Sequence[Segment], field: str = "messages") -> list[int]:
        tokens = [t for s in segments for t in self._tokenizer.encode(s.text, s.special)]
        prefix = list(self._tokenizer.prefix)
        size = len(prefix)
        if prefix and segments and segments[0].special:
            # Most templates write BOS themselves; some files make both do it.
            while tokens[:size] == prefix:
                del tokens[:size]
        return self._not_empty([*prefix, *tokens], field)

    def _not_empty(self, tokens: list[int], field: str) -> list[int]:
        if tokens:
            return tokens
        raise InvalidParams(
            "the prompt is empty and the model has no token that begins a text",
            field=field,
            reason="empty",
        )

    def _checked(self, tokens: Sequence[int]) -> Sequence[int]:
        for token in tokens:
            if not 0 <= token < self._tokenizer.vocab_size:
                raise InvalidParams(
                    f"{token} is no token of this model, which has {self._tokenizer.vocab_size}",
                    field="tokens",
                    reason="out of range",
                )
        return tokens
