"""The web API of the system that hybridd succeeds, below `/api/v1`: web apps of it run unchanged.

Models are listed as LM Studio lists them, conversations have OpenAI's shape, and a model is loaded
by its id in the path.
"""

from __future__ import annotations

from hybridd.http.faces.api import Face
from hybridd.http.faces.original import inference, loading, models, system
from hybridd.http.faces.original.errors import error

FACE = Face(
    "original",
    ("/api/v1",),
    (*models.ROUTES, *loading.ROUTES, *inference.ROUTES, *system.ROUTES),
    error,
)
