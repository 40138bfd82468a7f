"""Which commands there are, and how their arguments are read.

One `argparse` parser is built per run, that of the command in question: building all of them
would cost more than most commands take. So the list of commands, its help and the guess at a
mistyped one are done here by hand.
"""

from __future__ import annotations

import argparse
import os

from . import exit_codes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn

# command -> (module under commands/, one line of help); in the order of the help's groups.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Models": {
        "list": ("models", "list the models found on this machine"),
        "show": ("models", "show one model: metadata, template, files"),
        "configure": ("configure", "read and change a model's lasting settings"),
        "rescan": ("models", "look for models now"),
    },
    "Memory": {
        "load": ("load", "load a model into memory"),
        "unload": ("memory", "give a model's memory back"),
        "ps": ("memory", "list what is in memory"),
        "jobs": ("jobs", "list, show, wait for or cancel jobs"),
    },
    "Use": {
        "run": ("run", "answer one prompt"),
        "chat": ("run", "talk with a model"),
        "embed": ("encode", "show the vectors of texts"),
        "rerank": ("encode", "sort documents by how well they answer a query"),
        "tokenize": ("run", "show the tokens of a text"),
    },
    "Daemon": {
        "status": ("daemon", "show the daemon, its formats and devices"),
        "doctor": ("doctor", "look for what is wrong"),
        "events": ("daemon", "follow what happens"),
        "config": ("config", "read and change settings"),
        "http": ("http", "turn the web API on or off, show its token or page"),
        "service": ("service", "run the daemon as a systemd user service"),
        "stop": ("daemon", "end the daemon"),
    },
}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


# As many choices as an error message lists.
_FEW = 6


class UsageError(Exception):
    """The command line makes no sense; the message says what would."""


class _Formatter(argparse.HelpFormatter):
    """Knows the width itself: argparse would import shutil for it, with each `add_argument`."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 80
        super().__init__(prog, max_help_position=28, width=min(columns, 100) - 2)


class Parser(argparse.ArgumentParser):
    """One command's arguments: options anywhere, unknown ones with a suggestion."""

    def __init__(self, command: str, description: str) -> None:
        self._takes_value: dict[str, bool] = {}
        super().__init__(
            prog=f"hybridctl {command}",
            description=description[:1].upper() + description[1:] + ".",
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self.add_argument("--json", action="store_true", help="print JSON")
        self.add_argument("--socket", metavar="PATH", help="the daemon's socket")

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """As argparse has it; also notes which options take a value."""
        takes = settings.get("action", "store") in ("store", "append")
        for name in names:
            if name.startswith("-"):
                self._takes_value[name] = takes
        return super().add_argument(*names, **settings)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse.

        Raises:
            UsageError: They do not fit; what was meant is guessed at.
        """
        options, words = self._sorted(arguments)
        return self.parse_args([*options, "--", *words] if words else options)

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise UsageError(message)

    def _sorted(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """Options with their values, and the rest: argparse alone would not take `run MODEL
        --seed 1 a prompt`."""
        options: list[str] = []
        words: list[str] = []
        remaining = iter(arguments)
        for argument in remaining:
            if argument == "--":
                words += remaining
            elif argument[:1] != "-" or argument == "-" or argument[1].isdigit():
                words.append(argument)  # also a negative number
            else:
                name, equals, value = argument.partition("=")
                if name not in self._takes_value:
                    raise UsageError(unknown("option", name, self._takes_value))
                if self._takes_value[name] and not equals:
                    following = next(remaining, None)
                    if following is None:
                        raise UsageError(f"{name} needs a value")
                    equals, value = "=", following
                # As one argument, so that a value may begin with a dash ("--keepalive -1").
                if name.startswith("--"):
                    options.append(name + equals + value)
                else:
                    options += [name, value] if self._takes_value[name] else [name]
        return options, words


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """`unknown option --jsn; did you mean --json?`"""
    from difflib import get_close_matches

    choices = list(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    if near:
        return f"unknown {what} {name}; did you mean {near[0]}?"
    takes = f"; there is {', '.join(choices)}" if len(choices) <= _FEW else ""
    return f"unknown {what} {name}{takes}"


def split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command, and its arguments with the options that stood before it."""
    before: list[str] = []
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        before.append(arguments[position])
        position += 1
        if before[-1] == "--socket" and position < len(arguments):
            before.append(arguments[position])
            position += 1
    if position == len(arguments):
        return None, before
    return arguments[position], [*before, *arguments[position + 1 :]]


def overview() -> str:
    """The help of `hybridctl` itself."""
    lines = ["usage: hybridctl [--socket PATH] [--json] COMMAND …", ""]
    for title, commands in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<10}{help}" for name, (_, help) in commands.items()]
        lines.append("")
    lines += [
        "`hybridctl COMMAND --help` shows a command's arguments.",
        f"Exit codes: {exit_codes.OK} done, {exit_codes.ERROR} error, {exit_codes.USAGE} usage, "
        f"{exit_codes.NOT_RUNNING} daemon not running, {exit_codes.NO_SUCH_MODEL} no such model, "
        f"{exit_codes.DOES_NOT_FIT} does not fit, {exit_codes.INTERRUPTED} interrupted.",
    ]
    return "\n".join(lines)
