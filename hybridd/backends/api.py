"""What a format has to offer, in two halves that never meet in one process.

The daemon's half (`Backend`) reads headers and does arithmetic; it imports nothing heavy. The
worker's half (`Engine`) is imported by name inside a worker process only. What crosses between
them is JSON: `LoadSpec` and requests in, facts, deltas and results out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

from hybridd.core.model import Estimate, Facts
from hybridd.wire.delta import Delta

__all__ = [
    "Adapters",
    "Backend",
    "Delta",
    "Drafting",
    "Engine",
    "Estimate",
    "Facts",
    "KVSpec",
    "LoadCancelled",
    "LoadSpec",
    "LoadedFacts",
    "Output",
    "Parallel",
    "Report",
    "Switch",
    "WorkRequest",
]

# ---------------------------------------------------------------- the daemon's half


class Parallel(NamedTuple):
    """How many requests at a time an engine serves.

    Attributes:
        auto: When no number is asked for and there is room; the planner takes fewer where there
            is none.
        most: What is asked for beyond it gets this.
    """

    auto: int
    most: int


# Of an engine that finishes one request before it begins the next.
ONE_AT_A_TIME = Parallel(auto=1, most=1)


class Switch(NamedTuple):
    """The setting `formats.NAME`, which turns a format on and off.

    Attributes:
        description: What the format is, as a sentence for people who read their settings.
        on: Whether it is on unless it is turned off.
        variable: Another environment variable that sets it; "" for none.
    """

    description: str
    on: bool = True
    variable: str = ""


class Adapters(NamedTuple):
    """What the daemon knows of a format's adapters.

    Attributes:
        weights_bytes: What one adapter adds to a load, by its facts.
    """

    weights_bytes: Callable[[Facts], int]


class Drafting(NamedTuple):
    """What the daemon knows of a format's draft models.

    Attributes:
        check: `check(model, facts, draft, draft_facts)` refuses what cannot draft for a model, as
            far as their headers tell, with the error that the engine would raise; `model` and
            `draft` are ids, for messages.
        estimate: `estimate(facts, draft_facts, load_options)` says what the draft model adds to
            what the load needs, by formula.
    """

    check: Callable[[str, Facts, str, Facts], None]
    estimate: Callable[[Facts, Facts, Mapping[str, Any]], Estimate]


class Backend(Protocol):
    """The daemon's side of one format. Stateless; safe to call from a thread.

    Inherit from it: what has a default here need not be said, and what a later version adds has a
    default that means "this format has none of it".
    """

    name: str  # the wire's `format`
    engine: str  # "llama.cpp", "transformers"
    engine_factory: str  # "package.module:callable", imported in a worker only; "": none yet
    switch: Switch
    suffixes: tuple[str, ...] = ()  # a file that ends so (lower case, with the dot) is a candidate
    # Packages whose presence makes the engine available, the one that is the engine first.
    distributions: tuple[str, ...] = ()
    extra: str | None = None  # hybridd's optional dependency group that brings them
    preload: tuple[str, ...] = ()  # heavy modules that a template imports before it forks
    # "package.module:callable", called with a model's path in a template of that model alone, to
    # ready what its workers share; "": nothing. Not called where `uses_gpu`.
    prepare: str = ""
    tagged: bool = False  # whether ids name the quantization, as in `publisher/repo:Q4_K_M`
    splits_layers: bool = False  # whether some layers may be on a GPU and the others on the CPU
    keeps_states: bool = False  # whether the engine keeps sequences as `KVSpec` says
    senses: tuple[str, ...] = ()  # what it reads of messages beside text: "vision", "audio"
    adapters: Adapters | None = None  # None: the engine takes none
    drafting: Drafting | None = None  # None: the engine takes no draft model

    def uses_gpu(self) -> bool:
        """Whether the engine as it is installed can use a GPU; found out without importing it."""
        return False

    def claims(self, names: Set[str]) -> bool:
        """Whether a directory with these names in it is a candidate; directories end in `/`."""
        return False

    def companions(self, names: Sequence[str], loose: bool) -> Mapping[str, Sequence[str]]:
        """Which candidate files of one directory are no models but belong to others of them.

        Args:
            names: Of the files that have one of `suffixes`, of shards the first.
            loose: Whether the directory is a store's root, where files of any models lie.

        Returns:
            Model -> the files that belong to it, the best first, which is the one in use.
        """
        return {}

    @abstractmethod
    def inspect(self, path: Path) -> Facts:
        """Read the headers of the model at `path` (a file or a directory).

        Raises:
            hybridd.wire.errors.ModelInvalid: With `reason`; nothing else is raised for bad files.
            OSError: The file went away or cannot be read.
        """

    def check_load_options(self, load_options: Mapping[str, Any]) -> None:
        """Refuse what the engine would refuse of any model: before anything is unloaded for it.

        Raises:
            hybridd.wire.errors.InvalidParams: A value that the engine does not know.
            hybridd.wire.errors.Unsupported: An option that it does not have.
        """
        return

    def parallel(self, facts: Facts) -> Parallel:
        """How many requests at a time the engine serves of this model."""
        return ONE_AT_A_TIME

    @abstractmethod
    def estimate(self, facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
        """What loading with these (possibly partial) options needs, by formula."""


# ---------------------------------------------------------------- the worker's half


class KVSpec(TypedDict):
    """What an engine may keep of sequences that have to leave its KV cache."""

    host_cache_bytes: int  # of main memory; reserved in the ledger, 0 for none
    persist_bytes: int  # on disk, in `persist_dir`; 0 for nothing
    persist_dir: str  # there already, readable for its owner alone; "" with `persist_bytes` 0


class LoadSpec(TypedDict):
    """What an engine gets to load."""

    model: str  # the id, for messages
    format: str
    path: str  # the file (GGUF: first shard) or directory
    # As docs/protocol.md names them. context_length, parallel and kv_cells are numbers; others may
    # be "auto".
    load_options: dict[str, Any]
    defaults: dict[str, Any]  # the model's own sampling defaults
    # Names this state of the files: whatever was kept under another one is of other weights.
    identity: str
    kv: KVSpec
    placement: NotRequired[dict[str, int]]  # device -> bytes, as it was planned
    adapters: NotRequired[list[dict[str, str]]]  # name and path of those in load_options
    draft: NotRequired[dict[str, str]]  # id (`model`) and path of load_options' draft_model
    permissions: NotRequired[list[str]]  # settings of this model: allow_pickle, trust_remote_code


class LoadedFacts(TypedDict):
    """What an engine says once it is ready."""

    engine: str  # "llama.cpp 0.3.36", "transformers 5.23.0"
    context_length: int  # of one request
    parallel: int  # requests it takes at a time
    load_options: dict[str, Any]  # in force; `threads`: the most it computes with
    memory: dict[str, int]  # what the engine's own figures say, by purpose (weights_bytes, …)
    capabilities: list[str]  # what this instance can do
    notes: NotRequired[list[str]]  # what does not go as one would expect, in plain sentences


class WorkRequest(TypedDict):
    """One request to an engine. `options` are complete: every default was filled in before."""

    id: int
    kind: str  # one of `core.kinds`
    options: NotRequired[dict[str, Any]]
    prompt: NotRequired[str]
    messages: NotRequired[list[dict[str, Any]]]
    tools: NotRequired[list[dict[str, Any]] | None]
    tool_choice: NotRequired[Any]
    chat_template_kwargs: NotRequired[dict[str, Any]]
    text: NotRequired[str]
    special: NotRequired[bool]
    tokens: NotRequired[list[int]]
    input: NotRequired[list[str]]  # embed
    dimensions: NotRequired[int | None]  # None: as many as the model has
    normalize: NotRequired[bool]
    query: NotRequired[str]  # rerank
    documents: NotRequired[list[str]]
    top_n: NotRequired[int | None]


class Output(TypedDict):
    """What one step brought for one request. `done` or `error` ends it; a `delta` may come along.

    A generation's `done` is `{finish_reason, usage:{prompt_tokens, completion_tokens,
    cached_tokens}, timings:{prompt_s, first_token_s, generation_s}}`, with a draft model also
    draft_tokens and draft_accepted_tokens in `timings`; the text itself went out in the deltas
    before. Other kinds' `done` is the wire's result object without `model`; each vector of an
    `embed` is the JSON text of its numbers, which the daemon passes on unread.
    """

    id: int
    delta: NotRequired[Delta]
    done: NotRequired[dict[str, Any]]
    error: NotRequired[dict[str, Any]]  # a wire error object


# report(stage, done, total): raises LoadCancelled when the load is to stop.
Report = Callable[[str, int, int], None]


class LoadCancelled(Exception):
    """Raised out of `report` to stop a load."""


class Engine(Protocol):
    """The worker's side of one format, driven by `worker.loop` on the main thread."""

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """Bring the model up.

        Raises:
            HybriddError: `load_failed`, `model_invalid`, `unsupported` with a reason.
            LoadCancelled: `report` said so.
        """
        ...

    def submit(self, request: WorkRequest) -> None:
        """Take a request; its outputs come from `step`, also its errors."""
        ...

    def cancel(self, request_id: int) -> None:
        """Forget a request; no output of it follows. Called between steps. Unknown ids: no-op."""
        ...

    def step(self) -> Sequence[Output]:
        """Do one unit of work (one decode step, one prompt chunk) for all requests at hand."""
        ...

    @property
    def busy(self) -> bool:
        """Whether `step` has work to do."""
        ...

    def set_interrupted(self, interrupted: Callable[[int], bool]) -> None:
        """Give the engine a way to learn, inside a long step, whether a request was cancelled.

        `interrupted(id)` is cheap and thread-safe; llama.cpp's abort callback asks it.
        """
        ...

    def set_threads(self, count: int) -> None:
        """Compute with at most `count` threads from the next step on; called between steps.

        The daemon shares the cores among the models that are at work. It calls this only where
        no number was asked for, and never with more than the `threads` that `load` said are in
        force. An engine that cannot change them ignores it.
        """
        return

    def retire(self) -> None:
        """The process ends now: save what is to outlive it.

        Memory is not to be freed: it goes with the process, and much faster.
        """
        ...

    def close(self) -> None:
        """Free everything, for a process that goes on."""
        ...
