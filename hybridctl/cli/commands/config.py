"""`config`: read and change settings while the daemon runs."""

from __future__ import annotations

import json

from .. import exit_codes
from ..common import connect
from ..parser import UsageError, unknown
from ..render import fields, print_json, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any, NoReturn

    from hybridctl.sdk.blocking import Client

    from ..parser import Parser

_ACTIONS = ("get", "set", "unset")


def configure_config(parser: Parser) -> None:
    """Arguments of `config`."""
    parser.add_argument("action", nargs="?", default="get", help="get (default), set or unset")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY [VALUE …]",
        help="a value is JSON if it parses as JSON, else text; several values make a list",
    )
    parser.add_argument(
        "--no-persist", action="store_true", help="set it until the daemon's next start only"
    )


def config(args: Namespace) -> int:
    """Do what the action says."""
    if args.action not in _ACTIONS:
        raise UsageError(unknown("action", args.action, _ACTIONS))
    if args.action == "get" and len(args.words) > 1:
        raise UsageError("get takes one key, or none for all")
    if args.action == "set" and len(args.words) < 2:
        raise UsageError("set takes a key and a value: config set models.keepalive 10m")
    if args.action == "unset" and not args.words:
        raise UsageError("unset takes the keys to take back")
    with connect(args) as client:
        return _get(client, args) if args.action == "get" else _change(client, args)


def _get(client: Client, args: Namespace) -> int:
    key = args.words[0] if args.words else None
    settings = client.config_get(key)
    if args.json:
        print_json({name: setting.raw for name, setting in settings.items()})
    elif key is not None:
        for name, setting in settings.items():
            print(
                fields(
                    [
                        ("key", name),
                        ("value", _text(setting.value)),
                        ("source", setting.source),
                        ("change", "at once" if setting.live else "at the next start"),
                        ("about", setting.description),
                    ]
                )
            )
    else:
        rows = [(name, _text(s.value), s.source) for name, s in settings.items()]
        print(table(("KEY", "VALUE", "SOURCE"), rows))
    return exit_codes.OK


def _change(client: Client, args: Namespace) -> int:
    if args.action == "set":
        key, *values = args.words
        parsed = [parse_value(value) for value in values]
        value = parsed[0] if len(parsed) == 1 else parsed
        change = client.config_set({key: value}, persist=not args.no_persist)
    else:
        change = client.config_unset(*args.words)
    if args.json:
        print_json(change.raw)
        return exit_codes.OK
    print(f"changed: {', '.join(change.changed)}" if change.changed else "nothing changed")
    if change.restart_needed:
        print(f"at the daemon's next start: {', '.join(change.restart_needed)}")
    return exit_codes.OK


def parse_value(text: str) -> Any:
    """The JSON value that `text` is, else `text`."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)  # NaN is no JSON, whatever Python says

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


COMMANDS = {"config": (configure_config, config)}
