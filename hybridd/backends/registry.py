"""Which formats there are: the entry points of the group `hybridd.backends`.

The built-in ones register the same way as anybody's. A backend that cannot be imported or lacks
a part of the contract is logged and left out; the daemon serves the others. Whether a format's
engine is installed is read from the packages' metadata, since the daemon never imports one.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hybridd import __version__

from .api import Backend
from .installed import version_of

GROUP = "hybridd.backends"

_log = logging.getLogger(__name__)
_TEXTS = ("name", "engine", "engine_factory", "prepare")
_TUPLES = ("distributions", "preload", "suffixes")
_CALLABLES = (
    "uses_gpu",
    "claims",
    "companions",
    "inspect",
    "check_load_options",
    "parallel",
    "estimate",
)


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """One element of `system.info`'s `formats`.

    Attributes:
        name: The wire's `format`.
        available: Whether the engine's packages are installed.
        engine: The engine's name.
        version: Of the package that is the engine.
        reason: What to install, when it is not available.
    """

    name: str
    available: bool
    engine: str
    version: str | None = None
    reason: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The object as docs/protocol.md has it; what is not known is left out."""
        made = {
            "name": self.name,
            "available": self.available,
            "engine": self.engine,
            "version": self.version,
            "reason": self.reason,
        }
        return {key: value for key, value in made.items() if value is not None}


def load_backends(enabled: Collection[str] | None = None) -> dict[str, Backend]:
    """Import the daemon's half of every registered format, by name and sorted.

    Args:
        enabled: Names to keep; None keeps all.
    """
    found: dict[str, Backend] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        if (enabled is not None and point.name not in enabled) or point.name in found:
            continue
        try:
            backend = point.load()
            problem = _problem(point.name, backend)
        except Exception as error:  # anybody's code: whatever it raises must not end the daemon
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            _log.warning("the backend %s (%s) is left out: %s", point.name, point.value, problem)
            continue
        found[point.name] = backend
    return found


def availability(backend: Backend) -> FormatInfo:
    """Whether the engine of a format is installed, without importing it."""
    if not backend.engine_factory:
        reason = f"models of the format {backend.name} are recognised, but there is no engine yet"
        return FormatInfo(backend.name, available=False, engine=backend.engine, reason=reason)
    versions: dict[str, str] = {}
    for distribution in backend.distributions:
        version = version_of(distribution)
        if version is not None:
            versions[distribution] = version
        else:
            how = f"hybridd[{backend.extra}]" if backend.extra else distribution
            return FormatInfo(
                backend.name,
                available=False,
                engine=backend.engine,
                reason=f"{distribution} is not installed: pip install '{how}'",
            )
    own = versions.get(backend.engine)  # the engine may be one package of several
    version = own or next(iter(versions.values()), __version__)
    return FormatInfo(backend.name, available=True, engine=backend.engine, version=version)


def fingerprint(backends: Mapping[str, Backend]) -> str:
    """What tells these readers of model files from others, so that no other's facts are believed.

    Source files' sizes and times stand for what they do.
    """
    made = hashlib.blake2b(__version__.encode(), digest_size=16)
    sources = set(Path(__file__).parents[1].rglob("*.py"))
    for name, backend in sorted(backends.items()):
        made.update(f"{name}\n".encode())
        module = sys.modules.get(type(backend).__module__)
        sources.update(map(Path, filter(None, [getattr(module, "__file__", None)])))
    for path in sorted(sources):
        status = path.stat()
        made.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return made.hexdigest()


def _problem(name: str, backend: Any) -> str | None:
    """What a third party's backend lacks of the contract."""
    for attribute in _TEXTS:
        if not isinstance(getattr(backend, attribute, None), str):
            return f"its {attribute} is no text"
    for attribute in _TUPLES:
        if not isinstance(getattr(backend, attribute, None), tuple):
            return f"its {attribute} is no tuple"
    for attribute in ("tagged", "splits_layers", "keeps_states"):
        if not isinstance(getattr(backend, attribute, None), bool):
            return f"its {attribute} is no boolean"
    for attribute in _CALLABLES:
        if not callable(getattr(backend, attribute, None)):
            return f"it has no {attribute}"
    return None if backend.name == name else f"it calls itself {backend.name!r}"
