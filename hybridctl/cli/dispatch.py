"""From arguments to an exit code: finds the command, runs it, turns what it raises into words."""

from __future__ import annotations

import sys

from hybridd.wire.errors import HybriddError

from . import exit_codes, parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name."""
    # A path that is no UTF-8, a terminal that knows only ASCII, bytes that are no text on standard
    # input: no reasons to fail.
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
    name, rest = parser.split(arguments)
    if name in (None, "help"):
        return _help(rest, asked=name == "help" or bool({"-h", "--help"} & set(rest)))
    assert name is not None
    wants_json = "--json" in rest
    try:
        args = _parsed(name, rest)
        wants_json = args.json
        code: int = args.run(args)
    except parser.UsageError as exc:
        where = f"hybridctl {name}" if name in parser.COMMANDS else "hybridctl"
        print(f"{where}: {exc}\nsee: {where} --help", file=sys.stderr)
        return exit_codes.USAGE
    except SystemExit as exc:  # argparse, after it printed a help
        return int(exc.code or 0)
    except HybriddError as exc:
        from .failures import report

        report(exc, as_json=wants_json)
        return exit_codes.BY_KIND.get(exc.kind, exit_codes.ERROR)
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        print(f"hybridctl: {exc.strerror}: {exc.filename or 'standard output'}", file=sys.stderr)
        return exit_codes.ERROR
    return code


def _parsed(name: str, arguments: Sequence[str]) -> Namespace:
    if name not in parser.COMMANDS:
        raise parser.UsageError(parser.unknown("command", name, parser.COMMANDS))
    module, description = parser.COMMANDS[name]
    # importlib.import_module would import warnings too.
    home = __import__(f"hybridctl.cli.commands.{module}", fromlist=["COMMANDS"])
    configure, run = home.COMMANDS[name]
    command = parser.Parser(name, description)
    configure(command)
    command.set_defaults(run=run)
    return command.read(arguments)


def _help(rest: Sequence[str], *, asked: bool) -> int:
    known = [word for word in rest if word in parser.COMMANDS]
    if known:
        return dispatch([known[0], "--help"])
    strange = [word for word in rest if word not in ("-h", "--help", "--json")]
    if strange:
        known_options = ("--help", "--version", "--json", "--socket")
        message = parser.unknown("argument", strange[0], (*known_options, *parser.COMMANDS))
        print(f"hybridctl: {message}\nsee: hybridctl --help", file=sys.stderr)
        return exit_codes.USAGE
    print(parser.overview(), file=sys.stdout if asked else sys.stderr)
    return exit_codes.OK if asked else exit_codes.USAGE
