"""`embed` and `rerank`: what a model makes of texts beside more text."""

from __future__ import annotations

import sys

from .. import exit_codes
from ..common import connect
from ..parser import UsageError
from ..render import print_json
from ..terminal import clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from ..parser import Parser


def configure_embed(parser: Parser) -> None:
    """Arguments of `embed`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    parser.add_argument(
        "text", nargs="*", metavar="TEXT", help="by default the lines of standard input"
    )
    parser.add_argument("--dimensions", type=int, metavar="N", help="only the first N numbers")
    parser.add_argument(
        "--raw", action="store_true", help="leave the vectors' lengths as the model made them"
    )
    parser.add_argument("--keepalive", metavar="TIME", help="how long it stays loaded, such as 5m")


def embed(args: Namespace) -> int:
    """Print one line of numbers for each text."""
    texts = _texts(args.text, "a text")
    with connect(args) as client:
        made = client.embed(
            args.model,
            texts,
            dimensions=args.dimensions,
            normalize=False if args.raw else None,
            keepalive=args.keepalive,
        )
    if args.json:
        print_json(made.raw)
    else:
        for vector in made.embeddings:
            print(*vector)
    return exit_codes.OK


def configure_rerank(parser: Parser) -> None:
    """Arguments of `rerank`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    parser.add_argument("query", metavar="QUERY", help="the question")
    parser.add_argument(
        "document", nargs="*", metavar="DOC", help="by default the lines of standard input"
    )
    parser.add_argument("--top", type=int, metavar="N", help="only the best N")
    parser.add_argument("--keepalive", metavar="TIME", help="how long it stays loaded, such as 5m")


def rerank(args: Namespace) -> int:
    """Print the documents with their scores, the best first."""
    documents = _texts(args.document, "a document")
    with connect(args) as client:
        made = client.rerank(
            args.model, args.query, documents, top_n=args.top, keepalive=args.keepalive
        )
    if args.json:
        print_json(made.raw)
    else:
        for ranked in made.results:
            print(f"{ranked.score:10.6f}  {clean_line(documents[ranked.index])}")
    return exit_codes.OK


def _texts(given: list[str], what: str) -> list[str]:
    """The arguments, else the lines of standard input that say something."""
    if given:
        return given
    if sys.stdin is not None and not sys.stdin.isatty():
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
        if lines:
            return lines
    raise UsageError(f"give {what}, as arguments or as lines on standard input")


COMMANDS = {
    "embed": (configure_embed, embed),
    "rerank": (configure_rerank, rerank),
}
