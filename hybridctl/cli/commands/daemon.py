"""`status`, `events`, `stop`: the daemon itself."""

from __future__ import annotations

from time import localtime, strftime, time

from hybridd.wire.protocol import TOPICS

from .. import exit_codes
from ..common import connect
from ..parser import UsageError, unknown
from ..render import bar, fields, in_words, print_json, print_json_line, size, table
from ..terminal import clean_line
from .memory import loaded_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from hybridd.wire.types import Event, Info

    from ..parser import Parser


def configure_status(parser: Parser) -> None:
    """`status` has no arguments of its own."""


def status(args: Namespace) -> int:
    """Print the daemon, its formats, devices and what is loaded."""
    with connect(args) as client:
        info = client.info()
        loaded = client.loaded()
    if args.json:
        print_json({**info.raw, "loaded": [one.raw for one in loaded]})
        return exit_codes.OK
    parts = [
        fields(
            [
                ("daemon", f"{info.name} {info.version}, pid {info.pid}"),
                ("running", f"for {in_words(info.uptime_s)}"),
                ("socket", info.socket),
                ("catalog", _catalog(info.catalog)),
            ]
        ),
        table(("FORMAT", "ENGINE", "STATUS"), [_format(f) for f in info.formats]),
        _devices(info),
        loaded_table(loaded) if loaded else "nothing is loaded",
    ]
    print("\n\n".join(part for part in parts if part))
    return exit_codes.OK


def _catalog(catalog: dict[str, Any]) -> str:
    count = catalog.get("models", 0)
    text = f"{count} model{'' if count == 1 else 's'}"
    if not catalog.get("complete", True):
        return f"{text} so far, the first scan is running"
    if catalog.get("scanned_at"):
        text += f", scanned {in_words(max(0.0, time() - catalog['scanned_at']))} ago"
    if catalog.get("watching") == "polling":
        text += ", watched by polling"
        if catalog.get("polling_remedy"):
            text += f"\nno room for inotify: raise the sysctl {catalog['polling_remedy']}"
    return text


def _format(entry: dict[str, Any]) -> tuple[str, str, str]:
    engine = " ".join(str(entry[k]) for k in ("engine", "version") if entry.get(k))
    state = "available" if entry.get("available") else entry.get("reason") or "not available"
    return str(entry.get("name", "")), engine or "-", str(state)


def _devices(info: Info) -> str:
    rows = []
    for device in info.devices:
        total, free = device.get("total_bytes") or 0, device.get("free_bytes") or 0
        ours = (device.get("hybridd_bytes") or 0) + (device.get("templates_bytes") or 0)
        name = device.get("name") or device.get("kind") or ""
        rows.append(
            (
                str(device.get("id", "")),
                str(name),
                bar(total - free, total),
                f"{size(free)} of {size(total)}",
                size(ours),
            )
        )
    return table(("DEVICE", "NAME", "USED", "FREE", "HYBRIDD"), rows) if rows else ""


def configure_events(parser: Parser) -> None:
    """Arguments of `events`."""
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=f"of: {', '.join(TOPICS)}")


def events(args: Namespace) -> int:
    """Print events until the daemon ends or Ctrl-C."""
    for topic in args.topic:
        if topic not in TOPICS:
            raise UsageError(unknown("topic", topic, TOPICS))
    lost = 0
    with connect(args) as client, client.events(*args.topic) as followed:
        for event in followed:
            if followed.lost > lost:
                missed, lost = followed.lost - lost, followed.lost
                _print_lost(missed, as_json=args.json)
            if args.json:
                print_json_line(event.raw)
            else:
                print(_sentence(event), flush=True)
    return exit_codes.OK


def _print_lost(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json_line({"lost": count})
    else:
        print(f"({count} events were lost)", flush=True)


def _sentence(event: Event) -> str:
    known = {"subscription", "seq", "time", "topic", "type"}
    when = strftime("%H:%M:%S", localtime(event.time))
    details = " ".join(f"{k}={_scalar(v)}" for k, v in event.raw.items() if k not in known)
    return clean_line(f"{when} {event.topic:<8} {event.type:<10} {details}").rstrip()


def _scalar(value: Any) -> str:
    from json import dumps

    if isinstance(value, dict) and "message" in value:
        value = value["message"]  # an error; --json has the whole of it
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)


def configure_stop(parser: Parser) -> None:
    """`stop` has no arguments of its own."""


def stop(args: Namespace) -> int:
    """End the daemon."""
    with connect(args) as client:
        client.shutdown()
    if args.json:
        print_json({"stopped": True})
    else:
        print("the daemon is stopping")
    return exit_codes.OK


COMMANDS = {
    "status": (configure_status, status),
    "events": (configure_events, events),
    "stop": (configure_stop, stop),
}
