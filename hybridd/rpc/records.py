"""What crosses the socket and has no record in `wire/types`.

These are results that clients take apart at once, notifications, and objects that stay plain dicts
within a client's records (`WITHIN`). They describe, for `rpc.discover`; nothing is made of them.
"""

from __future__ import annotations

from typing import Any

from hybridd.wire import types
from hybridd.wire.record import Record

# ---------------------------------------------------------------- results


class Nothing(Record):
    """An empty object."""


class Alive(Record):
    """The daemon answers.

    Attributes:
        ok: true.
    """

    ok: bool = True


class ModelPage(Record):
    """Models of the catalog, or one page of them.

    Attributes:
        models: Sorted by id.
        revision: Of the catalog; it grows with every change, and events carry it.
        complete: Whether every place was looked at since the daemon's start.
        next_cursor: What `cursor` takes for the next page; left out on the last one.
    """

    models: list[types.Model] = []
    revision: int = 0
    complete: bool = True
    next_cursor: str | None = None


class LoadedModels(Record):
    """What is in memory.

    Attributes:
        models: In no particular order.
    """

    models: list[types.Loaded] = []


class Resolved(Record):
    """What a name means.

    Attributes:
        id: The full id.
    """

    id: str = ""


class JobName(Record):
    """A load that goes on by itself.

    Attributes:
        job: Its name, for `jobs.*`.
    """

    job: str = ""


class ModelSettings(Record):
    """The lasting settings of a model; those that are not set are left out.

    Attributes:
        model: The full id.
        alias: Another name for it.
        keepalive: Seconds that it stays when idle; -1 is for ever.
        pin: Whether it stays until it is told to go.
        load_options: For loads that do not say otherwise.
        options: For requests that do not say otherwise.
        allow_pickle: Whether weights in pickles are read.
        trust_remote_code: Whether code in the model's directory is run.
    """

    model: str = ""
    alias: str | None = None
    keepalive: float | None = None
    pin: bool | None = None
    load_options: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    allow_pickle: bool | None = None
    trust_remote_code: bool | None = None


class Jobs(Record):
    """Jobs, the oldest first.

    Attributes:
        jobs: All that run, and the last 256 or so that ended.
    """

    jobs: list[types.Job] = []


class Tokens(Record):
    """A text as tokens.

    Attributes:
        tokens: Their ids.
    """

    tokens: list[int] = []


class PlainText(Record):
    """Tokens as a text.

    Attributes:
        text: The text.
    """

    text: str = ""


class Prompt(Record):
    """A conversation as a text.

    Attributes:
        prompt: What the model would be given.
    """

    prompt: str = ""


class Settings(Record):
    """Settings by their keys.

    Attributes:
        values: By key.
    """

    values: dict[str, types.Setting] = {}


class Subscribed(Record):
    """A new subscription.

    Attributes:
        subscription: Its name, which its events carry.
        revision: Of the catalog now: events tell what comes after.
    """

    subscription: str = ""
    revision: int = 0


class Document(Record):
    """An OpenRPC document.

    Attributes:
        openrpc: The version of that specification.
        info: What this is, and the daemon's version.
        methods: Every method.
        components: Schemas of records and the kinds of errors, which methods refer to.
    """

    openrpc: str = ""
    info: dict[str, Any] = {}
    methods: list[dict[str, Any]] = []
    components: dict[str, Any] = {}


# ---------------------------------------------------------------- within records


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
        version: Of that library.
        reason: What is missing, when it is not available.
    """

    name: str = ""
    available: bool = False
    engine: str = ""
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
