"""Records of models: as the catalog lists them, and as they are in memory."""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Quantization(Record):
    """How the weights are stored.

    Attributes:
        name: As its makers call it: `Q4_K_M`, `F16`, `int4`.
        bits_per_weight: Bytes of all tensors times 8, divided by the number of parameters.
    """

    name: str = ""
    bits_per_weight: float | None = None


class Location(Record):
    """Where a model's file was found.

    Attributes:
        store: `demo`, `local`, `lmstudio`, `hub`, `llamacpp` or `ollama`.
        path: The file (of several, the first) or the directory; bytes that are no UTF-8 are `%XX`.
    """

    store: str = ""
    path: str = ""


class Model(Record):
    """One model of the catalog (`models.list`).

    Attributes:
        id: The full id; it stays while the files stay.
        aliases: Other names that mean this model.
        format: `gguf`, `huggingface` or another that `system.info` lists.
        publisher: Whose model it is, by the folders' names.
        name: The name to show.
        base: What builds of one model have in common.
        size_bytes: Of all its files.
        parameters: Counted from the tensors.
        quantization: How the weights are stored.
        architecture: As the files name it.
        context_length: The longest context that the model was made for, in tokens.
        capabilities: Of completion, chat, tools, reasoning, vision, audio, embedding, reranking,
            infill.
        status: `available`, `invalid`, `quarantined`, `queued`, `loading`, `loaded` or `unloading`.
        stale: Whether it is loaded from files that have changed since, or are gone.
        reason: Why it is invalid or quarantined.
        source: Where it is loaded from.
        locations: Every place where the same files were seen, `source` first.
        modified_at: When the newest of its files changed, in Unix seconds.
        digest: What its store records of the content: `sha256:…`, or `files-sha256:…` of several.
    """

    id: str = ""
    aliases: list[str] = []
    format: str = ""
    publisher: str | None = None
    name: str = ""
    base: str | None = None
    size_bytes: int = 0
    parameters: int | None = None
    quantization: Quantization | None = None
    architecture: str | None = None
    context_length: int | None = None
    capabilities: list[str] = []
    status: str = "available"
    stale: bool = False
    reason: str | None = None
    source: Location | None = None
    locations: list[Location] = []
    modified_at: float | None = None
    digest: str | None = None
    _nested = {
        "quantization": (Quantization, False),
        "source": (Location, False),
        "locations": (Location, True),
    }


class ModelDetails(Model):
    """One model with everything that its headers say (`models.show`).

    Attributes:
        metadata: What the headers say, by the format's own names; `defaults` (the model's own
            sampling options) is there for every format.
        chat_template: The source of the Jinja template.
        files: Every file of the model.
        settings: What `models.configure` was told.
        notes: Of a loaded model, what does not go as one would expect, in plain sentences.
    """

    metadata: dict[str, Any] = {}
    chat_template: str | None = None
    files: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    notes: list[str] = []


class Loaded(Record):
    """One model in memory (`models.load`, `models.loaded`).

    Attributes:
        id: The model's full id; of a template `template:FORMAT` or `template:FORMAT:MODEL`.
        format: The model's format.
        engine: The library that computes, with its version.
        status: `loading`, `loaded` or `unloading`; `models.loaded` with `all` also has `template`
            and `quarantined`.
        pid: Of the worker process.
        devices: What is reserved on each device.
        memory: What it takes.
        load_options: Those in force, every "auto" settled.
        context_length: Tokens that one request may have, prompt and completion together.
        parallel: Requests that it serves at a time.
        kv_cells: Tokens that all requests together have room for in the KV cache.
        active_requests: Requests at work.
        queued_requests: Requests that wait for it.
        generation_tokens_per_s: Of the last request that generated.
        loaded_at: When it was ready, in Unix seconds.
        last_used_at: When its last request ended, in Unix seconds.
        load_s: How long the worker took to load it, in seconds.
        keepalive_s: How long it stays when idle, in seconds; -1 is for ever.
        expires_in_s: When it will be unloaded if no request comes, in seconds; null is never. Of a
            quarantined model: how long it is left alone.
        pinned: Whether it stays until it is told to go, however long it is idle.
        stale: Whether its files (or its draft model's) have changed since, or are gone.
        notes: What does not go as one would expect, in plain sentences.
        confinement: How the worker is confined; null is not at all.
    """

    id: str = ""
    format: str = ""
    engine: str = ""
    status: str = ""
    pid: int | None = None
    devices: list[dict[str, Any]] = []
    memory: dict[str, int] = {}
    load_options: dict[str, Any] = {}
    context_length: int | None = None
    parallel: int | None = None
    kv_cells: int | None = None
    active_requests: int = 0
    queued_requests: int = 0
    generation_tokens_per_s: float | None = None
    loaded_at: float | None = None
    last_used_at: float | None = None
    load_s: float | None = None
    keepalive_s: float | None = None
    expires_in_s: float | None = None
    pinned: bool = False
    stale: bool = False
    notes: list[str] = []
    confinement: str | None = None


class Unloaded(Record):
    """What an unload freed (`models.unload`).

    Attributes:
        unloaded: Full ids.
        freed_bytes: What was reserved for them.
    """

    unloaded: list[str] = []
    freed_bytes: int = 0


class Rescan(Record):
    """What a scan changed (`models.rescan`).

    Attributes:
        added: Models that are new since the call.
        changed: Models whose files or names are others.
        removed: Models that are gone.
        total: Models in the catalog now, those that are invalid included.
        seconds_s: How long it took.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    total: int = 0
    seconds_s: float = 0.0
