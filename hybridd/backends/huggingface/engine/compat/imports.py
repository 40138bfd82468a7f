"""torch and transformers, imported once, with everything that a first load would import later.

Imported in workers and templates only. Nothing here may touch a GPU or start a thread: a template
forks after it.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from importlib import metadata
from typing import Any

# Read when these libraries are imported: a model is what lies on the disk, and nothing else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch  # noqa: TID253 - worker side, where it may be imported

from .leaning import Leaning

__all__ = ["Tensor", "missed", "torch", "transformers", "version"]

Tensor = torch.Tensor

RENAMING = Leaning(
    name="transformers.conversion_mapping.get_checkpoint_conversion_mapping",
    purpose="the rules for renaming weights are a thousand regular expressions, which every load "
    "asks for: compiled in the template, each load takes a tenth of a second less",
    seen="transformers 5.18.0 to 5.24.0",
    without="loads take a tenth of a second longer: transformers keeps its rules for renaming "
    "weights elsewhere",
)

# httpx, the client of transformers' hub, would take trio where it finds it: no worker uses either.
_had_trio = "trio" in sys.modules
if not _had_trio:
    sys.modules["trio"] = None  # type: ignore[assignment] # the import system's "there is none"
try:
    # Untyped: transformers imports its parts when they are first asked for, which is to be now. The
    # base of most architectures and the usual tokenizer bring what a first load would wait for: two
    # seconds.
    transformers: Any = importlib.import_module("transformers")
    _ = transformers.LlamaForCausalLM, transformers.AutoTokenizer
    _ = transformers.PreTrainedTokenizerFast
finally:
    if not _had_trio:
        del sys.modules["trio"]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# What a library warns of is for its programmers; a worker's log is for whoever runs a model.
warnings.filterwarnings("ignore", module=r"(torch|transformers)(\..*)?")


def _compile_rules() -> list[str]:
    """See `RENAMING`; returns the note where that cannot be done."""
    try:
        rules: Any = importlib.import_module("transformers.conversion_mapping")
        rules.get_checkpoint_conversion_mapping("")
    except Exception:
        return [RENAMING.without]
    return []


_MISSED = _compile_rules()


def missed() -> list[str]:
    """Notes of what could not be readied for all loads."""
    return list(_MISSED)


def version() -> str:
    """The engine's name as `LoadedFacts` has it."""
    return f"transformers {metadata.version('transformers')}"
