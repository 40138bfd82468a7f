"""Which build of a model the load option `quantization` picks, where a model's id names its build.

A GGUF file has the precision that it has: for those the option is another way to say `:TAG`. For
Hugging Face models it is the engine's, and stays among the load options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.backends.api import Backend
from hybridd.core.model import ModelRecord
from hybridd.core.naming import bare
from hybridd.wire.errors import InvalidParams

_FIELD = "quantization"


def chosen(
    record: ModelRecord,
    query: str,
    load_options: Mapping[str, Any] | None,
    backends: Mapping[str, Backend],
    models: Mapping[str, ModelRecord],
) -> ModelRecord:
    """The build that is meant: what the query found, or another one of the same id.

    Args:
        record: What the query means by itself.
        models: The catalog.

    Raises:
        InvalidParams: There is no such build, or the query names another.
    """
    wanted = (load_options or {}).get(_FIELD)
    if wanted in (None, "auto") or not _is_tagged(record, backends) or _is(record, wanted):
        return record
    name = bare(record.id)
    if bare(query) != query:
        raise _invalid(
            f"{query} and quantization {wanted} are two builds; name one", "another build is named"
        )
    builds = [one for id, one in models.items() if bare(id) == name and one.available]
    for one in builds:
        if _is(one, wanted):
            return one
    there = ", ".join(sorted({str(one.facts.quantization) for one in builds})) or "none"
    raise _invalid(f"{name} has no build {wanted}; there is {there}", "no such build")


def checked(
    load_options: Mapping[str, Any], record: ModelRecord, backends: Mapping[str, Backend]
) -> Mapping[str, Any]:
    """The load options for the record's engine: without what picked the build.

    Raises:
        HybriddError: Those of `Backend.check_load_options`.
    """
    if _FIELD in load_options and _is_tagged(record, backends):
        load_options = {name: value for name, value in load_options.items() if name != _FIELD}
    backends[record.format].check_load_options(load_options)
    return load_options


def _is_tagged(record: ModelRecord, backends: Mapping[str, Backend]) -> bool:
    backend = backends.get(record.format)
    return backend is not None and backend.tagged


def _is(record: ModelRecord, wanted: object) -> bool:
    names = (record.facts.quantization, record.id.partition(":")[2])
    return str(wanted).casefold() in [name.casefold() for name in names if name]


def _invalid(message: str, reason: str) -> InvalidParams:
    return InvalidParams(message, field=f"load_options.{_FIELD}", reason=reason)
