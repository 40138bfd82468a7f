"""`etc/hybridd.toml`: every setting with its meaning and its default, for people to copy from.

Generated: python -m hybridd.daemon.settings_file > etc/hybridd.toml
"""

from __future__ import annotations

from collections.abc import Mapping

from hybridd.backends import registry, switches
from hybridd.core.keys import KEYS
from hybridd.core.settings import Keys


def every_key(formats: Mapping[str, registry.Format]) -> Keys:
    """What settings there are with these formats installed."""
    return {**KEYS, **switches.keys(formats)}


def render(keys: Keys) -> str:
    """Every key with its meaning and its default, commented out."""
    lines = [
        "# hybridd's settings. Copy to ~/.config/hybridd/hybridd.toml, uncomment what you change.",
        "# Every key can also be set by the environment variable named beside it, at run time with",
        "# `hybridctl config set KEY VALUE`, or for one start with `hybridd --set KEY=VALUE`.",
        "# This file is generated: python -m hybridd.daemon.settings_file > etc/hybridd.toml",
    ]
    section = ""
    for key in keys.values():
        head, name = key.name.split(".", 1)
        if head != section:
            lines += ["", f"[{head}]"]
            section = head
        lines.append("")
        lines += [f"# {line}" for line in _wrap(key.description)]
        takes = key.field.takes
        lines += [f"# {line}" for line in _wrap(f"Takes {takes}.")]
        variables = " or ".join(filter(None, (key.environment, key.variable)))
        lines.append(f"# {variables}" + ("" if key.live else "; takes effect at the next start"))
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


if __name__ == "__main__":
    print(render(every_key(registry.installed_formats())), end="")
