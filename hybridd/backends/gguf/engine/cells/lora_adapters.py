"""LoRA adapters beside a loaded model: small weights that a request may have added to it.

They are loaded with the model. Which of them count, and how much, is a state of the context, so
that sequences with different ones are never in one batch, and cells that were computed with some
are of no use to a sequence with others: an `AdapterChoice` tells them apart by content, not name.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice, choose
from hybridd.wire.errors import LoadFailed, ModelInvalid, Unsupported

from ...reader import read_header
from ..weights.llama import Log, llama

_IDENTITY_BYTES = 16
# Types of tensors that llama.cpp reads and has no multiplication for.
_NOT_MULTIPLIED = frozenset({"F64", "I8", "I16", "I32", "I64"})


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """One of `load_options.adapters`.

    Attributes:
        name: As requests call it.
        path: Where the daemon found it.
    """

    name: str
    path: str


class Adapters:
    """The adapters of one model. `open` them before its context is made; the model frees them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._contents: dict[str, str] = {}  # name -> what stands for the file's content
        self._natives: dict[str, Any] = {}  # content -> llama.cpp's pointer
        self.in_force: AdapterChoice = NO_ADAPTERS

    def open(self, model: Any, names: Sequence[str], placed: Sequence[Mapping[str, str]]) -> None:
        """Load them.

        Args:
            model: llama.cpp's pointer.
            names: Of those that are wanted.
            placed: Name and path of those that the daemon found.

        Raises:
            LoadFailed, ModelInvalid, Unsupported: One cannot be used; says which and why.
        """
        paths = {each["name"]: each["path"] for each in placed}
        for name in names:
            if name not in paths:
                raise LoadFailed(f"the adapter {name} went away", reason="absent", adapter=name)
            file = AdapterFile(name, paths[name])
            content = _content(file)
            if content not in self._natives:
                self._natives[content] = self._open(model, file)
            self._contents[file.name] = content

    def _open(self, model: Any, file: AdapterFile) -> Any:
        _check(file)
        self._log.errors.clear()
        native = llama.llama_adapter_lora_init(model, os.fsencode(file.path))
        if not native:
            lines = [line.replace(file.path, "the file") for line in self._log.errors]
            reason = next((_reason(line) for line in reversed(lines)), "it could not be read")
            raise _invalid(file, f"does not fit the model: {reason}", reason, detail=lines[-3:])
        if llama.llama_adapter_get_alora_n_invocation_tokens(native):
            raise Unsupported(
                f"the adapter {file.name} is one that a text switches on (aLoRA); load one that "
                "holds for all of a text",
                capability="adapters",
                format="gguf",
            )
        return native

    def choose(self, wanted: Sequence[tuple[str, float]]) -> AdapterChoice:
        """See `adapters.choose`, of those that were loaded."""
        return choose(wanted, self._contents)

    def use(self, context: Any, choice: AdapterChoice) -> None:
        """Have a context compute with these, and no others, from now on.

        llama.cpp plans its graph anew where that is a change.
        """
        if choice == self.in_force:
            return
        count = len(choice)
        kind = llama.llama_adapter_lora_p_ctypes
        natives = (kind * count)(*(self._natives[content] for content, _ in choice))
        scales = (ctypes.c_float * count)(*(scale for _, scale in choice))
        llama.llama_set_adapters_lora(context, natives, count, scales)
        self.in_force = choice


def _check(file: AdapterFile) -> None:
    """Refuse what llama.cpp would take and then end the process over."""
    try:
        header = read_header(Path(file.path))
    except ModelInvalid as exc:
        reason = str(exc.data.get("reason") or exc.message)
        raise _invalid(file, f"could not be read: {reason}", reason) from exc
    kinds = ", ".join(sorted(set(header.by_type) & _NOT_MULTIPLIED))
    if kinds:
        raise _invalid(file, f"has weights of a kind that llama.cpp cannot use: {kinds}", kinds)
    if header.end > header.size:
        raise _invalid(file, "is truncated", "truncated")


def _invalid(file: AdapterFile, what: str, reason: str, **data: Any) -> ModelInvalid:
    return ModelInvalid(f"the adapter {file.name} {what}", reason=reason, adapter=file.name, **data)


def _content(file: AdapterFile) -> str:
    """Names this state of the file; also for what is kept of sequences on disk."""
    try:
        status = os.stat(file.path)
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
        raise LoadFailed(
            f"the adapter {file.name} could not be read: {reason}",
            reason="unreadable",
            detail=reason,
        ) from exc
    text = repr((file.path, status.st_ino, status.st_size, status.st_mtime_ns))
    return hashlib.blake2b(os.fsencode(text), digest_size=_IDENTITY_BYTES).hexdigest()


def _reason(line: str) -> str:
    """The sentence inside one of llama.cpp's error lines."""
    _, marker, reason = line.partition("failed to apply lora adapter: ")
    return (reason if marker else line).strip() or "it could not be read"
