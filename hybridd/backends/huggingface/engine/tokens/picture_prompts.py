"""Models that read pictures: prompts with pictures in them. `vision_session` computes them.

The chat template writes a placeholder for each picture, and only the template does: the same
string in what people write is text. The placeholder becomes what the processor puts in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybridd.backends.api import WorkRequest
from hybridd.backends.engine.chat_template import Segment
from hybridd.backends.engine.messages import normalize
from hybridd.backends.engine.prompts import Prompts
from hybridd.wire.errors import HybriddError, Unsupported

from ..compat.imports import Tensor
from .pictures import PictureReader, PictureVocabulary
from .vocabulary import Vocabulary

_PROBE = "hybridd-probe"


class PicturePrompt(list[int]):
    """Tokens, and the inputs that the model takes for those that stand for pictures."""

    def __init__(self, tokens: Sequence[int], inputs: Mapping[str, Tensor]) -> None:
        super().__init__(tokens)
        self.inputs = inputs


class TextPrompts(Prompts):
    """Prompts for a model that could read pictures, but not here.

    Args:
        problem: Why.
    """

    def __init__(self, vocabulary: Vocabulary, problem: Unsupported) -> None:
        super().__init__(vocabulary, vocabulary.chat_template(), "huggingface")
        self._problem = problem

    def _segments(self, request: WorkRequest) -> list[Segment]:
        try:
            return super()._segments(request)
        except Unsupported as exc:
            if exc.data.get("capability") != "vision":
                raise
            raise Unsupported(self._problem.message, **self._problem.data) from exc


class PicturePrompts(Prompts):
    """Prompts for a model that reads pictures.

    Args:
        reader: Of the model.
    """

    def __init__(self, vocabulary: PictureVocabulary, reader: PictureReader) -> None:
        super().__init__(vocabulary, vocabulary.chat_template(), "huggingface")
        self._reader = reader
        # Templates that know only lists of parts lose a text that is none.
        self._wants_parts = self._loses(_PROBE)

    @property
    def capabilities(self) -> list[str]:
        """See `Prompts`."""
        own = super().capabilities
        return [*own, "vision"] if "chat" in own else own

    def tokens(self, request: WorkRequest) -> list[int]:
        """See `Prompts`; with pictures it is a `PicturePrompt`."""
        if request["kind"] != "chat":
            return super().tokens(request)
        urls: list[str] = []
        segments = self._rendered_parts(request, urls)
        if not urls:
            return self._chat_tokens(segments)
        inputs, texts = self._reader.read(urls)
        tokens = self._chat_tokens(self._placed(segments, texts))
        return PicturePrompt(tokens, self._reader.place(inputs, tokens))

    def _segments(self, request: WorkRequest) -> list[Segment]:
        return self._rendered_parts(request, [])

    def _rendered_parts(self, request: WorkRequest, urls: list[str]) -> list[Segment]:
        """The template's words; `urls` gets the pictures."""
        messages = normalize(request.get("messages"), self.format, urls)
        if self._wants_parts:
            messages = [{**m, "content": _parts(m["content"])} for m in messages]
        segments = self._rendered(messages, request)
        places = sum(s.text.count(self._reader.token) for s in segments if s.special)
        if places != len(urls):
            raise Unsupported(
                f"the chat template of this model has {places} places for {len(urls)} pictures",
                capability="vision",
                format=self.format,
            )
        return segments

    def _placed(self, segments: Sequence[Segment], texts: Sequence[str]) -> list[Segment]:
        """Each placeholder of the template's own becomes what stands for its picture."""
        waiting = iter(texts)
        placed = []
        for segment in segments:
            if segment.special:
                first, *rest = segment.text.split(self._reader.token)
                whole = first + "".join(next(waiting) + text for text in rest)
                placed.append(Segment(whole, True))
            else:
                placed.append(segment)
        return placed

    def _loses(self, text: str) -> bool:
        if self.chat_problem is not None:
            return False
        probe = WorkRequest(id=0, kind="chat")

        def kept(content: object) -> bool:
            try:
                segments = self._rendered([{"role": "user", "content": content}], probe)
            except HybriddError:
                return False
            return any(text in segment.text for segment in segments)

        return not kept(text) and kept(_parts(text))


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
