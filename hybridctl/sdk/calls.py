"""The methods as pure functions: Python arguments in, one `Call` out.

A `Call` is (method, params, convert); both clients make the same ones, so that they cannot come
to differ. Absent (None) arguments are left out of the params: the daemon refuses what it does
not know and applies its own defaults to what is missing.
"""

from __future__ import annotations

from hybridd.wire.protocol import TOPICS
from hybridd.wire.types import (
    ChatCompletion,
    Completion,
    ConfigChange,
    Embeddings,
    Info,
    Job,
    Loaded,
    Model,
    ModelDetails,
    Reranking,
    Rescan,
    Setting,
    Unloaded,
)
from hybridd.wire.units import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias, TypeVar

    from hybridd.wire.types import Progress

    T = TypeVar("T")
    Params: TypeAlias = dict[str, Any]
    Call: TypeAlias = tuple[str, Params, Callable[[Any], T]]
    OnProgress: TypeAlias = Callable[[Progress], object]


_BESIDE_OPTIONS = (
    "options",
    "load_options",
    "context_length",
    "keepalive",
    "timeout",
    "response_format",
    "tools",
    "tool_choice",
    "chat_template_kwargs",
)


def raw(method: str, params: Params) -> Call[Any]:
    """Any method, its result as it came."""
    return method, params, lambda result: result


def events(topics: tuple[str, ...]) -> tuple[str, Params]:
    """Method and params of a subscription; without topics, to all of them."""
    return "events.subscribe", {"topics": list(topics or TOPICS)}


def ping() -> Call[None]:
    """Succeeds when the daemon's own loop answers."""
    return "system.ping", {}, lambda _: None


def info() -> Call[Info]:
    """The daemon, its devices, formats and catalog."""
    return "system.info", {}, Info.from_wire


def shutdown() -> Call[None]:
    """End the daemon."""
    return "system.shutdown", {}, lambda _: None


def list_page(filters: Params, cursor: str | None) -> Call[tuple[list[Model], str | None]]:
    """One page of the catalog, and the cursor of the next one."""

    def convert(result: Any) -> tuple[list[Model], str | None]:
        return [Model.from_wire(m) for m in result["models"]], result.get("next_cursor")

    return "models.list", _present(**{**filters, "cursor": cursor}), convert


def show(model: str) -> Call[ModelDetails]:
    """One model with its metadata."""
    return "models.show", {"model": model}, ModelDetails.from_wire


def resolve(model: str) -> Call[str]:
    """The full id of a name."""
    return "models.resolve", {"model": model}, lambda result: str(result["id"])


def configure(model: str, values: Params) -> Call[dict[str, Any]]:
    """A model's lasting settings; here None is a value, which removes one."""
    if "keepalive" in values:
        values = {**values, "keepalive": _duration(values["keepalive"])}
    return "models.configure", {"model": model, **values}, dict


def rescan(on_progress: OnProgress | None) -> Call[Rescan]:
    """Scan the stores now."""
    return "models.rescan", _present(progress=_wanted(on_progress)), Rescan.from_wire


def load(
    model: str,
    *,
    load_options: Params | None,
    more: Params,
    keepalive: float | str | None,
    pin: bool | None,
    on_progress: OnProgress | None,
) -> Call[Loaded]:
    """Load and wait."""
    params = _present(
        model=model,
        load_options=_merged(load_options, more),
        keepalive=_duration(keepalive),
        pin=pin,
        progress=_wanted(on_progress),
    )
    return "models.load", params, Loaded.from_wire


def load_job(call: Call[Loaded]) -> Call[Job]:
    """The same load, answered at once with its job."""
    method, params, _ = call
    started = {k: v for k, v in params.items() if k != "progress"}
    return method, {**started, "wait": False}, Job.from_wire


def loaded(all: bool) -> Call[list[Loaded]]:
    """What is in memory."""

    def convert(result: Any) -> list[Loaded]:
        return [Loaded.from_wire(m) for m in result["models"]]

    return "models.loaded", {"all": True} if all else {}, convert


def unload(model: str, force: bool) -> Call[Unloaded]:
    """Give a model's memory back."""
    params: Params = {"model": model}
    return "models.unload", {**params, "force": True} if force else params, Unloaded.from_wire


