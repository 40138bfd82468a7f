"""Which projector (`mmproj`) belongs to which model of a directory, by their names.

Repositories keep one or several beside the weights: `mmproj-F16.gguf`, `mmproj-NAME-f16.gguf`,
`NAME-mmproj-f16.gguf`. What a projector can do is in its header, which `inspect` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MARK = "mmproj"
# Of several precisions the first is taken, as llama.cpp's documentation recommends.
_PRECISIONS = ("f16", "bf16", "q8_0", "f32")
_NO_NAME = frozenset({MARK, "model", "gguf", "f16", "bf16", "f32", "fp16", "q8", "0"})
_SEPARATORS = re.compile(r"[-_.\s]+")


def companions(names: Sequence[str], loose: bool) -> Mapping[str, Sequence[str]]:
    """Model -> its projectors, the best first; see `api.Backend`."""
    projectors = [name for name in names if MARK in name.lower()]
    if not projectors or len(projectors) == len(names):
        return {}
    models = {name: _words(name) for name in names if MARK not in name.lower()}
    companions_of: dict[str, list[str]] = {name: [] for name in models}
    nameless = []
    for projector in sorted(projectors, key=_rank):
        wanted = tuple(word for word in _words(projector) if word not in _NO_NAME)
        mine = [name for name, words in models.items() if wanted and words[: len(wanted)] == wanted]
        for name in mine:
            companions_of[name].append(projector)
        if not mine:
            nameless.append(projector)
    # In a repository's own folder there is only one model for it to belong to.
    if not loose or len(models) == 1:
        for mine in companions_of.values():
            mine += nameless if not mine else ()
    return {name: mine for name, mine in companions_of.items() if mine}


def _words(name: str) -> tuple[str, ...]:
    stem = name.lower().removesuffix(".gguf")
    return tuple(word for word in _SEPARATORS.split(stem) if word)


def _rank(name: str) -> tuple[int, str]:
    low = name.lower().removesuffix(".gguf")
    # "bf16" ends in "f16", so the whole last word is compared.
    last = re.split(r"[-.]", low)[-1]
    return (_PRECISIONS.index(last) if last in _PRECISIONS else len(_PRECISIONS), name)
