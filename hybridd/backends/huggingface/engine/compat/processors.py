"""transformers' processor of a model's pictures.

A processor turns a prompt with pictures into tokens and into what the model's vision part takes. It
is never given what people wrote: it is asked for the pictures' tokens alone, with a token of the
tokenizer's own between them, and those are read back as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .imports import Tensor, transformers
from .leaning import Leaning, Missing

CALL = Leaning(
    name="a processor's call with pictures and the tokens that stand for them",
    purpose="the model's inputs for pictures, and what their tokens become",
    seen="transformers 5.18.0 to 5.24.0",
    without="pictures cannot be read: this transformers takes none for this model in a way that is "
    "known here",
)
IDS = Leaning(
    name="image_token_ids and image_token_id of a processor",
    purpose="the tokens that stand for pictures in a prompt are not taken from what people write",
    seen="transformers 5.18.0 to 5.24.0",
    without="pictures cannot be read: this transformers does not say which tokens stand for them",
)
_OF_TEXT = frozenset({"input_ids", "attention_mask"})


def load(path: Path, trust_remote_code: bool) -> Any:
    """transformers' own processor of the model in a directory; raises what it likes."""
    return transformers.AutoProcessor.from_pretrained(
        str(path), local_files_only=True, trust_remote_code=trust_remote_code
    )


class PictureProcessor:
    """What is asked of a processor.

    Args:
        processor: As `load` gives it.

    Attributes:
        tokenizer: transformers' one.
        token: Stands for a picture in what the chat template writes.
        token_id: Of it.
        seen_ids: Tokens that stand for a picture's parts in a prompt. Of some models the template's
            token becomes others, which alone count as a picture's.

    Raises:
        Missing: It is of a kind that is not known here.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        usable = hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")
        if not usable or not isinstance(getattr(processor, "image_token", None), str):
            raise Missing(
                "pictures cannot be read: the model's processor is of a kind that is not known here"
            )
        self.tokenizer: Any = processor.tokenizer
        self.token: str = processor.image_token
        self.token_id = int(self.tokenizer.convert_tokens_to_ids(self.token))
        ids = getattr(processor, "image_token_ids", None)
        ids = ids or [getattr(processor, "image_token_id", None)]
        self.seen_ids = {token for token in ids if isinstance(token, int)}
        if not self.seen_ids:
            raise Missing(IDS.without)

    def check(self, picture: Any) -> None:
        """See whether the processor does as it should, with a picture that is like most.

        Raises:
            Missing: It does not, and would not with any other.
            ImportError: It needs a package that is not installed.
        """
        try:
            self.prepare([picture, picture])
        except ImportError:
            raise
        except Exception as exc:
            raise Missing(CALL.without) from exc

    @property
    def chat_template(self) -> str | Mapping[str, str] | None:
        """Its own, which knows of pictures."""
        template: str | Mapping[str, str] | None = getattr(self._processor, "chat_template", None)
        return template

    def prepare(self, pictures: Sequence[Any]) -> tuple[dict[str, Tensor], list[str]]:
        """The model's inputs for pictures, and the text that stands for each.

        Raises:
            Exception: What transformers likes, at a picture that it cannot take.
            ValueError: What comes back does not tell the pictures apart.
        """
        tokenizer = self.tokenizer
        between: str | None = tokenizer.eos_token or tokenizer.bos_token
        if not between:
            raise ValueError("the tokenizer has no token that could stand between pictures")
        text = between + "".join(self.token + between for _ in pictures)
        prepared = self._processor(
            images=list(pictures), text=[text], return_tensors="pt", add_special_tokens=False
        )
        ids = prepared["input_ids"][0].tolist()
        written = tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        first, *texts, last = written.split(between)
        if first or last or len(texts) != len(pictures):
            raise ValueError("the processor did not place every picture")
        if list(tokenizer.encode(written, add_special_tokens=False)) != ids:
            raise ValueError("the processor's tokens are no text of its tokenizer")
        inputs = {name: value for name, value in prepared.items() if name not in _OF_TEXT}
        return inputs, texts
