"""Errors in words: what happened, the numbers that explain it, what to do."""

from __future__ import annotations

import os
import sys

from hybridd.wire.paths import user_unit_dir
from hybridd.wire.units import format_size

from .terminal import clean, clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hybridd.wire.errors import HybriddError


def report(error: HybriddError, *, as_json: bool) -> None:
    """Say it on standard error."""
    sys.stdout.flush()
    if as_json:
        from json import dumps

        print(dumps({"error": error.to_wire()}), file=sys.stderr)
        return
    lines = [f"hybridctl: {error.message}", *_explained(error)]
    print("\n".join(clean(line) for line in lines), file=sys.stderr)


def _explained(error: HybriddError) -> list[str]:
    data = error.data
    if error.kind == "model_not_found":
        return _named("did you mean:", data.get("suggestions")) or ["see: hybridctl list"]
    if error.kind == "model_ambiguous":
        return _named("it may be:", data.get("candidates"))
    if error.kind == "does_not_fit" and isinstance(data.get("plan"), dict):
        return _plan(data["plan"])
    if error.kind == "load_failed" and data.get("detail"):
        detail = data["detail"]
        text = "\n".join(map(str, detail)) if isinstance(detail, list) else str(detail)
        return ["the engine's last words:", *(f"  {line}" for line in text.splitlines())]
    if error.kind == "internal_error" and os.path.exists(
        os.path.join(user_unit_dir(), "hybridd.service")
    ):
        return ["see: journalctl --user -u hybridd"]
    if error.kind == "busy" and data.get("retry_after_s") is not None:
        return [f"try again in {data['retry_after_s']:g} s"]
    return []


def _named(title: str, names: Any) -> list[str]:
    if not isinstance(names, list) or not names:
        return []
    return [title, *(f"  {clean_line(_name(name))}" for name in names)]


def _name(entry: Any) -> str:
    return str(entry.get("id")) if isinstance(entry, dict) else str(entry)


def _plan(plan: dict[str, Any]) -> list[str]:
    """The numbers of a refusal: what it needs, what there is, what would fit."""
    estimate = plan.get("estimate") or {}
    lines = []
    if needed := estimate.get("reserved_bytes"):
        parts = [
            f"{format_size(estimate[f'{name}_bytes'])} {label}"
            for name, label in _PARTS
            if estimate.get(f"{name}_bytes")
        ]
        lines.append(
            f"  needs  {format_size(needed)}" + (f" ({', '.join(parts)})" if parts else "")
        )
    for free in plan.get("free") or []:
        lines.append(f"  free   {format_size(free.get('bytes') or 0)} on {free.get('device')}")
    longest = plan.get("max_context_length")
    if longest:
        lines.append(f"  a context of {longest} tokens would fit: --context-length {longest}")
    elif longest == 0:
        lines.append("  no context length would fit")
    return lines


_PARTS = (
    ("weights", "weights"),
    ("kv_cache", "KV cache"),
    ("compute", "compute"),
    ("overhead", "overhead"),
)
