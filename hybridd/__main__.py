"""`hybridd` and `python -m hybridd`: arguments, then `app.run`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hybridd import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the daemon; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="hybridd",
        description="Finds the language models on this machine and serves them over a Unix socket.",
        epilog="Talk to it with hybridctl. SIGHUP reads the configuration file again.",
    )
    parser.add_argument("--version", action="version", version=f"hybridd {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of hybridd.toml")
    parser.add_argument("--socket", metavar="PATH", help="where to listen")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a setting for this start only; may be repeated",
    )
    arguments = parser.parse_args(argv)
    from hybridd import app  # after the arguments: --help must not wait for it

    return app.run(
        os.environ,
        config_file=arguments.config,
        socket_path=arguments.socket,
        overrides=arguments.overrides,
    )


if __name__ == "__main__":
    sys.exit(main())
