"""`doctor`: what was found where, what was rejected and why, what takes space twice."""

from __future__ import annotations

from .. import exit_codes
from ..common import connect
from ..render import fields, print_json, size, table
from ..terminal import clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable
    from typing import Any

    from hybridd.wire.types import Model

    from ..parser import Parser


def configure_doctor(parser: Parser) -> None:
    """Arguments of `doctor`."""
    parser.add_argument(
        "--catalog", action="store_true", help="where models were looked for and what was found"
    )


def doctor(args: Namespace) -> int:
    """Print what was found out."""
    with connect(args) as client:
        catalog = client.info().catalog
        models = client.list(all=True)
    rejected = [m for m in models if m.status == "invalid"]
    usable = [m for m in models if m.status != "invalid"]
    places = [{**place, **_counts(place, models)} for place in catalog.get("places", [])]
    doubles = duplicates(usable)
    if args.json:
        print_json(
            {
                "places": places,
                "problems": catalog.get("problems", []),
                "rejected": [{"path": _path(m), "reason": m.reason, "id": m.id} for m in rejected],
                "duplicates": doubles,
                "twice_bytes": sum(group["twice_bytes"] for group in doubles),
            }
        )
        return exit_codes.OK
    print("\n\n".join(part for part in _sections(catalog, places, rejected, doubles) if part))
    return exit_codes.OK


def _sections(
    catalog: dict[str, Any],
    places: list[dict[str, Any]],
    rejected: list[Model],
    doubles: list[dict[str, Any]],
) -> Iterable[str]:
    if not catalog.get("complete", True):
        yield "The first scan is running; this is what was found so far."
    yield table(("STORE", "MODELS", "SIZE", "REJECTED", "DIRECTORY"), map(_place_row, places))
    if catalog.get("watching") == "polling":
        remedy = catalog.get("polling_remedy")
        yield "Changes are found by polling, for inotify has no room" + (
            f": raise it with sysctl {remedy}." if remedy else "."
        )
    if problems := catalog.get("problems"):
        yield "Could not be looked at:\n" + "\n".join(f"  {clean_line(p)}" for p in problems)
    if rejected:
        reasons = fields((clean_line(_path(m)), clean_line(m.reason or "")) for m in rejected)
        yield f"Rejected:\n{_indented(reasons)}"
    else:
        yield "Nothing was rejected."
    if doubles:
        yield "\n".join(["Duplicates:", *(_double(group) for group in doubles), _advice(doubles)])
    else:
        yield "Nothing takes its space twice."


def _place_row(place: dict[str, Any]) -> tuple[str, ...]:
    where = str(place.get("path"))
    if not place.get("exists"):
        return (str(place.get("store")), "-", "-", "-", f"{where} (not there)")
    counts = (str(place["models"]), size(place["size_bytes"]), str(place["rejected"]))
    return (str(place.get("store")), *counts, where)


def _counts(place: dict[str, Any], models: list[Model]) -> dict[str, int]:
    """What was found first in this place; what was seen there too is not counted again."""
    prefix = f"{str(place.get('path')).rstrip('/')}/"
    here = [
        m
        for m in models
        if m.source and m.source.store == place.get("store") and m.source.path.startswith(prefix)
    ]
    usable = [m for m in here if m.status != "invalid"]
    return {
        "models": len(usable),
        "size_bytes": sum(m.size_bytes for m in usable),
        "rejected": len(here) - len(usable),
    }


def duplicates(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Models whose files are copies of each other, as far as that can be known.

    Certain where the stores record the same digest; else likely: the same kind and the very same
    size, and the same base or file name. Files that are one on the disk are one model already.
    """
    alike: dict[tuple[Any, ...], list[list[Model]]] = {}
    for model in models:
        quantization = model.quantization.name if model.quantization else None
        key = (model.format, model.architecture, quantization, model.parameters, model.size_bytes)
        groups = alike.setdefault(key, [])
        group = next((group for group in groups if any(_copy(model, m) for m in group)), None)
        if group is None:
            groups.append([model])
        else:
            group.append(model)
    found = [
        {
            "models": [{"id": m.id, "path": _path(m)} for m in group],
            "size_bytes": group[0].size_bytes,
            "twice_bytes": group[0].size_bytes * (len(group) - 1),
            "certain": len({m.digest for m in group}) == 1 and group[0].digest is not None,
        }
        for groups in alike.values()
        for group in groups
        if len(group) > 1 and group[0].size_bytes
    ]
    return sorted(found, key=_twice, reverse=True)


def _copy(one: Model, other: Model) -> bool:
    """Whether one may be a copy of the other, given that kind and size are the same."""
    if one.digest and other.digest:
        return one.digest == other.digest
    return one.base == other.base or _file_name(one) == _file_name(other)


def _file_name(model: Model) -> str:
    return _path(model).rpartition("/")[2].lower()


def _twice(group: dict[str, Any]) -> int:
    return int(group["twice_bytes"])


def _double(group: dict[str, Any]) -> str:
    sure = "the same by digest" if group["certain"] else "the same by name, kind and size"
    paths = fields((clean_line(m["id"]), clean_line(m["path"])) for m in group["models"])
    return f"  {size(group['twice_bytes'])} taken twice, {sure}:\n{_indented(paths, 4)}"


def _advice(doubles: list[dict[str, Any]]) -> str:
    total = sum(map(_twice, doubles))
    return (
        f"{size(total)} could be free: hybridd takes hard links and symlinks for one model, so "
        "that one file can serve all programs. It never deletes anything itself."
    )


def _path(model: Model) -> str:
    return model.source.path if model.source else model.id


def _indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line for line in text.split("\n"))


COMMANDS = {"doctor": (configure_doctor, doctor)}
