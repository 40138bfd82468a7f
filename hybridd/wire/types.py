"""The objects that replies carry, as small typed records.

The `Attributes` of a record say what its fields mean and in which unit; `rpc.discover` and the
tables of docs/protocol.md are made from them. A field that may be None is null, or left out, where
it is not known or does not apply.
"""

from __future__ import annotations

from .delta import Delta as Delta
from .record import Record

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


class Job(Record):
    """Work that outlasts a request (`jobs.*`).

    Attributes:
        job: Its name, for `jobs.*`.
        kind: `load` or `rescan`.
        model: The full id of the model it is about.
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        stage: What it is doing; a word for people.
        done: How far the stage is, in units of its own.
        total: Where it ends; 0 where that cannot be known.
        fraction: `done` of `total`, 0 to 1; 1 once the job is done.
        started_at: When it was begun, in Unix seconds.
        finished_at: When it ended, in Unix seconds.
        result: How it ended: of a scan the result of `models.rescan`, of a load the model's `id`.
        error: Why it failed, as an error response would have it.
    """

    job: str = ""
    kind: str = ""
    model: str | None = None
    state: str = ""
    stage: str | None = None
    done: int | None = None
    total: int | None = None
    fraction: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class Usage(Record):
    """Tokens of one request.

    Attributes:
        prompt_tokens: Of the prompt.
        completion_tokens: That were generated.
        total_tokens: Both.
        cached_tokens: Of the prompt, those that did not have to be computed.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0


class Timings(Record):
    """Where the seconds of one request went.

    Attributes:
        queue_s: Waiting for a turn.
        load_s: Waiting for the model's load.
        prompt_s: Computing the prompt (prefill).
        first_token_s: From the request's arrival to its first token.
        generation_s: Generating (decode).
        total_s: From the request's arrival to its end.
        prompt_tokens_per_s: Tokens of the prompt that were computed, by `prompt_s`.
        generation_tokens_per_s: Generated tokens by `generation_s`.
        draft_tokens: Tokens that a draft model proposed.
        draft_accepted_tokens: Those of them that were right.
    """

    queue_s: float = 0.0
    load_s: float = 0.0
    prompt_s: float = 0.0
    first_token_s: float = 0.0
    generation_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens_per_s: float | None = None
    generation_tokens_per_s: float | None = None
    draft_tokens: int | None = None
    draft_accepted_tokens: int | None = None


class Completion(Record):
    """The result of `generate`.

    Attributes:
        model: The full id.
        text: What was generated, without the prompt; left out with `stream`.
        finish_reason: `stop` (the model's end, or a stop string) or `length` (`max_tokens`, or the
            context is full).
        usage: Tokens.
        timings: Seconds.
        logprobs: One for each generated token, with `options.logprobs`; left out with `stream`.
    """

    model: str = ""
    text: str = ""
    finish_reason: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    logprobs: list[dict[str, Any]] | None = None
    _nested = {"usage": (Usage, False), "timings": (Timings, False)}


class ChatCompletion(Record):
    """The result of `chat`; `text` is the message's content.

    Attributes:
        model: The full id.
        message: The assistant's message; without content with `stream`.
        finish_reason: `stop` (the model's end, or a stop string) or `length` (`max_tokens`, or the
            context is full).
        usage: Tokens.
        timings: Seconds.
        logprobs: One for each generated token, with `options.logprobs`; left out with `stream`.
    """

    model: str = ""
    message: dict[str, Any] = {}
    finish_reason: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    logprobs: list[dict[str, Any]] | None = None
    _nested = {"usage": (Usage, False), "timings": (Timings, False)}

    @property
    def text(self) -> str:
        """The assistant's words."""
        return str(self.message.get("content") or "")


class Embeddings(Record):
    """The result of `embed`: one vector for each text, in their order.

    Attributes:
        model: The full id.
        embeddings: The vectors.
        dimensions: How many numbers a vector has.
        usage: Tokens.
    """

    model: str = ""
    embeddings: list[list[float]] = []
    dimensions: int = 0
    usage: Usage = Usage()
    _nested = {"usage": (Usage, False)}


