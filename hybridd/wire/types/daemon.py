"""Records of the daemon itself: its jobs, events, settings, and its web API."""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
