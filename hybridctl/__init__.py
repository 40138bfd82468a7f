"""Client side of hybridd: `Client`, `AsyncClient`, the errors and the typed results.

Names are imported when they are first used, so that `hybridctl ps` does not pay for anyio and
`import hybridctl` stays almost free.

    from hybridctl import Client

    with Client() as client:
        print(client.generate("hybridd/demo-gguf", "Hello", max_tokens=32).text)
"""

from __future__ import annotations

from hybridd import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hybridctl.sdk.asynchronous import AsyncClient
    from hybridctl.sdk.blocking import Client
    from hybridctl.sdk.errors import (
        Busy,
        Cancelled,
        ConnectionLost,
        ContextExceeded,
        DaemonNotRunning,
        DoesNotFit,
        HybriddError,
        InternalError,
        InvalidParams,
        InvalidRequest,
        LineTooLong,
        LoadFailed,
        MethodNotFound,
        ModelAmbiguous,
        ModelInvalid,
        ModelNotFound,
        NotLoaded,
        ParseError,
        Quarantined,
        RequestTimeout,
        ShuttingDown,
        SlowConsumer,
        Unsupported,
        WorkerDied,
    )
    from hybridd.wire.types import (
        ChatCompletion,
        Completion,
        Delta,
        Event,
        Info,
        Job,
        Loaded,
        Model,
        ModelDetails,
        Progress,
    )

__all__ = [
    "AsyncClient",
    "Busy",
    "Cancelled",
    "ChatCompletion",
    "Client",
    "Completion",
    "ConnectionLost",
    "ContextExceeded",
    "DaemonNotRunning",
    "Delta",
    "DoesNotFit",
    "Event",
    "HybriddError",
    "Info",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "Job",
    "LineTooLong",
    "LoadFailed",
    "Loaded",
    "MethodNotFound",
    "Model",
    "ModelAmbiguous",
    "ModelDetails",
    "ModelInvalid",
    "ModelNotFound",
    "NotLoaded",
    "ParseError",
    "Progress",
    "Quarantined",
    "RequestTimeout",
    "ShuttingDown",
    "SlowConsumer",
    "Unsupported",
    "WorkerDied",
    "__version__",
]

# Where a name lives, when it is not one of the errors.
_HOMES = {
    "Client": "hybridctl.sdk.blocking",
    "AsyncClient": "hybridctl.sdk.asynchronous",
} | dict.fromkeys(
    [
        "ChatCompletion",
        "Completion",
        "Delta",
        "Event",
        "Info",
        "Job",
        "Loaded",
        "Model",
        "ModelDetails",
        "Progress",
    ],
    "hybridd.wire.types",
)


if not TYPE_CHECKING:  # it would make a type checker take every name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        home = import_module(_HOMES.get(name, "hybridctl.sdk.errors"))
        value = globals()[name] = getattr(home, name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
