"""What most commands share: the client of their arguments, and checks of values."""

from __future__ import annotations

from argparse import ArgumentTypeError

from hybridctl.sdk.blocking import Client
from hybridd.wire.units import parse_duration

from .parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from .parser import Parser


def connect(args: Namespace) -> Client:
    """A client of the socket that the arguments or the environment name."""
    try:
        client = Client(args.socket)
        client.__enter__()
    except ValueError as exc:  # a path that no socket can have
        raise UsageError(str(exc)) from None
    return client


def duration(text: str) -> str:
    """An argument that the daemon will read as a duration; checked here, sent as it stands."""
    try:
        parse_duration(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text!r} is no duration: it takes {exc}") from None
    return text


def context_length(text: str) -> int | str:
    """A number of tokens, or `auto`."""
    if text == "auto":
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ArgumentTypeError(f'{text!r} is no context length: it takes tokens, or "auto"')


def add_load_options(parser: Parser) -> None:
    """The options that say how a model is loaded, should it have to be."""
    parser.add_argument(
        "--context-length", type=context_length, metavar="TOKENS", help="tokens of one request"
    )
    parser.add_argument(
        "--keepalive",
        type=duration,
        metavar="TIME",
        help='how long it stays after its last request: "5m", 0 (not at all), -1 (for ever)',
    )
