"""The daemon's parts, as its faces (`rpc`, `http`) get them: one table, so that both get the same.

Stands above everything it names and below the faces; holds no state and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hybridd.catalog.library import Library
from hybridd.daemon.configuration import Configuration
from hybridd.daemon.events import EventHub
from hybridd.daemon.jobs import Jobs
from hybridd.daemon.web_access import WebAccess
from hybridd.serving.information import Information
from hybridd.serving.manager import Manager


@dataclass(frozen=True, slots=True)
class Daemon:
    """What serves requests, whichever face they come by.

    Attributes:
        web: How the HTTP gateway is reached.
        shutdown: Begins the daemon's end, as SIGTERM does.
    """

    manager: Manager
    library: Library
    jobs: Jobs
    events: EventHub
    configuration: Configuration
    information: Information
    web: WebAccess
    shutdown: Callable[[], None]
