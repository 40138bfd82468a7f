"""The objects that replies carry, as small typed records.

`Record` stands in for a dataclass, whose import alone would double the CLI's start-up. A record
made from a reply ignores fields it does not know and gives absent ones their default, as PROTOCOL
asks of every client; unknown fields stay reachable in `raw`.
"""

from __future__ import annotations

from .delta import Delta as Delta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform():
        """At run time the decorator only has to vanish."""
        return lambda made: made


@dataclass_transform()
class Record:
    """Base of the typed results: keyword arguments in, attributes out."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _nested: ClassVar[dict[str, tuple[type[Record], bool]]] = {}
    raw: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        # inspect.get_annotations would cost the CLI an import.
        annotated = cls.__dict__.get("__annotations__", {})  # noqa: RUF063
        own = tuple(n for n in annotated if not n.startswith("_"))
        cls._fields = cls._fields + own

    def __init__(self, **values: Any) -> None:
        for name in self._fields:
            if name in values:
                setattr(self, name, values[name])
            elif hasattr(type(self), name):
                default = getattr(type(self), name)
                if isinstance(default, (list, dict)):
                    default = type(default)(default)
                elif isinstance(default, Record):
                    default = type(default)()
                setattr(self, name, default)
            else:
                setattr(self, name, None)

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Self:
        """Make the record of a reply's object."""
        values = {k: v for k, v in data.items() if k in cls._fields}
        for name, (kind, many) in cls._nested.items():
            value = values.get(name)
            if many and isinstance(value, list):
                values[name] = [kind.from_wire(v) for v in value]
            elif isinstance(value, dict):
                values[name] = kind.from_wire(value)
        made = cls(**values)
        made.__dict__["raw"] = data
        return made

    def to_wire(self) -> dict[str, Any]:
        """The object as it crosses the socket; fields that are None are left out."""

        def plain(value: Any) -> Any:
            if isinstance(value, Record):
                return value.to_wire()
            return [plain(v) for v in value] if isinstance(value, list) else value

        return {n: plain(v) for n in self._fields if (v := getattr(self, n)) is not None}

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{n}={v!r}" for n in self._fields if (v := getattr(self, n)) not in (None, [], {})
        )
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, n) == getattr(other, n) for n in self._fields
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, like a dataclass with eq


class Quantization(Record):
    """How the weights are stored."""

    name: str = ""
    bits_per_weight: float | None = None


class Location(Record):
    """Where a model's file was found."""

    store: str = ""
    path: str = ""


class Model(Record):
    """One model of the catalog (`models.list`)."""

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
    """One model with everything that its headers say (`models.show`)."""

    metadata: dict[str, Any] = {}
    chat_template: str | None = None
    files: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    notes: list[str] = []
    last_load: dict[str, Any] | None = None


class Loaded(Record):
    """One model in memory (`models.load`, `models.loaded`)."""

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
    notes: list[str] = []
    confinement: str | None = None


class Job(Record):
    """Work that outlasts a request (`jobs.*`)."""

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
    """Tokens of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0


class Timings(Record):
    """Where the seconds of one request went."""

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
    """The result of `generate`."""

    model: str = ""
    text: str = ""
    finish_reason: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    logprobs: list[dict[str, Any]] | None = None
    _nested = {"usage": (Usage, False), "timings": (Timings, False)}


class ChatCompletion(Record):
    """The result of `chat`; `text` is the message's content."""

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
    """The result of `embed`: one vector for each text, in their order."""

    model: str = ""
    embeddings: list[list[float]] = []
    dimensions: int = 0
    usage: Usage = Usage()
    _nested = {"usage": (Usage, False)}


class Ranked(Record):
    """One document of a `rerank`: its place in the request, and how well it fits."""

    index: int = 0
    score: float = 0.0


class Reranking(Record):
    """The result of `rerank`, the best document first."""

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
    """The daemon itself (`system.info`)."""

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
    """What a scan changed (`models.rescan`)."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    total: int = 0
    seconds_s: float = 0.0


class Unloaded(Record):
    """What an unload freed (`models.unload`)."""

    unloaded: list[str] = []
    freed_bytes: int = 0


class Setting(Record):
    """One configuration value and where it comes from (`config.get`)."""

    value: Any = None
    source: str = "default"
    live: bool = True
    description: str = ""


class ConfigChange(Record):
    """What a `config.set` or `config.unset` changed."""

    changed: list[str] = []
    restart_needed: list[str] = []
