"""`list`, `show`, `rescan`: what there is on disk."""

from __future__ import annotations

from datetime import datetime

from hybridd.wire.units import format_count

from .. import exit_codes
from ..common import connect
from ..progress import ProgressBar
from ..render import fields, or_dash, print_json, size, table
from ..terminal import clean, clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from hybridd.wire.types import Model, ModelDetails

    from ..parser import Parser

_LIST_HEADERS = (
    "ID",
    "FORMAT",
    "PARAMS",
    "QUANT",
    "SIZE",
    "CONTEXT",
    "CAPABILITIES",
    "STORE",
    "STATUS",
)
# A chat template or a vocabulary in the metadata would bury the rest of the card.
_METADATA_CHARACTERS = 200


def configure_list(parser: Parser) -> None:
    """Arguments of `list`."""
    parser.add_argument("query", nargs="?", metavar="TEXT", help="only ids that contain TEXT")
    parser.add_argument("--all", action="store_true", help="also what is no usable model, and why")
    parser.add_argument("--format", metavar="FORMAT", help="only this format, e.g. gguf")
    parser.add_argument("--store", metavar="STORE", help="only models of this store")
    parser.add_argument("--loaded", action="store_true", help="only what is in memory")
    parser.add_argument("--group", action="store_true", help="the builds of one model together")


def list_(args: Namespace) -> int:
    """Print the catalog."""
    with connect(args) as client:
        models = client.list(
            query=args.query,
            format=args.format,
            all=args.all or None,
            loaded=args.loaded or None,
        )
    if args.store is not None:
        models = [m for m in models if args.store in stores(m)]
    groups = _groups(models) if args.group else {}
    if args.json and args.group:
        print_json([{"base": b, "models": [m.raw for m in ms]} for b, ms in groups.items()])
    elif args.json:
        print_json([m.raw for m in models])
    else:
        rows = _grouped(groups, args.all) if args.group else [_row(m, args.all) for m in models]
        print(table((*_LIST_HEADERS, "REASON") if args.all else _LIST_HEADERS, rows))
    return exit_codes.OK


def _groups(models: list[Model]) -> dict[str, list[Model]]:
    """Models by what their builds have in common."""
    found: dict[str, list[Model]] = {}
    for model in sorted(models, key=lambda m: m.base or m.id):
        found.setdefault(model.base or model.id, []).append(model)
    return found


def _grouped(groups: dict[str, list[Model]], with_reason: bool) -> list[tuple[str, ...]]:
    """A row for each group with its size in all, its builds indented below."""
    rows: list[tuple[str, ...]] = []
    for base, models in groups.items():
        blank = [""] * (len(_LIST_HEADERS) - 1 + with_reason)
        blank[_LIST_HEADERS.index("SIZE") - 1] = size(sum(m.size_bytes for m in models))
        rows.append((base, *blank))
        for first, *others in (_row(m, with_reason) for m in models):
            rows.append((f"  {first}", *others))
    return rows


def stores(model: Model) -> list[str]:
    """Where a model was found, each store once."""
    places = [*([model.source] if model.source else []), *model.locations]
    return list(dict.fromkeys(place.store for place in places))


def _row(model: Model, with_reason: bool) -> tuple[str, ...]:
    quantization = model.quantization.name if model.quantization else None
    row = (
        model.id,
        model.format,
        "-" if model.parameters is None else format_count(model.parameters),
        or_dash(quantization),
        size(model.size_bytes),
        or_dash(model.context_length),
        ",".join(model.capabilities) or "-",
        ",".join(stores(model)) or "-",
        model.status + (" (stale)" if model.stale else ""),
    )
    return (*row, model.reason or "") if with_reason else row


def configure_show(parser: Parser) -> None:
    """Arguments of `show`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    parser.add_argument("--metadata", action="store_true", help="everything its header says")
    parser.add_argument("--template", action="store_true", help="its chat template alone")
    parser.add_argument("--files", action="store_true", help="its files and their sizes")


def show(args: Namespace) -> int:
    """Print one model's card, or the asked part of it."""
    with connect(args) as client:
        model = client.show(args.model)
    if args.json:
        print_json(model.raw)
        return exit_codes.OK
    asked = args.metadata or args.template or args.files
    if not asked:
        print(_card(model))
    if args.metadata:
        print(fields((clean_line(k), _value(v, None)) for k, v in sorted(model.metadata.items())))
    if args.template:
        print(clean(model.chat_template or "the model has no chat template"))
    if args.files:
        print(_files(model))
    return exit_codes.OK


def _card(model: ModelDetails) -> str:
    quantization = ""
    if model.quantization:
        bits = model.quantization.bits_per_weight
        quantization = model.quantization.name + (f" ({bits:.3g} bits a weight)" if bits else "")
    pairs = [
        ("id", model.id),
        ("aliases", ", ".join(model.aliases)),
        ("format", model.format),
        ("base", model.base or ""),
        ("architecture", model.architecture or ""),
        ("parameters", format_count(model.parameters) if model.parameters else ""),
        ("quantization", quantization),
        ("size", size(model.size_bytes)),
        ("context length", or_dash(model.context_length)),
        ("capabilities", ", ".join(model.capabilities)),
        ("status", model.status + (f": {model.reason}" if model.reason else "")),
        ("found in", "\n".join(f"{p.store}: {p.path}" for p in model.locations or _source(model))),
        ("modified", _when(model.modified_at)),
        ("digest", model.digest or ""),
        ("settings", "\n".join(f"{k} = {_value(v)}" for k, v in model.settings.items() if v)),
        ("notes", "\n".join(model.notes)),
    ]
    card = fields((name, clean(value)) for name, value in pairs)
    return f"{card}\n\nmore: --metadata ({len(model.metadata)} keys), --template, --files"


def _source(model: Model) -> list[Any]:
    return [model.source] if model.source else []


def _when(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _value(value: Any, limit: int | None = _METADATA_CHARACTERS) -> str:
    from json import dumps

    text = value if isinstance(value, str) else dumps(value, ensure_ascii=False)
    text = clean(text)
    return text if limit is None or len(text) <= limit else text[:limit] + "…"


def _files(model: ModelDetails) -> str:
    return table(
        ("SIZE", "PATH"), [(size(f.get("size_bytes")), str(f.get("path"))) for f in model.files]
    )


def configure_rescan(parser: Parser) -> None:
    """`rescan` has no arguments of its own."""


def rescan(args: Namespace) -> int:
    """Scan, and print what changed."""
    with connect(args) as client, ProgressBar("scanning", shown=not args.json) as progress:
        result = client.rescan(on_progress=progress)
    if args.json:
        print_json(result.raw)
    else:
        print(
            f"{result.total} models ({result.added} added, {result.changed} changed, "
            f"{result.removed} removed) in {result.seconds_s:.1f} s"
        )
    return exit_codes.OK


COMMANDS = {
    "list": (configure_list, list_),
    "show": (configure_show, show),
    "rescan": (configure_rescan, rescan),
}
