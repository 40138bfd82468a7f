"""How far a prompt's pictures move the positions of what follows.

In Qwen2-VL and its like a picture takes fewer positions than it has tokens. Such a model remembers
by how much in an attribute, of the last prompt alone: with several requests at hand it has to be
taken out of the model and put back.
"""

from __future__ import annotations

from typing import Any

from .imports import Tensor
from .leaning import Leaning, Missing

DELTAS = Leaning(
    name="rope_deltas of a model",
    purpose="answers to several prompts with pictures are generated beside each other",
    seen="transformers 5.18.0 to 5.24.0",
    without="pictures cannot be read: this transformers does not say how far they move the "
    "positions of what follows",
)
_NAME = "rope_deltas"


class PicturePositions:
    """What a model remembers of its last prompt with pictures.

    Args:
        model: transformers' one.

    Raises:
        Missing: It moves positions, and does not say how far.
    """

    def __init__(self, model: Any) -> None:
        self._keeper: Any = next((m for m in model.modules() if hasattr(m, _NAME)), None)
        if self._keeper is None and _moves(model):
            raise Missing(DELTAS.without)

    @property
    def deltas(self) -> Tensor | None:
        """How far positions are from the numbers of tokens; None where they are the same."""
        return None if self._keeper is None else getattr(self._keeper, _NAME)

    @deltas.setter
    def deltas(self, value: Tensor | None) -> None:
        if self._keeper is not None:
            setattr(self._keeper, _NAME, value)


def _moves(model: Any) -> bool:
    """Whether a model makes positions of its own for a prompt with pictures."""
    return any(hasattr(module, "get_rope_index") for module in model.modules())
