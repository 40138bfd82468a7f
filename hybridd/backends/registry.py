"""Which formats there are: the entry points of the group `hybridd.backends`.

The built-in ones register the same way as a third party's. A backend that cannot be imported or
lacks a part of the contract is left out with its reason; the daemon serves the others. Whether an
engine is installed is read from the packages' metadata, since the daemon never imports one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hybridd import __version__

from .api import Adapters, Backend, Drafting, Switch
from .installed import version_of

GROUP = "hybridd.backends"

# What the daemon reads of a backend, and what it may be.
_ATTRIBUTES: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "engine": (str,),
    "engine_factory": (str,),
    "switch": (Switch,),
    "suffixes": (tuple,),
    "distributions": (tuple,),
    "extra": (str, type(None)),
    "preload": (tuple,),
    "prepare": (str,),
    "tagged": (bool,),
    "splits_layers": (bool,),
    "keeps_states": (bool,),
    "senses": (tuple,),
    "adapters": (Adapters, type(None)),
    "drafting": (Drafting, type(None)),
}
# Those of them that hold texts.
_TEXTS = ("suffixes", "distributions", "preload", "senses")
_METHODS = (
    "uses_gpu",
    "claims",
    "companions",
    "inspect",
    "check_load_options",
    "parallel",
    "estimate",
)
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """One element of `system.info`'s `formats`.

    Attributes:
        name: The wire's `format`.
        available: Whether the engine's packages are installed.
        engine: The engine's name.
        version: Of the package that is the engine, or of the format's own where there is none.
        reason: What to install, when it is not available.
    """

    name: str
    available: bool
    engine: str | None = None
    version: str | None = None
    reason: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The object as docs/protocol.md has it; what is not known is left out."""
        fields = {
            "name": self.name,
            "available": self.available,
            "engine": self.engine,
            "version": self.version,
            "reason": self.reason,
        }
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Format:
    """One registered format.

    Attributes:
        backend: The daemon's half; None when it cannot be used, as `info.reason` says.
    """

    info: FormatInfo
    backend: Backend | None = None

    @property
    def switch(self) -> Switch:
        """The setting that turns it on and off; one that cannot be used has one as well."""
        if self.backend is not None:
            return self.backend.switch
        return Switch(f"Serve {self.info.name} models; {self.info.reason}.")


def installed_formats() -> dict[str, Format]:
    """Import the daemon's half of every registered format, by name and sorted."""
    formats: dict[str, Format] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in formats:
            continue
        version = point.dist.version if point.dist else __version__
        try:
            backend = point.load()
            problem = _problem(point.name, backend)
        except (
            Exception
        ) as error:  # a third party's code: whatever it raises must not end the daemon
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            formats[point.name] = Format(availability(backend, version), backend)
        else:
            reason = f"its backend ({point.value}) cannot be used: {problem}"
            info = FormatInfo(point.name, available=False, version=version, reason=reason)
            formats[point.name] = Format(info)
    return formats


def load_backends() -> dict[str, Backend]:
    """The daemon's half of every format that can be used, by name and sorted."""
    return {name: f.backend for name, f in installed_formats().items() if f.backend is not None}


def availability(backend: Backend, version: str) -> FormatInfo:
    """Whether the engine of a format is installed, without importing it.

    Args:
        version: Of the package that registers the format.
    """
    if not backend.engine_factory:
        reason = f"models of the format {backend.name} are recognised, but there is no engine yet"
        return FormatInfo(backend.name, available=False, engine=backend.engine, reason=reason)
    versions: dict[str, str] = {}
    for distribution in backend.distributions:
        there = version_of(distribution)
        if there is not None:
            versions[distribution] = there
        else:
            how = f"hybridd[{backend.extra}]" if backend.extra else distribution
            return FormatInfo(
                backend.name,
                available=False,
                engine=backend.engine,
                reason=f"{distribution} is not installed: pip install '{how}'",
            )
    own = versions.get(backend.engine)  # the engine may be one package of several
    version = own or next(iter(versions.values()), version)
    return FormatInfo(backend.name, available=True, engine=backend.engine, version=version)


def fingerprint(backends: Mapping[str, Backend]) -> str:
    """What tells these readers of model files from others, so that no other's facts are believed.

    Source files' sizes and times stand for what they do.
    """
    digest = hashlib.blake2b(__version__.encode(), digest_size=16)
    sources = set(Path(__file__).parents[1].rglob("*.py"))
    for name, backend in sorted(backends.items()):
        digest.update(f"{name}\n".encode())
        module = sys.modules.get(type(backend).__module__)
        sources.update(map(Path, filter(None, [getattr(module, "__file__", None)])))
    for path in sorted(sources):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _problem(name: str, backend: Any) -> str | None:
    """What a third party's backend lacks of the contract."""
    if isinstance(backend, type):
        return f"it is the class {backend.__name__}, not an instance of it"
    for attribute, types in _ATTRIBUTES.items():
        value = getattr(backend, attribute, _ABSENT)
        if value is _ABSENT:
            return _lacks(attribute)
        if not isinstance(value, types):
            allowed = " or ".join("None" if t is type(None) else t.__name__ for t in types)
            return f"its {attribute} is a {type(value).__name__}, not a {allowed}"
    for attribute in _TEXTS:
        if not all(isinstance(each, str) for each in getattr(backend, attribute)):
            return f"its {attribute} are not all texts"
    for method in _METHODS:
        if not callable(getattr(backend, method, None)):
            return _lacks(method)
    return None if backend.name == name else f"it calls itself {backend.name!r}"


def _lacks(attribute: str) -> str:
    if attribute in vars(Backend):
        return (
            f"it has no {attribute}; a class that inherits from hybridd.backends.api.Backend has "
            "what it does not say itself"
        )
    return f"it has no {attribute}, which every backend has to say"
