"""`run`, `chat` and `tokenize`: a model at work."""

from __future__ import annotations

import sys
from time import monotonic

from hybridd.wire.errors import Unsupported

from .. import exit_codes
from ..answer import print_stream, timings
from ..common import add_load_options, connect
from ..parser import UsageError
from ..progress import ProgressBar
from ..render import print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any

    from hybridctl.sdk.blocking import Client
    from hybridd.wire.types import Loaded, ModelDetails

    from ..parser import Parser


def number(text: str) -> float:
    """A finite number; argparse makes a usage error of what is none."""
    value = float(text)
    if value - value != 0:
        raise ValueError(text)
    return value


def adapter(text: str) -> dict[str, Any]:
    """`NAME[=SCALE]`."""
    name, equals, scale = text.partition("=")
    if not name:
        raise ValueError(text)
    return {"name": name, "scale": number(scale)} if equals else {"name": name}


_SAMPLING: tuple[tuple[str, Callable[[str], float], str, str], ...] = (
    ("max-tokens", int, "N", "stop after N tokens"),
    ("temperature", number, "T", "0 always takes the likeliest token"),
    ("top-p", number, "P", "of the likeliest tokens that make up P"),
    ("top-k", int, "K", "of the K likeliest tokens"),
    ("min-p", number, "P", "of tokens at least P times as likely as the likeliest"),
    ("seed", int, "N", "the same answer again"),
)


def _add_inference_options(parser: Parser) -> None:
    for name, kind, metavar, help in _SAMPLING:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=help)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end before TEXT (repeat)")
    parser.add_argument(
        "--adapter",
        action="append",
        type=adapter,
        metavar="NAME[=SCALE]",
        help="with an adapter that the model was loaded with (repeat)",
    )
    parser.add_argument("--system", metavar="TEXT", help="the system message of the conversation")
    add_load_options(parser)
    parser.add_argument("--verbose", action="store_true", help="print timings on standard error")


def _inference_options(args: Namespace) -> dict[str, Any]:
    options = {name.replace("-", "_"): None for name, *_ in _SAMPLING}
    return {
        **{name: getattr(args, name) for name in options},
        "stop": args.stop,
        "adapters": args.adapter,
        "context_length": args.context_length,
        "keepalive": args.keepalive,
    }


def configure_run(parser: Parser) -> None:
    """Arguments of `run`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    parser.add_argument(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="what standard input brings is appended; without both, `chat` on a terminal",
    )
    parser.add_argument(
        "--raw", action="store_true", help="complete the text as it stands, without chat template"
    )
    _add_inference_options(parser)


def run(args: Namespace) -> int:
    """Answer one prompt."""
    if args.raw and args.system is not None:
        raise UsageError("--system needs a conversation, and --raw is none")
    prompt = _prompt(args.prompt)
    if prompt is None:
        if args.raw or args.json or not sys.stdin.isatty():
            raise UsageError("give a prompt, as arguments or on standard input")
        return chat(args)
    with connect(args) as client:
        model = client.show(args.model)
        _, load_s = _load(client, model, args)
        options = _inference_options(args)
        with (
            client.chat(model.id, _conversation(args.system, prompt), stream=True, **options)
            if "chat" in model.capabilities and not args.raw
            else client.generate(model.id, _plain(args.system, prompt), stream=True, **options)
        ) as stream:
            result = print_stream(stream, as_json=args.json)
    if args.verbose:
        print(timings(result, load_s), file=sys.stderr)
    return exit_codes.OK


def _prompt(words: list[str]) -> str | None:
    """The prompt of arguments and standard input; None when there is neither."""
    given = " ".join(words)
    if sys.stdin is None or sys.stdin.isatty():
        return given or None
    piped = sys.stdin.read()
    return "\n\n".join(part for part in (given, piped.rstrip("\n")) if part) or None


def _conversation(system: str | None, prompt: str) -> list[dict[str, Any]]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": prompt}]


def _plain(system: str | None, prompt: str) -> str:
    """For a model without a chat template: the instructions stand before the text."""
    return prompt if system is None else f"{system}\n\n{prompt}"


def _load(client: Client, model: ModelDetails, args: Namespace) -> tuple[Loaded, float | None]:
    """Load with a progress bar: `run` means "use this model", also where smart switching is off.

    Returns:
        The instance, and the seconds its load took, None when it was loaded already.
    """
    began = monotonic()
    ready = model.status == "loaded"
    with ProgressBar(model.id, shown=not args.json) as progress:
        loaded = client.load(
            model.id,
            context_length=args.context_length,
            keepalive=args.keepalive,
            on_progress=progress,
        )
    return loaded, None if ready else monotonic() - began


def configure_chat(parser: Parser) -> None:
    """Arguments of `chat`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    _add_inference_options(parser)


def chat(args: Namespace) -> int:
    """Talk until the user ends it."""
    from ..chat import Chat

    with connect(args) as client:
        model = client.show(args.model)
        if "chat" not in model.capabilities:
            raise Unsupported(
                f"{model.id} has no chat template; complete a text with: "
                f"hybridctl run {model.id} PROMPT",
                capability="chat",
                format=model.format,
            )
        _load(client, model, args)
        return Chat(
            client,
            model.id,
            system=args.system,
            options=_inference_options(args),
            verbose=args.verbose,
            as_json=args.json,
        ).run()


def configure_tokenize(parser: Parser) -> None:
    """Arguments of `tokenize`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    parser.add_argument("text", nargs="*", metavar="TEXT", help="by default standard input")
    parser.add_argument("--special", action="store_true", help="read special tokens in the text")
    parser.add_argument("--count", action="store_true", help="print only how many there are")


def tokenize(args: Namespace) -> int:
    """Print the token ids of a text."""
    if not args.text and sys.stdin.isatty():
        raise UsageError("give a text, as arguments or on standard input")
    text = " ".join(args.text) if args.text else sys.stdin.read()
    with connect(args) as client:
        tokens = client.tokenize(args.model, text, special=args.special or None)
    if args.json:
        print_json({"tokens": tokens, "count": len(tokens)})
    else:
        print(len(tokens) if args.count else " ".join(map(str, tokens)))
    return exit_codes.OK


COMMANDS = {
    "run": (configure_run, run),
    "chat": (configure_chat, chat),
    "tokenize": (configure_tokenize, tokenize),
}
