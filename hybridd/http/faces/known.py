"""All faces, and what tells of them: the one place that a new face is added to."""

from __future__ import annotations

from collections.abc import Sequence

from hybridd.http import openapi, page
from hybridd.http.faces import anthropic, llamacpp, lmstudio, ollama, openai, original
from hybridd.http.faces.api import Face

_APIS: Sequence[Face] = (
    openai.FACE,
    original.FACE,
    anthropic.FACE,
    ollama.FACE,
    llamacpp.FACE,
    lmstudio.face(openai.FACE),
    page.FACE,
)
# The first one's shape is taken for errors at paths that are no face's.
FACES: Sequence[Face] = (*_APIS, openapi.face(_APIS))
