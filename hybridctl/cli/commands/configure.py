"""`configure`: a model's lasting settings."""

from __future__ import annotations

import json

from .. import exit_codes
from ..common import connect, duration
from ..parser import UsageError
from ..render import fields, print_json
from ..terminal import clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from ..parser import Parser

_SWITCHES = {
    "pin": "never evict it",
    "allow-pickle": "load its weights although they are pickles, which is unsafe",
    "trust-remote-code": "run code out of its directory, which is unsafe",
}
_NAMES = ("alias", "keepalive", "pin", "load_options", "options", "allow_pickle",
          "trust_remote_code")  # fmt: skip


def configure_arguments(parser: Parser) -> None:
    """Arguments of `configure`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    parser.add_argument("--alias", metavar="NAME", help="another name for it")
    parser.add_argument(
        "--keepalive", type=duration, metavar="TIME", help="as load has it, such as 5m or -1"
    )
    for name, help in _SWITCHES.items():
        parser.add_argument(f"--{name}", choices=("yes", "no"), help=help)
    parser.add_argument(
        "--option", action="append", metavar="NAME=VALUE", help="a sampling option (repeat)"
    )
    parser.add_argument(
        "--load-option", action="append", metavar="NAME=VALUE", help="a load option (repeat)"
    )
    parser.add_argument(
        "--unset", action="append", metavar="SETTING", help=f"of {', '.join(_NAMES)} (repeat)"
    )


def configure(args: Namespace) -> int:
    """Change what was given; print all that is settled."""
    values: dict[str, Any] = {}
    for name in args.unset or ():
        if name not in _NAMES:
            raise UsageError(f"there is no setting {name}; there is {', '.join(_NAMES)}")
        values[name] = None
    for name in ("alias", "keepalive"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    for name in (switch.replace("-", "_") for switch in _SWITCHES):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name) == "yes"
    for name, given in (("options", args.option), ("load_options", args.load_option)):
        if given:
            values[name] = dict(map(_pair, given))
    with connect(args) as client:
        made = client.configure(args.model, **values)
    if args.json:
        print_json(made)
    else:
        print(fields((name, clean_line(json.dumps(value))) for name, value in made.items()))
    return exit_codes.OK


def _pair(text: str) -> tuple[str, Any]:
    """A name and its value, which is JSON where it can be read so, else a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text} is no option: it takes NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


COMMANDS = {"configure": (configure_arguments, configure)}
