"""`http`: the web API on and off, its token, a link to its page."""

from __future__ import annotations

import sys
from time import monotonic, sleep

from hybridd.wire.protocol import HTTP_PORT

from .. import exit_codes
from ..common import connect
from ..parser import UsageError, unknown
from ..render import fields, in_words, print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from hybridctl.sdk.blocking import Client
    from hybridd.wire.types import ConfigChange, HttpStatus

    from ..parser import Parser

_ADDRESS = f"127.0.0.1:{HTTP_PORT}"
_LISTEN = "http.listen"
_ACTIONS = ("on", "off", "status", "token", "url")
# The daemon opens a socket in milliseconds; a busy machine gets longer.
_CHANGE_S = 10.0
_POLL_S = 0.02


def configure_http(parser: Parser) -> None:
    """Arguments of `http`."""
    parser.add_argument(
        "action",
        nargs="?",
        default="status",
        help="on, off, status (default), token (print it) or url (a link to the page)",
    )
    parser.add_argument(
        "address", nargs="?", metavar="ADDRESS", help=f"with on: where to listen ({_ADDRESS})"
    )
    parser.add_argument(
        "--renew", action="store_true", help="with token: a new one; the old one ends"
    )


def http(args: Namespace) -> int:
    """Do what the action says."""
    if args.action not in _ACTIONS:
        raise UsageError(unknown("action", args.action, _ACTIONS))
    if args.address is not None and args.action != "on":
        raise UsageError(f"{args.action} takes no address")
    if args.renew and args.action != "token":
        raise UsageError("--renew belongs to token")
    with connect(args) as client:
        return {"on": _on, "off": _off, "status": _status, "token": _token, "url": _url}[
            args.action
        ](client, args)


def _on(client: Client, args: Namespace) -> int:
    before = client.http_status()
    # Without an address that which the settings have, from whatever source.
    address = args.address or before.listen or _ADDRESS
    change = client.config_set({_LISTEN: address})
    if before.problem and not change.changed:
        # What it failed at before may go well now: a port that is free again.
        client.config_set({_LISTEN: ""})
        change = client.config_set({_LISTEN: address})
    return _report(_settled(client), change, args)


def _off(client: Client, args: Namespace) -> int:
    change = client.config_set({_LISTEN: ""})
    return _report(_settled(client), change, args)


def _status(client: Client, args: Namespace) -> int:
    status = client.http_status()
    if args.json:
        print_json(status.raw)
        return exit_codes.OK
    token = "needed on TCP: hybridctl http token" if status.token == "auto" else "none"
    print(
        fields(
            [
                ("listens", "\n".join(status.addresses) or "nowhere"),
                ("problem", status.problem or ""),
                ("token", token),
                ("pages", "\n".join(status.allow_origins)),
                ("names", "\n".join(status.allow_hosts)),
                ("turn on", "" if _tcp(status) or status.problem else "hybridctl http on"),
            ]
        )
    )
    return exit_codes.OK


def _token(client: Client, args: Namespace) -> int:
    token = client.http_token(renew=args.renew)
    if args.json:
        print_json({"token": token})
    else:
        print(token)
    return exit_codes.OK


def _url(client: Client, args: Namespace) -> int:
    link = client.http_link()
    if args.json:
        print_json(link.raw)
        return exit_codes.OK
    print(link.url, flush=True)
    if link.expires_in_s is not None:
        print(f"(good once, for {in_words(link.expires_in_s)})", file=sys.stderr)
    return exit_codes.OK


def _settled(client: Client) -> HttpStatus:
    """The status once the daemon listens where it was told to, or knows why it does not."""
    until = monotonic() + _CHANGE_S
    while (status := client.http_status()).changing and monotonic() < until:
        sleep(_POLL_S)
    return status


def _report(status: HttpStatus, change: ConfigChange, args: Namespace) -> int:
    """What came of `on` or `off`."""
    problem = _problem(status, change, wanted=args.action == "on")
    if args.json:
        print_json({**status.raw, "problem": problem})
    elif problem is None:
        print(_listening(status, args) if args.action == "on" else "not listening on TCP")
    if problem is not None and not args.json:
        print(f"hybridctl: {problem}", file=sys.stderr)
    return exit_codes.OK if problem is None else exit_codes.ERROR


def _problem(status: HttpStatus, change: ConfigChange, *, wanted: bool) -> str | None:
    """Why things are not as they were asked to be; None where they are."""
    if change.overridden_by_flag:
        where = status.listen or "nowhere"
        return (
            f"the daemon was started with a flag (--http or --set {_LISTEN}=…), which goes first: "
            f"it listens on {where}; the new value counts from a start without that flag"
        )
    if status.changing:
        return "the daemon is still at it; see: hybridctl http status"
    if wanted:
        return None if _tcp(status) else status.problem or "the daemon does not listen on TCP"
    if not _tcp(status):
        return None
    return (
        f"systemd listens on {', '.join(_tcp(status))}; stop that with: "
        "systemctl --user disable --now hybridd-http.socket"
    )


def _tcp(status: HttpStatus) -> list[str]:
    return [address for address in status.addresses if address.startswith("http")]


def _listening(status: HttpStatus, args: Namespace) -> str:
    url = _tcp(status)[0]
    ctl = "hybridctl"
    if args.socket:
        from shlex import quote

        ctl += f" --socket {quote(args.socket)}"
    header = f'-H "Authorization: Bearer $({ctl} http token)" ' if status.token == "auto" else ""
    return "\n".join(
        [
            f"listening on {', '.join(dict.fromkeys(_tcp(status)))}",
            f"try it:    curl {header}{url}/v1/models",
            f"its page:  {ctl} http url",
        ]
    )


COMMANDS = {"http": (configure_http, http)}
