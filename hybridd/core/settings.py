"""How the layers of settings make one value each; `keys` says what settings there are.

Flags go before values set at run time, those before the environment, that before the file, that
before the defaults. All problems of a source are found at once. This module reads no file and no
environment itself; `app` hands them in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridd.core.fields import FieldError, short, unknown_name
from hybridd.core.keys import KEYS, Key
from hybridd.core.unit_fields import Duration

__all__ = [
    "KEYS", "SOURCES", "Key", "Layer", "Settings", "dump_runtime", "on_wire", "read_environment",
    "read_flags", "read_table", "render_toml", "resolve",
]  # fmt: skip

SOURCES = ("flag", "runtime", "environment", "file", "default")  # the first that has a value wins


def _minutes(text: str) -> float:
    """MODEL_KEEPALIVE_MINUTES: 0 at once, -1 for ever."""
    takes = "a number of minutes; 0 is at once, -1 for ever"
    try:
        minutes = float(text)
        return Duration().check(-1 if minutes < 0 else minutes * 60)
    except ValueError:
        raise FieldError(takes, text) from None


_BARE = {
    "ENABLE_GGUF_MODELS": "formats.gguf",
    "ENABLE_SMART_SWITCHING": "models.smart_switching",
    "MODEL_KEEPALIVE_MINUTES": "models.keepalive",
}
EXTRA_DIRS = "EXTERNAL_MODELS_DIR"
_NOT_SETTINGS = {"HYBRIDD_SOCKET", "HYBRIDD_CONFIG"}


@dataclass(slots=True)
class Layer:
    """The values of one source and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    extra_dirs: list[str] = field(default_factory=list)

    def take(self, name: str, value: Any, *, text: bool = False, called: str | None = None) -> None:
        """Check one value and keep it, or note the problem."""
        key = KEYS.get(name)
        if key is None:
            self.problems.append(f"{short(called or name)}: {unknown_name(name, KEYS)}")
            return
        try:
            self.values[name] = key.field.parse(value) if text else key.field.check(value)
        except FieldError as exc:
            self.problems.append(f"{called or name}: {exc}")


def read_table(table: Mapping[str, Any]) -> Layer:
    """The layer of a parsed `hybridd.toml` (or of the runtime values, flat)."""
    layer = Layer()
    sections = {name.split(".")[0] for name in KEYS}
    for section, content in table.items():
        if isinstance(content, Mapping):
            if not content and section not in sections:
                layer.problems.append(f"{short(section)}: {unknown_name(section, list(sections))}")
            for name, value in content.items():
                layer.take(f"{section}.{name}", value)
        else:
            layer.take(section, content)
    return layer


def read_environment(environment: Mapping[str, str]) -> Layer:
    """The layer of HYBRIDD_SECTION_KEY and the four bare names; no other HYBRIDD_ name may be."""
    layer = Layer()
    known = {key.environment: key.name for key in KEYS.values()}
    for bare, name in _BARE.items():
        text = environment.get(bare)
        if text is None or text == "":
            continue
        if bare == "MODEL_KEEPALIVE_MINUTES":
            try:
                layer.values[name] = _minutes(text)
            except FieldError as exc:
                layer.problems.append(f"{bare}: {exc}")
        else:
            layer.take(name, text, text=True, called=bare)
    for variable, text in environment.items():
        if not variable.startswith("HYBRIDD_") or variable in _NOT_SETTINGS:
            continue
        if variable in known:
            layer.take(known[variable], text, text=True, called=variable)
        else:
            layer.problems.append(f"{short(variable)}: {unknown_name(variable, known)}")
    layer.extra_dirs = [p for p in environment.get(EXTRA_DIRS, "").split(":") if p]
    return layer


def read_flags(pairs: Iterable[str]) -> Layer:
    """The layer of `--set KEY=VALUE` flags."""
    layer = Layer()
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            layer.problems.append(f"{short(pair)}: takes KEY=VALUE")
        else:
            layer.take(name.strip(), text, text=True)
    return layer


@dataclass(frozen=True, slots=True)
class Settings:
    """One consistent set of values; `sources` says where each came from."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def resolve(layers: Mapping[str, Layer]) -> Settings:
    """Lay the sources over each other.

    Args:
        layers: By a name of `SOURCES`; absent ones are empty.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key in KEYS.values():
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


def on_wire(name: str, value: Any) -> Any:
    """A value as `config.get` shows it: for ever is -1, as docs/protocol.md's durations are."""
    if isinstance(KEYS[name].field, Duration) and value == float("inf"):
        return -1
    return value


def render_toml() -> str:
    """`etc/hybridd.toml`: every key with its meaning and its default, commented out."""
    lines = [
        "# hybridd's settings. Copy to ~/.config/hybridd/hybridd.toml, uncomment what you change.",
        "# Every key can also be set by the environment variable named beside it, at run time with",
        "# `hybridctl config set KEY VALUE`, or for one start with `hybridd --set KEY=VALUE`.",
        "# This file is generated: python -m hybridd.core.settings > etc/hybridd.toml",
    ]
    section = ""
    for key in KEYS.values():
        head, name = key.name.split(".", 1)
        if head != section:
            lines += ["", f"[{head}]"]
            section = head
        lines.append("")
        lines += [f"# {line}" for line in _wrap(key.description)]
        takes = key.field.takes
        lines += [f"# {line}" for line in _wrap(f"Takes {takes}.")]
        lines.append(
            f"# {key.environment}" + ("" if key.live else "; takes effect at the next start")
        )
        lines.append(f"# {name} = {key.field.toml(key.default)}")
    return "\n".join(lines) + "\n"


def _wrap(text: str, width: int = 96) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def dump_runtime(values: Mapping[str, Any]) -> str:
    """The runtime layer as the state file keeps it (JSON, one object)."""
    return json.dumps({k: on_wire(k, v) for k, v in values.items()}, indent=2) + "\n"


if __name__ == "__main__":
    print(render_toml(), end="")
