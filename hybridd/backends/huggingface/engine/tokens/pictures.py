"""Pictures for models with vision: opened within bounds, then prepared by the model's processor.

The processor is transformers' own (`compat.processors`). It makes the numbers that the model's
vision part takes, and says with which text each picture's placeholder is to be replaced.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hybridd.backends.data_urls import bad, decode
from hybridd.wire.errors import InvalidParams, Unsupported

from ..compat import processors
from ..compat.imports import Tensor, torch
from ..compat.leaning import Missing
from ..compat.picture_positions import PicturePositions
from ..compat.processors import PictureProcessor
from .vocabulary import Vocabulary

# Of all pictures of a request together; decoded they take three or four bytes each. A camera's
# picture has 12 to 24 millions.
MAX_PIXELS = 32_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# Of the picture that a processor is tried with as it is loaded; wide enough for any.
_TRIED_SIZE = (320, 240)
_MOST_REASON = 200  # characters
_EXTRA = "install it with: pip install 'hybridd[vision]'"


def load_processor(model: Any, path: Path, trust_remote_code: bool) -> PictureProcessor:
    """transformers' processor of a model.

    Args:
        model: transformers' one.
        path: Its directory.

    Raises:
        Unsupported: There is none that can be used; says why.
    """
    if find_spec("PIL") is None:
        raise _unsupported(f"pictures need the Python package pillow; {_EXTRA}")
    try:
        PicturePositions(model)  # may be missing
        processor = PictureProcessor(processors.load(path, trust_remote_code))
        processor.check(_blank())
    except Missing as exc:
        raise _unsupported(str(exc)) from exc
    except ImportError as exc:
        if find_spec("torchvision") is None:
            missing = "torchvision, in the version that fits the installed torch"
        else:
            missing = exc.name or "a package that is not installed"
        raise _unsupported(f"this model's processor of pictures needs {missing}") from exc
    except Exception as exc:
        # transformers raises what it likes at files that are no processor.
        raise _unsupported(
            "the processor of pictures in this model's files is unusable "
            f"({type(exc).__name__}: {str(exc)[:_MOST_REASON]})"
        ) from exc
    return processor


def _blank() -> Any:
    from PIL import Image

    return Image.new("RGB", _TRIED_SIZE)


class PictureVocabulary(Vocabulary):
    """A vocabulary in which no text makes a picture's placeholder.

    Args:
        processor: Of the model, with its tokenizer.
    """

    def __init__(
        self, processor: PictureProcessor, vocab_size: int, placeholders: set[int]
    ) -> None:
        super().__init__(processor.tokenizer, vocab_size)
        self._processor = processor
        self._placeholders = placeholders
        names = {*(self.name(token) for token in placeholders), processor.token}
        self._names = {name for name in names if name}
        cuts = (f"(?<={re.escape(n[:1])})(?={re.escape(n[1:])})" for n in self._names)
        self._cut = re.compile("|".join(cuts))

    def encode(self, text: str, special: bool) -> list[int]:
        """See `prompts.Tokenizer`."""
        ids = super().encode(text, special)
        if special or self._placeholders.isdisjoint(ids):
            return ids
        # Tokenizers parse added tokens that are not called special whatever they are asked. Cut
        # behind its first character such a string is text.
        ids = []
        for piece in self._cut.split(text):
            ids += super().encode(piece, False)
        return [token for token in ids if token not in self._placeholders]

    def special_strings(self) -> set[str]:
        """See `prompts.Tokenizer`; the placeholders are such, whatever the tokenizer says."""
        return {*super().special_strings(), *self._names}

    def chat_template(self) -> str | None:
        """The processor's own, which knows of pictures, else the tokenizer's."""
        template = self._processor.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        return template if isinstance(template, str) else super().chat_template()


class PictureReader:
    """Turns data URLs into what a model takes.

    Args:
        processor: See `load_processor`.

    Attributes:
        token: Stands for a picture in what the chat template writes.
        placeholders: Ids that stand for pictures in a prompt.
    """

    def __init__(self, processor: PictureProcessor) -> None:
        self._processor = processor
        self.token = processor.token
        self.placeholders = {processor.token_id, *processor.seen_ids}

    def read(self, urls: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
        """The model's inputs for these pictures, and the text that stands for each.

        Raises:
            InvalidParams: One is no picture, or they are too large.
        """
        pictures = _opened(urls)
        try:
            return self._processor.prepare(pictures)
        except Exception as exc:
            # Of a picture that is one pixel wide, say: the processor's own words are for
            # programmers.
            raise bad("messages", "have a picture that this model cannot take") from exc

    def place(self, inputs: Mapping[str, Tensor], tokens: Sequence[int]) -> dict[str, Tensor]:
        """The inputs with those that go by the tokens of the whole prompt."""
        whole = dict(inputs)
        for name in whole:
            if name.endswith("token_type_ids"):
                kinds = [int(token in self._processor.seen_ids) for token in tokens]
                whole[name] = torch.tensor([kinds])
        return whole


def _opened(urls: Sequence[str]) -> list[Any]:
    from PIL import Image, ImageOps

    untyped: Any = Image
    untyped.MAX_IMAGE_PIXELS = MAX_PIXELS
    pictures: list[Any] = []
    left = MAX_PIXELS
    for number, url in enumerate(urls, 1):
        where = f"picture {number} in messages"
        data = decode(url, where)
        try:
            with untyped.open(io.BytesIO(data), formats=_FORMATS) as picture:
                # Known from the header: nothing is decoded yet.
                left -= picture.width * picture.height
                if left < 0:
                    raise _too_large(where)
                # Of a GIF the first frame. A camera's note of how it was held is followed.
                pictures.append(ImageOps.exif_transpose(picture).convert("RGB"))
        except InvalidParams:
            raise
        except (untyped.DecompressionBombError, untyped.DecompressionBombWarning) as exc:
            raise _too_large(where) from exc
        except Exception as exc:
            # Whatever a decoder makes of bytes that are no such picture.
            raise bad(where, "is no PNG, JPEG, WebP or GIF picture that can be read") from exc
    return pictures


def _too_large(where: str) -> InvalidParams:
    return bad(where, f"is too large: at most {MAX_PIXELS} pixels are taken in all pictures")


def _unsupported(message: str) -> Unsupported:
    return Unsupported(message, capability="vision", format="huggingface")
