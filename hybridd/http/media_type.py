"""Whether a `Content-Type` says JSON in UTF-8 (RFC 9110, 8.3); pure.

Strict on purpose: a value that another reader might take for something else is none of ours.
"""

from __future__ import annotations

import re

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})=({_TOKEN}|"[^"\\]*")')
_UTF_8 = frozenset({"utf-8", "utf8"})


def is_json(value: str) -> bool:
    """Whether `value` is application/json, with no other charset than UTF-8."""
    essence, *parameters = (part.strip(" \t") for part in value.split(";"))
    if essence.lower() != "application/json":
        return False
    for parameter in filter(None, parameters):
        matched = _PARAMETER.fullmatch(parameter)
        if matched is None:
            return False
        if matched[1].lower() == "charset" and matched[2].strip('"').lower() not in _UTF_8:
            return False
    return True
