"""How the layers of settings make one value each.

Flags go before values set at run time, those before the environment, that before the file, that
before the defaults. All problems of a source are found at once. Which settings there are is handed
in (`keys`), and so are texts and values: this module reads no file and no environment itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridd.core.fields import Field, FieldError, short, unknown_name
from hybridd.core.keys import Key

__all__ = [
    "SOURCES", "Key", "Keys", "Layer", "Settings", "dump_runtime", "on_wire", "read_environment",
    "read_flags", "read_table", "resolve", "unknown",
]  # fmt: skip

Keys = Mapping[str, Key]  # settings by name
SOURCES = ("flag", "runtime", "environment", "file", "default")  # the first that has a value wins


EXTRA_DIRS = "EXTERNAL_MODELS_DIR"
_FORMATS = "formats."  # the section whose names depend on what is installed
_FORMAT_VARIABLES = "HYBRIDD_FORMATS_"
_NOT_SETTINGS = {"HYBRIDD_SOCKET", "HYBRIDD_CONFIG"}


def unknown(name: str, keys: Keys) -> str:
    """What to say of a setting that does not exist."""
    if not name.startswith(_FORMATS):
        return unknown_name(name, keys)
    formats = sorted(key.removeprefix(_FORMATS) for key in keys if key.startswith(_FORMATS))
    return f"no such format is installed; there are {', '.join(formats)}"


@dataclass(slots=True)
class Layer:
    """The values of one source and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    extra_dirs: list[str] = field(default_factory=list)

    def take(self, keys: Keys, name: str, value: Any) -> None:
        """Check a value of JSON or TOML and keep it, or note the problem."""
        if (key := self._known(keys, name)) is not None:
            self._keep(key, name, lambda: key.field.check(value))

    def take_text(self, keys: Keys, name: str, text: str) -> None:
        """The same for a value that is written as text."""
        if (key := self._known(keys, name)) is not None:
            self.keep_text(key, key.field, text, called=name)

    def keep_text(self, key: Key, field: Field, text: str, *, called: str) -> None:
        """Read a text as a key's value and keep it, or note the problem under the name `called`."""
        self._keep(key, called, lambda: field.parse(text))

    def _known(self, keys: Keys, name: str) -> Key | None:
        if name not in keys:
            self.problems.append(f"{short(name)}: {unknown(name, keys)}")
        return keys.get(name)

    def _keep(self, key: Key, called: str, read: Callable[[], Any]) -> None:
        try:
            self.values[key.name] = read()
        except FieldError as exc:
            self.problems.append(f"{called}: {exc}")


def read_table(keys: Keys, table: Mapping[str, Any]) -> Layer:
    """The layer of a parsed `hybridd.toml` (or of the runtime values, flat)."""
    layer = Layer()
    sections = {name.split(".")[0] for name in keys}
    for section, content in table.items():
        if isinstance(content, Mapping) and section not in keys:
            if not content and section not in sections:
                layer.problems.append(f"{short(section)}: {unknown_name(section, list(sections))}")
            for name, value in content.items():
                layer.take(keys, f"{section}.{name}", value)
        else:
            layer.take(keys, section, content)
    return layer


def read_environment(keys: Keys, environment: Mapping[str, str]) -> Layer:
    """The layer of HYBRIDD_SECTION_KEY and of the bare names; no other HYBRIDD_ name may be."""
    layer = Layer()
    for key in keys.values():
        if text := environment.get(key.variable):
            layer.keep_text(key, key.variable_field or key.field, text, called=key.variable)
    known = {key.environment: key for key in keys.values()}
    for variable, text in environment.items():
        if not variable.startswith("HYBRIDD_") or variable in _NOT_SETTINGS:
            continue
        if (named := known.get(variable)) is not None:
            layer.keep_text(named, named.field, text, called=variable)
        else:
            of_format = variable.startswith(_FORMAT_VARIABLES)
            reason = unknown(_FORMATS, keys) if of_format else unknown_name(variable, known)
            layer.problems.append(f"{short(variable)}: {reason}")
    layer.extra_dirs = [p for p in environment.get(EXTRA_DIRS, "").split(":") if p]
    return layer


def read_flags(keys: Keys, pairs: Iterable[str]) -> Layer:
    """The layer of `--set KEY=VALUE` flags."""
    layer = Layer()
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            layer.problems.append(f"{short(pair)}: takes KEY=VALUE")
        else:
            layer.take_text(keys, name.strip(), text)
    return layer


@dataclass(frozen=True, slots=True)
class Settings:
    """One consistent set of values; `sources` says where each came from."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def resolve(keys: Keys, layers: Mapping[str, Layer]) -> Settings:
    """Lay the sources over each other.

    Args:
        layers: By a name of `SOURCES`; absent ones are empty.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key in keys.values():
        values[key.name], sources[key.name] = key.default, "default"
        for source in SOURCES[:-1]:
            layer = layers.get(source)
            if layer is not None and key.name in layer.values:
                values[key.name], sources[key.name] = layer.values[key.name], source
                break
    extra = layers["environment"].extra_dirs if "environment" in layers else []
    if extra:
        base = values["catalog.model_dirs"]
        values["catalog.model_dirs"] = base + [d for d in extra if d not in base]
        if sources["catalog.model_dirs"] == "default":
            sources["catalog.model_dirs"] = "environment"
    return Settings(values, sources)


def on_wire(value: Any) -> Any:
    """A value as `config.get` shows it: for ever is -1, as docs/protocol.md's durations are."""
    return -1 if value == math.inf else value


def dump_runtime(values: Mapping[str, Any]) -> str:
    """The runtime layer as the state file keeps it (JSON, one object)."""
    return json.dumps({k: on_wire(v) for k, v in values.items()}, indent=2) + "\n"
