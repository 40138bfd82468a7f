"""`ps` and `unload`. `ps` is timed against `python -c pass`: mind what this module imports."""

from __future__ import annotations

from .. import exit_codes
from ..common import connect
from ..parser import UsageError
from ..render import in_words, or_dash, print_json, size, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from hybridd.wire.types import Loaded

    from ..parser import Parser

_PS_HEADERS = ("NAME", "SIZE", "DEVICE", "CONTEXT", "PARALLEL", "STATUS", "UNTIL", "QUEUE")


def configure_ps(parser: Parser) -> None:
    """Arguments of `ps`."""
    parser.add_argument("--all", action="store_true", help="also templates and quarantined models")


def ps(args: Namespace) -> int:
    """Print what is in memory."""
    with connect(args) as client:
        loaded = client.loaded(all=args.all)
    if args.json:
        print_json([one.raw for one in loaded])
    else:
        print(loaded_table(loaded))
    return exit_codes.OK


def loaded_table(loaded: list[Loaded]) -> str:
    """The table of `ps`."""
    return table(_PS_HEADERS, map(_row, loaded))


def _row(one: Loaded) -> tuple[str, ...]:
    return (
        one.id,
        size(one.memory.get("resident_bytes", one.memory.get("reserved_bytes"))),
        devices_in_words(one.devices),
        or_dash(one.context_length),
        or_dash(one.parallel),
        f"{one.status}, {one.active_requests} running" if one.active_requests else one.status,
        until(one),
        str(one.queued_requests),
    )


def until(one: Loaded) -> str:
    """When it leaves memory by itself, in words."""
    if one.status in ("unloading", "stopping", "draining"):
        return "stopping"
    if one.status not in ("loaded", "ready", "sleeping"):
        return "-"
    if one.pinned:
        return "never"
    if one.active_requests and one.expires_in_s is None and (one.keepalive_s or 0) >= 0:
        # Its clock starts when the last request ends.
        return f"{in_words(one.keepalive_s)} idle"
    return in_words(one.expires_in_s)


def devices_in_words(devices: list[dict[str, object]]) -> str:
    """`100% CPU`, `48%/52% CPU/CUDA:0`: the share of the memory on each device."""
    sizes: list[tuple[str, float]] = []
    for device in devices:
        held = device.get("bytes")
        if isinstance(held, (int, float)) and held > 0:
            sizes.append((str(device.get("device", "?")).upper(), held))
    total = sum(held for _, held in sizes)
    if not total:
        return "/".join(str(d.get("device", "?")).upper() for d in devices) or "-"
    # The last share is what is left, so that they add up to 100.
    shares = [round(100 * held / total) for _, held in sizes[:-1]]
    shares.append(100 - sum(shares))
    return "/".join(f"{s}%" for s in shares) + " " + "/".join(name for name, _ in sizes)


def configure_unload(parser: Parser) -> None:
    """Arguments of `unload`."""
    parser.add_argument("model", nargs="*", metavar="MODEL", help="an id or a part of it")
    parser.add_argument("--all", action="store_true", help="everything that is loaded")
    parser.add_argument(
        "--force", action="store_true", help="cancel running requests instead of waiting for them"
    )


def unload(args: Namespace) -> int:
    """Unload models."""
    if args.all == bool(args.model):
        raise UsageError("name the models to unload, or say --all")
    results = []
    with connect(args) as client:
        for name in ["*"] if args.all else args.model:
            result = client.unload(name, force=args.force)
            results.append(result)
            if not args.json:
                gone = ", ".join(result.unloaded)
                print(
                    f"unloaded {gone}, {size(result.freed_bytes)} free again"
                    if gone
                    else "nothing was loaded"
                    if args.all
                    else f"{name} was not loaded"
                )
    if args.json:
        print_json(
            {
                "unloaded": [id for result in results for id in result.unloaded],
                "freed_bytes": sum(result.freed_bytes for result in results),
            }
        )
    return exit_codes.OK


COMMANDS = {"ps": (configure_ps, ps), "unload": (configure_unload, unload)}
