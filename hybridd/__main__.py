"""`hybridd` and `python -m hybridd`: arguments, then `app.run`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hybridd import __version__
from hybridd.wire.protocol import HTTP_PORT


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
        "--http",
        nargs="?",
        const=f"127.0.0.1:{HTTP_PORT}",
        metavar="ADDRESS",
        help=f"serve the web API on TCP too, on 127.0.0.1:{HTTP_PORT} if nothing else is said",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a setting for this start only; may be repeated",
    )
    arguments = parser.parse_args(argv)
    if arguments.http is not None:
        arguments.overrides.append(f"http.listen={arguments.http}")
    from hybridd import app  # after the arguments: --help must not wait for it

    return app.run(
        os.environ,
        config_file=arguments.config,
        socket_path=arguments.socket,
        overrides=arguments.overrides,
    )


if __name__ == "__main__":
    sys.exit(main())
