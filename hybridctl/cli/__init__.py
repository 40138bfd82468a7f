"""The command line. `main` is the entry point; everything else is imported when it is needed.

The imports of this module are what `hybridctl --version` costs, so there are none but `sys`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its arguments; by default the process's own.

    Returns:
        The exit code, one of `exit_codes`.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if arguments[:1] in (["--version"], ["-V"]):
            from hybridd import __version__

            print(f"hybridctl {__version__}")
            code = 0
        else:
            from .dispatch import dispatch

            code = dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        from .exit_codes import INTERRUPTED

        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`hybridctl list | head -1`): no reason for words. What is still
        # buffered must not raise again when the interpreter closes its files.
        import os

        from .exit_codes import BROKEN_PIPE

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    return code
