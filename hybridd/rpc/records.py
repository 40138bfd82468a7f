"""Objects within results and errors that have no record in `wire/types`.

Within a client's records they are plain dicts (`WITHIN` says where). They describe, for
`rpc.discover`; nothing is made of them.
"""

from __future__ import annotations

from typing import Any

from hybridd.wire import types
from hybridd.wire.record import Record


class Share(Record):
    """Memory of one device.

    Attributes:
        device: `cpu`, `cuda:0`, …
        bytes: How much of it.
    """

    device: str = ""
    bytes: int = 0


class Memory(Record):
    """What a loaded model takes, in bytes. Engines may tell more parts by other names.

    Attributes:
        reserved_bytes: What the engine may come to use on all devices: what no other model gets.
        resident_bytes: What the worker has resident now.
        peak_bytes: The most that it had.
        host_cache_bytes: Reserved for conversations that had to leave the KV cache.
        weights_bytes: The weights.
        kv_cache_bytes: The KV cache.
        compute_bytes: Buffers to compute in.
        output_bytes: Buffers of logits.
    """

    reserved_bytes: int = 0
    resident_bytes: int = 0
    peak_bytes: int = 0
    host_cache_bytes: int | None = None
    weights_bytes: int | None = None
    kv_cache_bytes: int | None = None
    compute_bytes: int | None = None
    output_bytes: int | None = None


class ModelFile(Record):
    """One file of a model.

    Attributes:
        path: Where it lies.
        size_bytes: Its size.
    """

    path: str = ""
    size_bytes: int = 0


class ProtocolVersion(Record):
    """A version of this protocol.

    Attributes:
        major: Another one is not compatible.
        minor: Grows with what is added.
    """

    major: int = 0
    minor: int = 0


class Format(Record):
    """A format of models and its engine.

    Attributes:
        name: As `Model.format` has it.
        available: Whether models of it can be loaded.
        engine: The library that computes.
        version: Of that library, or of the package that brings the format.
        reason: What is missing, or that it is turned off, when it is not available.
    """

    name: str = ""
    available: bool = False
    engine: str | None = None
    version: str | None = None
    reason: str | None = None


class Device(Record):
    """Main memory or a GPU.

    Attributes:
        id: `cpu`, `cuda:0`, …
        kind: `cpu` or `cuda`.
        name: As its maker calls it.
        uuid: Of a GPU.
        total_bytes: What it has.
        free_bytes: What could be had now.
        limit_bytes: What hybridd may use in all (`limits.*`).
        hybridd_bytes: What its workers have.
        templates_bytes: What its templates have.
    """

    id: str = ""
    kind: str = ""
    name: str = ""
    uuid: str | None = None
    total_bytes: int = 0
    free_bytes: int = 0
    limit_bytes: int = 0
    hybridd_bytes: int = 0
    templates_bytes: int = 0


class Place(Record):
    """A directory where models are looked for.

    Attributes:
        store: As `Location.store` has it.
        path: The directory.
        exists: Whether it is there.
    """

    store: str = ""
    path: str = ""
    exists: bool = False


class Catalog(Record):
    """How far the catalog is.

    Attributes:
        complete: Whether every place was looked at since the daemon's start.
        scanned_at: When the last look ended, in Unix seconds.
        models: Usable ones.
        revision: Grows with every change.
        watching: `inotify`, or `polling` where that has no room.
        polling_remedy: The sysctl that would make room.
        places: Where it looks, in the order of precedence.
        problems: What could not be read, as sentences.
    """

    complete: bool = False
    scanned_at: float | None = None
    models: int = 0
    revision: int = 0
    watching: str = ""
    polling_remedy: str | None = None
    places: list[Place] = []
    problems: list[str] = []


class Message(Record):
    """The assistant's message.

    Attributes:
        role: `assistant`.
        content: What it says; left out with `stream`.
    """

    role: str = ""
    content: str | None = None


class Alternative(Record):
    """A token with its probability.

    Attributes:
        id: The token.
        token: Its text; bytes that are no UTF-8 by themselves are U+FFFD.
        bytes: Its bytes.
        logprob: Natural logarithm of its probability, before any option; -9999 is impossible.
    """

    id: int = 0
    token: str = ""
    bytes: list[int] = []
    logprob: float = 0.0


class Logprob(Alternative):
    """A generated token with its probability and the likeliest alternatives.

    Attributes:
        top_logprobs: So many as were asked for, the likeliest first.
    """

    top_logprobs: list[Alternative] = []


class PlannedMemory(Record):
    """What a load would need, in bytes.

    Attributes:
        weights_bytes: The weights.
        kv_cache_bytes: The KV cache.
        compute_bytes: Buffers to compute in.
        overhead_bytes: The process itself.
        reserved_bytes: What the engine may come to use, which has to be free.
        resident_bytes: What will be resident once the model is warm.
        source: How it is known; `formula` is from the headers.
    """

    weights_bytes: int = 0
    kv_cache_bytes: int = 0
    compute_bytes: int = 0
    overhead_bytes: int = 0
    reserved_bytes: int = 0
    resident_bytes: int = 0
    source: str = ""


class PlacedShare(Share):
    """What would lie on one device.

    Attributes:
        layers: Of the model, on a GPU, where some may be elsewhere.
    """

    layers: int | None = None


class Evicted(Record):
    """A model that would leave.

    Attributes:
        id: The full id.
        frees_bytes: What is reserved for it.
        idle_s: How long it has been idle, in seconds.
    """

    id: str = ""
    frees_bytes: int = 0
    idle_s: float = 0.0


class Plan(Record):
    """How a load was planned; `does_not_fit` carries it as `plan`.

    Attributes:
        model: The full id.
        load_options: With every "auto" settled.
        fits: Whether there is room.
        estimate: What it needs.
        placement: What would lie where.
        free: What each device has free for it.
        evict: Models that would leave for it.
        max_context_length: The longest context that would fit, in tokens; 0 when none does.
        reason: Why it does not fit.
    """

    model: str = ""
    load_options: dict[str, Any] = {}
    fits: bool = False
    estimate: PlannedMemory = PlannedMemory()
    placement: list[PlacedShare] = []
    free: list[Share] = []
    evict: list[Evicted] = []
    max_context_length: int = 0
    reason: str | None = None


class Error(Record):
    """The error of a response.

    Attributes:
        code: See the table of errors.
        message: A sentence for people.
        data: `kind`, and the facts of the kind.
    """

    code: int = 0
    message: str = ""
    data: dict[str, Any] = {}


# What clients' records hold as plain dicts.
WITHIN: dict[tuple[type[Record], str], Any] = {
    (types.ModelDetails, "files"): list[ModelFile],
    (types.Loaded, "devices"): list[Share],
    (types.Loaded, "memory"): Memory,
    (types.Job, "error"): Error | None,
    (types.Completion, "logprobs"): list[Logprob] | None,
    (types.ChatCompletion, "message"): Message,
    (types.ChatCompletion, "logprobs"): list[Logprob] | None,
    (types.Info, "protocol"): ProtocolVersion,
    (types.Info, "formats"): list[Format],
    (types.Info, "devices"): list[Device],
    (types.Info, "catalog"): Catalog,
}
