"""`load`: into memory, with a progress bar on a terminal."""

from __future__ import annotations

from time import monotonic

from hybridd.wire.units import format_duration

from .. import exit_codes
from ..common import add_load_options, connect
from ..progress import ProgressBar
from ..render import print_json, size
from ..terminal import clean_line
from .memory import devices_in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from hybridd.wire.types import Loaded

    from ..parser import Parser


def adapter(text: str) -> dict[str, str]:
    """`[NAME=]MODEL`, which names one by the last part of its id."""
    name, equals, model = text.partition("=")
    if not equals:
        name, model = text.rpartition("/")[2].partition(":")[0], text
    if not name or not model:
        raise ValueError(text)
    return {"name": name, "path_or_id": model}


def configure_load(parser: Parser) -> None:
    """Arguments of `load`."""
    parser.add_argument("model", metavar="MODEL", help="an id or a part of it")
    add_load_options(parser)
    parser.add_argument("--parallel", type=int, metavar="N", help="requests at the same time")
    parser.add_argument("--gpu-layers", metavar="N", help='layers on the GPU, or "auto"')
    parser.add_argument(
        "--draft-model", metavar="MODEL", help="a small model that proposes tokens to it"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        type=adapter,
        metavar="[NAME=]MODEL",
        help="a LoRA adapter for requests to choose by its name (repeat)",
    )
    parser.add_argument(
        "--quantization",
        metavar="KIND",
        help='"int8" or "int4", made while a Hugging Face model is read; of GGUF files the build',
    )
    parser.add_argument("--pin", action="store_true", help="never evict it")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also what does not go as one would expect"
    )
    parser.add_argument("--no-wait", action="store_true", help="print the job and leave")


def load(args: Namespace) -> int:
    """Load a model and say how long it took."""
    layers = args.gpu_layers
    options: dict[str, Any] = {
        "context_length": args.context_length,
        "parallel": args.parallel,
        "gpu_layers": int(layers) if layers is not None and layers.isdecimal() else layers,
        "draft_model": args.draft_model,
        "adapters": args.adapter,
        "quantization": args.quantization,
        "keepalive": args.keepalive,
        "pin": args.pin or None,
    }
    with connect(args) as client:
        if args.no_wait:
            job = client.load(args.model, wait=False, **options)
            if args.json:
                print_json(job.raw)
            else:
                print(f"job {job.job}; follow it with: hybridctl jobs wait {job.job}")
            return exit_codes.OK
        began = monotonic()
        with ProgressBar(args.model, shown=not args.json) as progress:
            loaded = client.load(args.model, on_progress=progress, **options)
        took = monotonic() - began
    if args.json:
        print_json(loaded.raw)
    else:
        print(_sentence(loaded, took))
        for note in loaded.notes if args.verbose else ():
            print(f"note: {clean_line(note)}")
    return exit_codes.OK


def _sentence(loaded: Loaded, took: float) -> str:
    facts = [size(loaded.memory.get("resident_bytes")), devices_in_words(loaded.devices)]
    if loaded.context_length:
        facts.append(f"context {loaded.context_length}")
    if loaded.pinned:
        facts.append("pinned")
    elif loaded.keepalive_s is None or loaded.keepalive_s < 0:
        facts.append("keepalive for ever")
    else:
        facts.append(f"keepalive {format_duration(loaded.keepalive_s)}")
    return f"loaded {loaded.id} in {took:.1f} s ({', '.join(facts)})"


COMMANDS = {"load": (configure_load, load)}
