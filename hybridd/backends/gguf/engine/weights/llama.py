"""llama.cpp's library: initialised once, with its log kept and sent to the worker's log.

Imported in workers and templates only. Everything here and in the modules beside it uses the
low-level functions; the package's `Llama` class serves one generation at a time.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import deque
from importlib import metadata
from typing import Any

from llama_cpp import llama_cpp as llama  # noqa: TID253 - worker side, where it may be imported

__all__ = ["Log", "llama", "start", "version"]

# Loading says some 150 lines; the reason of a failure is among the last.
_KEPT_LINES = 60
# ggml.h's levels; 1 is for debugging, 5 goes on with the line before.
_LEVEL_INFO, _LEVEL_WARN, _LEVEL_ERROR, _LEVEL_CONT = 2, 3, 4, 5
# As sd-daemon(3) writes them. What a load reports of itself is for debugging.
_DEBUG = b"<7>"
_PREFIXES = {_LEVEL_INFO: _DEBUG, _LEVEL_WARN: b"<4>", _LEVEL_ERROR: b"<3>"}
_SIZES = (
    ("weights_bytes", re.compile(r"model buffer size = *([\d.]+) MiB")),
    ("kv_cache_bytes", re.compile(r"KV buffer size = *([\d.]+) MiB")),
    ("recurrent_bytes", re.compile(r"RS buffer size = *([\d.]+) MiB")),
    ("compute_bytes", re.compile(r"compute buffer size = *([\d.]+) MiB")),
    ("output_bytes", re.compile(r"output buffer size = *([\d.]+) MiB")),
)
# llama.cpp warns of them where a model's vocabulary is one that was kept, which is meant.
_OUR_DOING = b"dummy tokens"
# A device lacks it, or the one architecture that cannot have it.
_WITHOUT_FLASH = re.compile(r"Flash Attention not supported|flash_attn is not compatible")


class Log:
    """What llama.cpp said: forwarded to standard error, and some of it remembered.

    Attributes:
        errors: The last lines of that level.
        sizes: Bytes of its buffers, by what they are for.
        without_flash: It does without flash attention.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self.sizes: dict[str, int] = {}
        self.without_flash = False
        self._level = _LEVEL_INFO
        self._line = b""
        # ctypes keeps no reference to a callback; llama.cpp calls it until the process ends.
        self._callback = llama.llama_log_callback(self.take)
        llama.llama_log_set(self._callback, ctypes.c_void_p(0))

    def take(self, level: int, text: bytes | None, _data: Any) -> None:
        """Called by native code, from any of its threads; an exception would have nowhere to go."""
        if level != _LEVEL_CONT:
            self._end_line()
            self._level = level
        if not text or self._level < _LEVEL_INFO or text == b".":
            return  # the dots are a progress bar
        self._line += text
        if self._line.endswith(b"\n"):
            self._end_line()
        line = text.decode("utf-8", "replace").strip()
        if self._level == _LEVEL_ERROR and line:
            self.errors.append(line)
        if self._level == _LEVEL_WARN and _WITHOUT_FLASH.search(line):
            self.without_flash = True
        for name, pattern in _SIZES:
            if (found := pattern.search(line)) is not None:
                size = int(float(found[1]) * 1024 * 1024)
                self.sizes[name] = self.sizes.get(name, 0) + size

    def _end_line(self) -> None:
        """Write what there is of a line, or of several; whole, so that no other is within it."""
        said = _PREFIXES.get(self._level, _DEBUG)
        lines = [
            (_DEBUG if _OUR_DOING in line else said) + line
            for line in self._line.split(b"\n")
            if line.strip()
        ]
        self._line = b""
        if lines:
            os.write(2, b"\n".join(lines) + b"\n")


_log: Log | None = None


def start() -> Log:
    """Initialise the library, once in a process, and forget what was logged before."""
    global _log
    if _log is None:
        _log = Log()
        llama.llama_backend_init()
    _log.errors.clear()
    _log.sizes.clear()
    _log.without_flash = False
    return _log


def version() -> str:
    """The engine's name as `LoadedFacts` has it."""
    return f"llama.cpp {metadata.version('llama-cpp-python')}"
