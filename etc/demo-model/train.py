# ruff: noqa: TID253 - a script: the heavy libraries are what it is for
"""Trains the demo model and writes it in both formats: `python etc/demo-model/train.py`.

The same seed, steps and threads give the same weights on the same machine and library versions;
docs/demo-model.md says with which the shipped ones were made.
"""

import argparse
import hashlib
import platform
import time
from pathlib import Path

import tokenizers
import torch
import transformers
from corpus import load_corpus, load_held_out
from export import GGUF_FILE, HF_DIRECTORY, export
from network import Recipe, build_tokenizer, train

DEFAULT_OUT = Path(__file__).parents[2] / "hybridd" / "demo"


def main() -> int:
    """Trains, exports and, unless told not to, checks. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="directory to write into")
    parser.add_argument("--no-check", action="store_true", help="do not run check.py afterwards")
    arguments = parser.parse_args()

    corpus = load_corpus()
    leaked = [q for held_out in load_held_out() for q in held_out.questions if corpus.can_make(q)]
    if leaked:
        parser.error(f"held-out wordings that the corpus can make: {leaked}")

    recipe = Recipe(seed=arguments.seed, steps=arguments.steps, threads=arguments.threads)
    print(f"{recipe}")
    print(
        f"python {platform.python_version()}  torch {torch.__version__}  "
        f"transformers {transformers.__version__}  tokenizers {tokenizers.__version__}"
    )
    started = time.monotonic()
    tokenizer = build_tokenizer(corpus, recipe.seed)
    network = train(corpus, tokenizer, recipe)
    export(network, tokenizer, arguments.out)
    print(f"parameters {sum(p.numel() for p in network.parameters())}")
    wall, processor = time.monotonic() - started, time.process_time()
    print(f"trained and written in {wall:.0f} s, with {processor:.0f} s of processor time")
    for path in (arguments.out / HF_DIRECTORY / "model.safetensors", arguments.out / GGUF_FILE):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.name}  {path.stat().st_size} bytes  sha256 {digest}")
    if arguments.no_check:
        return 0
    # Imported only here: training needs no llama.cpp.
    import check

    return check.check(arguments.out)


if __name__ == "__main__":
    raise SystemExit(main())
