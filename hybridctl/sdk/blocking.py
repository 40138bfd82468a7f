"""The blocking client. `asynchronous` has the same methods, under the same names.

The methods only say which call they make; `calls` builds it and `blocking_connection` makes it.
"""

from __future__ import annotations

from . import calls
from .blocking_connection import Connection
from .blocking_streams import ChatStream, Events, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Literal, Self, overload

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

    from .calls import OnProgress, Params


class Client:
    """A connection to the daemon; one thread's at a time.

    It connects at the first call or on entering it as a context manager, and again after the
    connection was lost. Every method raises `DaemonNotRunning`, `ConnectionLost` or the typed
    error of the daemon. Ctrl-C while waiting closes the connection, which cancels its requests.

    Args:
        socket_path: The daemon's socket; by default the one that the environment names.
        timeout: The longest silence of the daemon, in seconds, that a call or a stream bears
            before it raises `RequestTimeout` and cancels its request; None waits. Events are
            waited for without limit. A load without `on_progress` is silent until it is done.
    """

    def __init__(self, socket_path: str | None = None, timeout: float | None = None) -> None:
        self._connection = Connection(socket_path, timeout)

    def __enter__(self) -> Self:
        self._connection.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the daemon cancels what was asked on it."""
        self._connection.close()

    def call(self, method: str, **params: Any) -> Any:
        """Any method of the protocol; its result as plain JSON values."""
        return self._connection.do(calls.raw(method, params))

    # The daemon.

    def ping(self) -> None:
        """Return when the daemon's own loop has answered."""
        self._connection.do(calls.ping())

    def info(self) -> Info:
        """The daemon's version, devices, formats and catalog."""
        return self._connection.do(calls.info())

    def shutdown(self) -> None:
        """End the daemon."""
        self._connection.do(calls.shutdown())

    def config_get(self, key: str | None = None) -> dict[str, Setting]:
        """All settings, or one, with their sources."""
        return self._connection.do(calls.config_get(key))

    def config_set(self, values: Params, *, persist: bool = True) -> ConfigChange:
        """Change settings, all or none; with `persist` also for the daemon's next start."""
        return self._connection.do(calls.config_set(values, persist))

    def config_unset(self, *keys: str) -> ConfigChange:
        """Take settings back to what file, environment or default say."""
        return self._connection.do(calls.config_unset(keys))

    def events(self, *topics: str) -> Events:
        """Subscribe: iterate over the result for `Event`s. Without topics, to all of them."""
        return Events(self._connection, *self._connection.subscribe(topics))

    # Models.

    def list(self, **filters: Any) -> builtins.list[Model]:
        """The catalog.

        Filters: `format`, `loaded`, `query`, `all` (also what is no usable model), `limit`.
        """
        models, cursor = self._connection.do(calls.list_page(filters, filters.get("cursor")))
        while cursor and "limit" not in filters:
            more, cursor = self._connection.do(calls.list_page(filters, cursor))
            models += more
        return models

    def show(self, model: str) -> ModelDetails:
        """One model with its metadata, template, files and settings."""
        return self._connection.do(calls.show(model))

    def configure(self, model: str, **settings: Any) -> dict[str, Any]:
        """Change a model's lasting settings; returns those it has then.

        Args:
            model: An id, an alias or a unique part of an id.
            **settings: `alias`, `keepalive`, `pin`, `load_options`, `options`, `allow_pickle`,
                `trust_remote_code`; None removes one.
        """
        return self._connection.do(calls.configure(model, settings))

    def resolve(self, model: str) -> str:
        """The full id of a name or a part of it."""
        return self._connection.do(calls.resolve(model))

    def rescan(self, *, on_progress: OnProgress | None = None) -> Rescan:
        """Scan the stores; returns when a complete scan begun after the call is in the catalog."""
        return self._connection.do(calls.rescan(on_progress), on_progress)

    if TYPE_CHECKING:

        @overload
        def load(
            self,
            model: str,
            *,
            load_options: Params | None = ...,
            keepalive: float | str | None = ...,
            pin: bool | None = ...,
            wait: Literal[True] = ...,
            on_progress: OnProgress | None = ...,
            **more_load_options: Any,
        ) -> Loaded: ...

        @overload
        def load(
            self,
            model: str,
            *,
            load_options: Params | None = ...,
            keepalive: float | str | None = ...,
            pin: bool | None = ...,
            wait: Literal[False],
            on_progress: OnProgress | None = ...,
            **more_load_options: Any,
        ) -> Job: ...

    def load(
        self,
        model: str,
        *,
        load_options: Params | None = None,
        keepalive: float | str | None = None,
        pin: bool | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
        **more_load_options: Any,
    ) -> Loaded | Job:
        """Load a model, or join its load.

        Args:
            model: An id, an alias or a unique part of an id.
            load_options: `context_length`, `gpu_layers`, …; may also be given as keywords.
            keepalive: Seconds (`math.inf` or negative: for ever) or a text such as "5m".
            pin: Never evict it.
            wait: False returns the `Job` at once; the load then goes on without this client.
            on_progress: Called with each `Progress`.
        """
        call = calls.load(
            model,
            load_options=load_options,
            more=more_load_options,
            keepalive=keepalive,
            pin=pin,
            on_progress=on_progress,
        )
        if not wait:
            return self._connection.do(calls.load_job(call))
        return self._connection.do(call, on_progress)

    def loaded(self, *, all: bool = False) -> builtins.list[Loaded]:
        """What is in memory or coming up; `all` adds templates and quarantined ones."""
        return self._connection.do(calls.loaded(all))

    def unload(self, model: str, *, force: bool = False) -> Unloaded:
        """Give a model's memory back ("*": all); `force` cancels its running requests."""
        return self._connection.do(calls.unload(model, force))

    def jobs(self) -> builtins.list[Job]:
        """The jobs that the daemon remembers."""
        return self._connection.do(calls.jobs())

    def job(self, job: str | Job) -> Job:
        """One job as it stands."""
        return self._connection.do(calls.job("jobs.get", job))

    def cancel_job(self, job: str | Job) -> Job:
        """Cancel a job, whoever started it."""
        return self._connection.do(calls.job("jobs.cancel", job))

    def wait_job(self, job: str | Job, *, on_progress: OnProgress | None = None) -> Job:
        """Wait for the end of a job."""
        return self._connection.do(calls.job("jobs.wait", job, on_progress), on_progress)

    # Inference.

    if TYPE_CHECKING:

        @overload
        def generate(
            self, model: str, prompt: str, *, stream: Literal[False] = ..., **options: Any
        ) -> Completion: ...

        @overload
        def generate(
            self, model: str, prompt: str, *, stream: Literal[True], **options: Any
        ) -> Stream: ...

    def generate(
        self,
        model: str,
        prompt: str,
        *,
        stream: bool = False,
        **options: Any,
    ) -> Completion | Stream:
        """Complete a text as it stands, without a chat template.

        Args:
            model: An id, an alias or a unique part of an id; loaded if need be.
            prompt: The text.
            stream: Return a `Stream` instead of waiting.
            **options: `max_tokens`, `temperature`, `stop`, … (sampling); beside them
                `load_options`, `context_length` (if it must be loaded), `keepalive`, `timeout`
                (of queue, load and generation together) and `response_format`.
        """
        method, params = calls.inference("generate", model, {"prompt": prompt}, options)
        if stream:
            return Stream(self._connection, self._connection.open_stream(method, params))
        return self._connection.do(calls.completion(method, params))

    if TYPE_CHECKING:

        @overload
        def chat(
            self,
            model: str,
            messages: Sequence[Params],
            *,
            stream: Literal[False] = ...,
            **options: Any,
        ) -> ChatCompletion: ...

        @overload
        def chat(
            self, model: str, messages: Sequence[Params], *, stream: Literal[True], **options: Any
        ) -> ChatStream: ...

    def chat(
        self, model: str, messages: Sequence[Params], *, stream: bool = False, **options: Any
    ) -> ChatCompletion | ChatStream:
        """Answer a conversation.

        Args:
            model: As in `generate`.
            messages: In OpenAI's shape: `[{"role": "user", "content": "…"}]`.
            stream: Return a `ChatStream` instead of waiting.
            **options: As in `generate`, and `tools`, `tool_choice`, `chat_template_kwargs`.
        """
        content = {"messages": [*messages]}
        method, params = calls.inference("chat", model, content, options)
        if stream:
            return ChatStream(self._connection, self._connection.open_stream(method, params))
        return self._connection.do(calls.chat_completion(method, params))

    def embed(
        self,
        model: str,
        input: str | Sequence[str],
        *,
        dimensions: int | None = None,
        normalize: bool | None = None,
        **options: Any,
    ) -> Embeddings:
        """Vectors of texts that are near each other where the texts mean similar things.

        Args:
            model: As in `generate`.
            input: One text, or several.
            dimensions: Keep only so many of each vector.
            normalize: False leaves the vectors' lengths as the model made them.
            **options: `load_options`, `context_length`, `keepalive`, `timeout`.
        """
        call = calls.embed(model, input, dimensions, normalize, options)
        return self._connection.do(call)

    def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        **options: Any,
    ) -> Reranking:
        """How well each document answers the query, the best first; `top_n` keeps the best.

        Args:
            model: As in `generate`.
            query: The question.
            documents: The texts; results name them by their place here.
            top_n: How many results; all by default.
            **options: As in `embed`.
        """
        return self._connection.do(calls.rerank(model, query, documents, top_n, options))

    def tokenize(self, model: str, text: str, *, special: bool | None = None) -> builtins.list[int]:
        """Token ids; `special` also reads special tokens in the text."""
        return self._connection.do(calls.tokenize(model, text, special))

    def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return self._connection.do(calls.detokenize(model, tokens))

    def apply_template(
        self, model: str, messages: Sequence[Params], *, tools: Sequence[Params] | None = None
    ) -> str:
        """The prompt that `chat` would send to the model."""
        return self._connection.do(calls.apply_template(model, messages, tools))

    # The names of the system that hybridd replaces.

    def load_model(self, model: str, **options: Any) -> Loaded:
        """`load` under its old name; a `Loaded` is true."""
        return self.load(model, wait=True, **options)

    def generate_response(self, model: str, prompt: str, **options: Any) -> str:
        """`generate` under its old name; returns the text alone, as it used to."""
        return self.generate(model, prompt, stream=False, **options).text

    def unload_model(self, model: str, **options: Any) -> bool:
        """`unload` under its old name; True when it was loaded."""
        return bool(self.unload(model, **options).unloaded)

    load_model_hybrid = load_model
    generate_response_hybrid = generate_response
    unload_model_hybrid = unload_model
