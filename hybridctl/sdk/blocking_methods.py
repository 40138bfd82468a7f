# Made from async_methods.py by `python etc/make/unasync.py`: change that one.
"""What a blocking client can ask: a method for each of the protocol's.

`arguments` packs what the user gives, `wire/types` are what comes back, and the connection carries
both.
"""

from __future__ import annotations

from hybridd.wire.types import (
    ChatCompletion,
    Completion,
    ConfigChange,
    Embeddings,
    HttpLink,
    HttpStatus,
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

from .arguments import duration, inference, job_name, merged, present
from .blocking_streams import ChatStream, Events, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence
    from typing import Any, Literal, TypeVar, overload

    from hybridd.wire.record import Record

    from .arguments import OnProgress, Params
    from .blocking_connection import Connection

    R = TypeVar("R", bound=Record)


class Methods:
    """The protocol's methods over a connection."""

    _connection: Connection

    def call(self, method: str, **params: Any) -> Any:
        """Any method of the protocol; its result as plain JSON values."""
        return self._reply(method, params)

    # The daemon.

    def ping(self) -> None:
        """Return when the daemon's own loop has answered."""
        self._ask("system.ping")

    def info(self) -> Info:
        """The daemon's version, devices, formats and catalog."""
        return self._ask_for(Info, "system.info")

    def shutdown(self) -> None:
        """End the daemon."""
        self._ask("system.shutdown")

    def config_get(self, key: str | None = None) -> dict[str, Setting]:
        """All settings, or one, with their sources."""
        values = (self._ask("config.get", key=key))["values"]
        return {name: Setting.from_wire(value) for name, value in values.items()}

    def config_set(self, values: Params, *, persist: bool = True) -> ConfigChange:
        """Change settings, all or none; with `persist` also for the daemon's next start."""
        kept = None if persist else False
        return self._ask_for(ConfigChange, "config.set", values=values, persist=kept)

    def config_unset(self, *keys: str) -> ConfigChange:
        """Take settings back to what file, environment or default say."""
        return self._ask_for(ConfigChange, "config.unset", keys=[*keys])

    def config_reload(self) -> ConfigChange:
        """Read the daemon's configuration file again."""
        return self._ask_for(ConfigChange, "system.reload")

    def http_status(self) -> HttpStatus:
        """Where the HTTP gateway listens; `config_set({"http.listen": …})` changes it."""
        return self._ask_for(HttpStatus, "http.status")

    def http_token(self, *, renew: bool = False) -> str:
        """The token for the header `Authorization: Bearer TOKEN`; `renew` makes a new one."""
        return str((self._ask("http.token", renew=renew or None))["token"])

    def http_link(self) -> HttpLink:
        """A link that opens the gateway's page in a browser once."""
        return self._ask_for(HttpLink, "http.link")

    def events(self, *topics: str) -> Events:
        """Subscribe: iterate over the result for `Event`s. Without topics, to all of them."""
        return self._connection.opened(Events(self._connection, topics))

    # Models.

    def list(self, **filters: Any) -> builtins.list[Model]:
        """The catalog.

        Filters: `format`, `loaded`, `query`, `all` (also what is no usable model), `limit`.
        """
        models: builtins.list[Model] = []
        while True:
            page = self._ask("models.list", **filters)
            models += [Model.from_wire(model) for model in page["models"]]
            filters["cursor"] = page.get("next_cursor")
            if not filters["cursor"] or "limit" in filters:
                return models

    def show(self, model: str) -> ModelDetails:
        """One model with its metadata, template, files and settings."""
        return self._ask_for(ModelDetails, "models.show", model=model)

    def configure(self, model: str, **settings: Any) -> dict[str, Any]:
        """Change a model's lasting settings; returns those it has then.

        Args:
            model: An id, an alias or a unique part of an id.
            **settings: `alias`, `keepalive`, `pin`, `load_options`, `options`, `allow_pickle`,
                `trust_remote_code`; None removes one.
        """
        if "keepalive" in settings:
            settings["keepalive"] = duration(settings["keepalive"])
        return dict(self._reply("models.configure", {"model": model, **settings}))

    def resolve(self, model: str) -> str:
        """The full id of a name or a part of it."""
        return str((self._ask("models.resolve", model=model))["id"])

    def rescan(self, *, on_progress: OnProgress | None = None) -> Rescan:
        """Scan the stores; returns when a complete scan begun after the call is in the catalog."""
        return self._ask_for(Rescan, "models.rescan", on_progress)

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
        params: Params = {
            "model": model,
            "load_options": merged(load_options, more_load_options),
            "keepalive": duration(keepalive),
            "pin": pin,
        }
        if not wait:
            return self._ask_for(Job, "models.load", **params, wait=False)
        return self._ask_for(Loaded, "models.load", on_progress, **params)

    def loaded(self, *, all: bool = False) -> builtins.list[Loaded]:
        """What is in memory or coming up; `all` adds templates and quarantined ones."""
        result = self._ask("models.loaded", all=all or None)
        return [Loaded.from_wire(one) for one in result["models"]]

    def unload(self, model: str, *, force: bool = False) -> Unloaded:
        """Give a model's memory back ("*": all); `force` cancels its running requests."""
        return self._ask_for(Unloaded, "models.unload", model=model, force=force or None)

    def jobs(self) -> builtins.list[Job]:
        """The jobs that the daemon remembers."""
        return [Job.from_wire(job) for job in (self._ask("jobs.list"))["jobs"]]

    def job(self, job: str | Job) -> Job:
        """One job as it stands."""
        return self._ask_for(Job, "jobs.get", job=job_name(job))

    def cancel_job(self, job: str | Job) -> Job:
        """Cancel a job, whoever started it."""
        return self._ask_for(Job, "jobs.cancel", job=job_name(job))

    def wait_job(self, job: str | Job, *, on_progress: OnProgress | None = None) -> Job:
        """Wait for the end of a job."""
        return self._ask_for(Job, "jobs.wait", on_progress, job=job_name(job))

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
        params = inference(options, model=model, prompt=prompt)
        if stream:
            return self._connection.opened(Stream(self._connection, "generate", params))
        return self._ask_for(Completion, "generate", **params)

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
        params = inference(options, model=model, messages=[*messages])
        if stream:
            return self._connection.opened(ChatStream(self._connection, "chat", params))
        return self._ask_for(ChatCompletion, "chat", **params)

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
        texts = input if isinstance(input, str) else [*input]
        params = inference(
            options, model=model, input=texts, dimensions=dimensions, normalize=normalize
        )
        return self._ask_for(Embeddings, "embed", **params)

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
        params = inference(options, model=model, query=query, documents=[*documents], top_n=top_n)
        return self._ask_for(Reranking, "rerank", **params)

    def tokenize(
        self, model: str, text: str, *, special: bool | None = None, **options: Any
    ) -> builtins.list[int]:
        """Token ids; `special` also reads special tokens in the text; `options` as in `embed`."""
        params = inference(options, model=model, text=text, special=special)
        return [*(self._ask("tokenize", **params))["tokens"]]

    def detokenize(self, model: str, tokens: Sequence[int], **options: Any) -> str:
        """The text of token ids; `options` as in `embed`."""
        params = inference(options, model=model, tokens=[*tokens])
        return str((self._ask("detokenize", **params))["text"])

    def apply_template(
        self,
        model: str,
        messages: Sequence[Params],
        *,
        tools: Sequence[Params] | None = None,
        **options: Any,
    ) -> str:
        """The prompt that `chat` would send to the model.

        Args:
            model: As in `generate`.
            messages: As in `chat`.
            tools: As in `chat`.
            **options: As in `embed`, and `chat_template_kwargs`.
        """
        params = inference(options, model=model, messages=[*messages], tools=tools and [*tools])
        return str((self._ask("apply_template", **params))["prompt"])

    # The names of the system that hybridd replaces.

    def load_model(self, model: str, **options: Any) -> Loaded:
        """`load` under its old name; a `Loaded` is true."""
        return self.load(model, wait=True, **options)

    def generate_response(self, model: str, prompt: str, **options: Any) -> str:
        """`generate` under its old name; returns the text alone, as it used to."""
        return (self.generate(model, prompt, stream=False, **options)).text

    def unload_model(self, model: str, **options: Any) -> bool:
        """`unload` under its old name; True when it was loaded."""
        return bool((self.unload(model, **options)).unloaded)

    load_model_hybrid = load_model
    generate_response_hybrid = generate_response
    unload_model_hybrid = unload_model

    # How they ask.

    def _reply(self, method: str, params: Params, on_progress: OnProgress | None = None) -> Any:
        """The result of a request. Whatever interrupts the wait cancels it."""
        id = self._connection.open(method, params)
        return self._connection.reply(id, on_progress)

    def _ask(self, method: str, on_progress: OnProgress | None = None, /, **params: Any) -> Any:
        """The result of a request with those of the params that are not None."""
        progress = None if on_progress is None else True
        return self._reply(method, present({"progress": progress, **params}), on_progress)

    def _ask_for(
        self, kind: type[R], method: str, on_progress: OnProgress | None = None, /, **params: Any
    ) -> R:
        return kind.from_wire(self._ask(method, on_progress, **params))
