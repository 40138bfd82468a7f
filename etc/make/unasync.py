"""Write the blocking half of the SDK from the asynchronous one, or check that it is up to date.

    python etc/make/unasync.py [--check]

The connections and clients, which do differ, are written by hand for both; see hybridctl/sdk.
"""

import re
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parents[2] / "hybridctl" / "sdk"
MADE = {"async_methods.py": "blocking_methods.py", "async_streams.py": "blocking_streams.py"}
# What is replaced by what, in this order.
TABLE = [
    (r"    def __await__\(.*?\n\n", ""),  # the one method that nothing blocking has
    (r" *from collections\.abc import Generator\n", ""),
    (r"import Coroutine, ", "import "),
    (r"Coroutine\[Any, Any, (\w+)\]", r"\1"),
    (r"async_(connection|methods|streams)\b", r"blocking_\1"),
    (r"\b[Aa]n (asynchronous |`Async)", r"a \1"),
    (r"\basynchronous\b", "blocking"),
    (r"Async(?=[A-Z])", ""),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\basync (?=def|for|with)", ""),
    (r"\bawait ", ""),
]


def blocking(source: str) -> str:
    """The blocking counterpart of `hybridctl/sdk/<source>`."""
    text = (SDK / source).read_text()
    for pattern, replacement in TABLE:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    text = f"# Made from {source} by `python etc/make/unasync.py`: change that one.\n{text}"
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", SDK / MADE[source], "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout


def main() -> str | None:
    """Write the files, or say which would change."""
    for source, target in MADE.items():
        text = blocking(source)
        if "--check" not in sys.argv:
            (SDK / target).write_text(text)
        elif text != (SDK / target).read_text():
            return f"hybridctl/sdk/{target} is not what {source} makes: python etc/make/unasync.py"
    return None


if __name__ == "__main__":
    sys.exit(main())
