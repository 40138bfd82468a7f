"""The documented settings are those there are."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hybridd.backends.registry import installed_formats
from hybridd.core.settings import read_table
from hybridd.daemon.settings_file import every_key, render

ROOT = Path(__file__).parents[2]
OWN = {"echo", "gguf", "huggingface", "onnx"}
KEYS = every_key({name: f for name, f in installed_formats().items() if name in OWN})


def test_the_documented_file_is_the_generated_one() -> None:
    assert (ROOT / "etc" / "hybridd.toml").read_text() == render(KEYS)


def test_the_documented_defaults_are_the_defaults() -> None:
    lines = []
    for line in render(KEYS).splitlines():
        name = line[2:].split(" = ")[0]
        known = any(key.endswith("." + name) for key in KEYS)
        lines.append(line[2:] if line.startswith("# ") and " = " in line and known else line)
    layer = read_table(KEYS, tomllib.loads("\n".join(lines)))
    assert layer.problems == []
    assert layer.values == {key.name: key.default for key in KEYS.values()}


def test_every_format_has_a_switch_and_echo_is_off_unless_asked_for() -> None:
    switches = {name: key.default for name, key in KEYS.items() if name.startswith("formats.")}
    assert switches == {f"formats.{name}": name != "echo" for name in OWN}
    assert KEYS["formats.gguf"].variable == "ENABLE_GGUF_MODELS"
