"""Results that have no record in `wire/types`, for clients take them apart at once.

They describe, for `rpc.discover`; nothing is made of them.
"""

from __future__ import annotations

from typing import Any

from hybridd.wire import types
from hybridd.wire.record import Record


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


class HttpToken(Record):
    """The HTTP gateway's token.

    Attributes:
        token: For the header `Authorization: Bearer TOKEN`.
        needed: Whether requests over TCP need it.
    """

    token: str = ""
    needed: bool = True


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