def inference(method: str, model: str, content: Params, arguments: Params) -> tuple[str, Params]:
    """Method and params of `generate`, `chat`, `embed` and `rerank`.

    Args:
        method: One of them.
        model: The model.
        content: What only one of them has: `prompt`, `messages`, …
        arguments: The user's keywords. Those that docs/protocol.md has beside `options` go
            there, the rest is sampling and goes into `options`, where the daemon knows every name.
    """
    beside = {name: arguments[name] for name in _BESIDE_OPTIONS if name in arguments}
    sampling = {k: v for k, v in arguments.items() if k not in _BESIDE_OPTIONS}
    context = _present(context_length=beside.pop("context_length", None))
    beside["load_options"] = _merged(beside.get("load_options"), context)
    beside["options"] = _merged(beside.get("options"), sampling)
    for name in ("keepalive", "timeout"):
        beside[name] = _duration(beside.get(name))
    return method, _present(model=model, **content, **beside)


def embed(
    model: str,
    input: str | Sequence[str],
    dimensions: int | None,
    normalize: bool | None,
    arguments: Params,
) -> Call[Embeddings]:
    """One vector for each text."""
    texts = input if isinstance(input, str) else list(input)
    content = {"input": texts, "dimensions": dimensions, "normalize": normalize}
    return *inference("embed", model, content, arguments), Embeddings.from_wire


def rerank(
    model: str, query: str, documents: Sequence[str], top_n: int | None, arguments: Params
) -> Call[Reranking]:
    """Documents by how well they answer a query."""
    content = {"query": query, "documents": list(documents), "top_n": top_n}
    return *inference("rerank", model, content, arguments), Reranking.from_wire


def completion(method: str, params: Params) -> Call[Completion]:
    """An unstreamed `generate`."""
    return method, params, Completion.from_wire


def chat_completion(method: str, params: Params) -> Call[ChatCompletion]:
    """An unstreamed `chat`."""
    return method, params, ChatCompletion.from_wire


def tokenize(model: str, text: str, special: bool | None) -> Call[list[int]]:
    """Token ids of a text."""
    params = _present(model=model, text=text, special=special)
    return "tokenize", params, lambda result: list(result["tokens"])


def detokenize(model: str, tokens: Sequence[int]) -> Call[str]:
    """The text of token ids."""
    params = {"model": model, "tokens": list(tokens)}
    return "detokenize", params, lambda result: str(result["text"])


def apply_template(
    model: str, messages: Sequence[Params], tools: Sequence[Params] | None
) -> Call[str]:
    """The prompt that a chat would send to the model."""
    params = _present(model=model, messages=list(messages), tools=tools and list(tools))
    return "apply_template", params, lambda result: str(result["prompt"])


def jobs() -> Call[list[Job]]:
    """All jobs the daemon remembers."""

    def convert(result: Any) -> list[Job]:
        return [Job.from_wire(j) for j in result["jobs"]]

    return "jobs.list", {}, convert


def job(method: str, job: str | Job, on_progress: OnProgress | None = None) -> Call[Job]:
    """`jobs.get`, `jobs.wait` or `jobs.cancel`."""
    name = job if isinstance(job, str) else job.job
    # jobs.cancel need not describe the job; its name is what the caller already has.
    return (
        method,
        _present(job=name, progress=_wanted(on_progress)),
        lambda result: Job.from_wire({"job": name, **result}),
    )


def config_get(key: str | None) -> Call[dict[str, Setting]]:
    """Settings with their sources."""

    def convert(result: Any) -> dict[str, Setting]:
        return {key: Setting.from_wire(value) for key, value in result["values"].items()}

    return "config.get", _present(key=key), convert


def config_set(values: Params, persist: bool) -> Call[ConfigChange]:
    """Change settings, all or none."""
    params: Params = {"values": values}
    return "config.set", params if persist else {**params, "persist": False}, ConfigChange.from_wire


def config_unset(keys: Sequence[str]) -> Call[ConfigChange]:
    """Back to what file, environment or default say."""
    return "config.unset", {"keys": list(keys)}, ConfigChange.from_wire


def _present(**values: Any) -> Params:
    return {name: value for name, value in values.items() if value is not None}


def _wanted(on_progress: OnProgress | None) -> bool | None:
    return True if on_progress is not None else None


def _merged(options: Params | None, more: Params) -> Params | None:
    # What stands in `options` was said, also null: it turns off what is settled for a model.
    return {**(options or {}), **_present(**more)} or None


def _duration(value: float | str | None) -> float | str | None:
    # JSON has no infinity; a negative duration is for ever on the wire.
    return -1 if value == FOREVER else value
