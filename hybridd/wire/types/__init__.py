"""The objects that replies carry, as small typed records.

The `Attributes` of a record say what its fields mean and in which unit; `rpc.discover` and the
tables of docs/protocol.md are made from them. A field that may be None is null, or left out, where
it is not known or does not apply.
"""

from __future__ import annotations

from ..delta import Delta
from .answers import ChatCompletion, Completion, Embeddings, Ranked, Reranking, Timings, Usage
from .daemon import ConfigChange, Event, HttpLink, HttpStatus, Info, Job, Progress, Setting
from .models import Loaded, Location, Model, ModelDetails, Quantization, Rescan, Unloaded

__all__ = [
    "ChatCompletion",
    "Completion",
    "ConfigChange",
    "Delta",
    "Embeddings",
    "Event",
    "HttpLink",
    "HttpStatus",
    "Info",
    "Job",
    "Loaded",
    "Location",
    "Model",
    "ModelDetails",
    "Progress",
    "Quantization",
    "Ranked",
    "Reranking",
    "Rescan",
    "Setting",
    "Timings",
    "Unloaded",
    "Usage",
]