class Ranked(Record):
    """One document of a `rerank`: its place in the request, and how well it fits.

    Attributes:
        index: Of the document in the request, from 0.
        score: The higher the better; of which range is the model's to say.
    """

    index: int = 0
    score: float = 0.0


class Reranking(Record):
    """The result of `rerank`, the best document first.

    Attributes:
        model: The full id.
        results: The documents, by score.
        usage: Tokens.
    """

    model: str = ""
    results: list[Ranked] = []
    usage: Usage = Usage()
    _nested = {"results": (Ranked, True), "usage": (Usage, False)}


class Progress(Record):
    """One `$/progress` notification."""

    job: str | None = None
    stage: str | None = None
    done: int | None = None
    total: int | None = None
    fraction: float | None = None
    message: str | None = None


class Event(Record):
    """One `$/event` notification; its own fields are in `raw`."""

    subscription: str = ""
    seq: int = 0
    time: float = 0.0
    topic: str = ""
    type: str = ""


class Info(Record):
    """The daemon itself (`system.info`).

    Attributes:
        name: `hybridd`.
        version: Of the daemon.
        protocol: The version of this protocol that it speaks.
        pid: Of the daemon.
        started_at: When it was started, in Unix seconds.
        uptime_s: Since then.
        socket: The path that it listens on.
        formats: Every format that is installed.
        devices: The main memory, then every GPU.
        catalog: How far the catalog is.
        features: What it does beside the methods.
    """

    name: str = ""
    version: str = ""
    protocol: dict[str, int] = {}
    pid: int = 0
    started_at: float = 0.0
    uptime_s: float = 0.0
    socket: str = ""
    formats: list[dict[str, Any]] = []
    devices: list[dict[str, Any]] = []
    catalog: dict[str, Any] = {}
    features: list[str] = []


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


class Unloaded(Record):
    """What an unload freed (`models.unload`).

    Attributes:
        unloaded: Full ids.
        freed_bytes: What was reserved for them.
    """

    unloaded: list[str] = []
    freed_bytes: int = 0


class Setting(Record):
    """One configuration value and where it comes from (`config.get`).

    Attributes:
        value: In force; a duration in seconds, -1 for ever.
        source: Where it comes from: `flag`, `runtime`, `environment`, `file` or `default`.
        live: Whether a change takes effect at once; otherwise at the next start.
        description: What it is for.
    """

    value: Any = None
    source: str = "default"
    live: bool = True
    description: str = ""


class ConfigChange(Record):
    """What a change of settings did (`config.set`, `config.unset`, `system.reload`).

    Attributes:
        changed: Keys whose value in force is another one now.
        restart_needed: Those of them that take effect at the next start.
        overridden_by_flag: Keys that a flag of this start decides; the new value counts later.
    """

    changed: list[str] = []
    restart_needed: list[str] = []
    overridden_by_flag: list[str] | None = None


class HttpStatus(Record):
    """Where the HTTP gateway listens, and who may ask (`http.status`).

    Attributes:
        enabled: Whether it listens anywhere.
        listen: What `http.listen` wants; "" is no TCP.
        addresses: Where it listens: `http://HOST:PORT`, `unix:PATH`.
        problem: Why it does not listen where it should.
        changing: Whether it is about to listen elsewhere, after a change of settings.
        token: `auto` (requests over TCP need the token) or `none`.
        allow_origins: Origins whose pages may ask, beside the gateway's own.
        allow_hosts: Names that it answers to, beside localhost and its addresses.
    """

    enabled: bool = False
    listen: str = ""
    addresses: list[str] = []
    problem: str | None = None
    changing: bool = False
    token: str = "auto"
    allow_origins: list[str] = []
    allow_hosts: list[str] = []


class HttpLink(Record):
    """A link that opens the gateway's page in a browser (`http.link`).

    Attributes:
        url: With a code in it that is good once, where a token is needed.
        expires_in_s: How long the code is good; null where there is none.
    """

    url: str = ""
    expires_in_s: float | None = None
