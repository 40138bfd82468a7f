"""The files with the code that computes a model, to notice that they changed."""

from __future__ import annotations

import sys
from pathlib import Path

# What models' modules leave to functions; of one that is elsewhere in another version the model's
# own modules are all that is looked at.
_FUNCTIONS = (
    "transformers.cache_utils",
    "transformers.integrations.sdpa_attention",
    "transformers.masking_utils",
    "transformers.modeling_rope_utils",
)


def sources(kinds: set[type]) -> list[Path]:
    """The files with the code of classes, and of what they are made of and call.

    Raises:
        LookupError, AttributeError: A class is from no file.
    """
    files = {str(sys.modules[kind.__module__].__file__) for kind in kinds}
    names = {base.__module__ for kind in kinds for base in kind.__mro__}
    names.update(_FUNCTIONS)
    more = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return [Path(file) for file in sorted(files.union(filter(None, more)))]
