"""The top: builds every part, owns the root nursery, the signals and the order of shutdown.

Shutdown: stop accepting; end running requests with `shutting_down` and stop the workers; let
connections send what they owe; then everything else is cancelled and the socket goes.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import hybridd.rpc.methods  # noqa: F401  registers the methods
from hybridd.backends import switches
from hybridd.backends.api import Backend
from hybridd.backends.registry import Format, fingerprint, installed_formats
from hybridd.catalog import stores
from hybridd.catalog.database import DATABASE, Database
from hybridd.catalog.library import Library
from hybridd.catalog.settings import CatalogSettings
from hybridd.daemon.configuration import BadConfiguration, Configuration
from hybridd.daemon.events import EventHub
from hybridd.daemon.jobs import Jobs
from hybridd.daemon.settings_file import every_key
from hybridd.daemon.state import StateFile
from hybridd.daemon.web_access import WebAccess
from hybridd.host import journal, sockets
from hybridd.host.gpu import Gpus
from hybridd.host.notify import Notifier
from hybridd.parts import Daemon
from hybridd.processes.host import ProcessHost
from hybridd.rpc.dispatch import Dispatcher
from hybridd.rpc.limits import Limits
from hybridd.rpc.listener import Listener
from hybridd.rpc.registry import REGISTRY
from hybridd.serving.information import Information
from hybridd.serving.kept_states import KeptStates
from hybridd.serving.manager import Manager
from hybridd.serving.memory import MemoryMeter
from hybridd.serving.model_settings import ModelSettings
from hybridd.serving.residency import Residency
from hybridd.serving.warm_templates import WarmTemplates
from hybridd.wire import paths
from hybridd.wire.errors import InvalidParams

if TYPE_CHECKING:
    from hybridd.http.web import Web

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIGURATION = 78  # sysexits.h EX_CONFIG: systemd's RestartPreventExitStatus knows it
EXIT_ALREADY_RUNNING = 75  # sysexits.h EX_TEMPFAIL

# Past this the workers are killed, so that the whole end takes under ten seconds.
CLOSE_S = 6.0


def run(
    environment: Mapping[str, str],
    *,
    config_file: Path | None = None,
    socket_path: str | None = None,
    overrides: list[str] | None = None,
) -> int:
    """Run the daemon until it is told to end; returns the exit code."""
    os.umask(0o077)
    events = EventHub()
    formats = installed_formats()
    try:
        configuration = Configuration(
            environment,
            keys=every_key(formats),
            file=config_file,
            overrides=overrides or (),
            events=events,
        )
        chosen = socket_path or configuration["server.socket"]
        path = (
            paths.check_socket_path(os.path.abspath(os.path.expanduser(chosen)))
            if chosen
            else paths.socket_path(environment)
        )
    except (BadConfiguration, ValueError) as exc:
        print(f"hybridd: the configuration is wrong:\n{exc}", file=sys.stderr)
        return EXIT_CONFIGURATION
    journal.set_up(configuration["log.level"], environment)
    for name, each in formats.items():
        if each.backend is None:
            log.warning("the format %s is left out: %s", name, each.info.reason)
    try:
        activated = sockets.activated_sockets(environment)
        endpoint = sockets.open_endpoint(path, next(iter(activated["rpc"]), None))
    except sockets.AlreadyRunning as exc:
        print(f"hybridd: {exc}", file=sys.stderr)
        return EXIT_ALREADY_RUNNING
    except OSError as exc:
        print(f"hybridd: cannot listen on {path}: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_FAILED
    try:
        app = App(configuration, formats, endpoint, activated["http"], events, environment)
        trio.run(app.run)
    finally:
        endpoint.close()
    return EXIT_OK


class App:
    """All parts of one daemon."""

    def __init__(
        self,
        configuration: Configuration,
        formats: Mapping[str, Format],
        endpoint: sockets.Endpoint,
        activated: Sequence[socket.socket],
        events: EventHub,
        environment: Mapping[str, str],
    ) -> None:
        self.configuration = configuration
        self._environment = environment
        self.events = events
        self.endpoint = endpoint
        self.notifier = Notifier(dict(environment))
        self.jobs = Jobs(events)
        self.gpus = Gpus()
        self._formats = formats
        # Those that are off too: a model that is loaded goes on serving.
        backends = {name: each.backend for name, each in formats.items() if each.backend}
        information = {name: each.info for name, each in formats.items()}
        self.host = ProcessHost(
            configuration["workers.templates"],
            configuration["workers.template_keepalive"],
            configuration["workers.kept_vocabularies"],
        )
        self.library = Library(
            self._catalog_settings(),
            self._publish_catalog,
            departed=lambda record: self.manager.departed(record),
            facts=Database(Path(paths.cache_dir(environment), DATABASE), fingerprint(backends)),
        )
        self.residency = Residency(
            configuration,
            lambda: self.library.snapshot,
            backends,
            self.host,
            lambda workers: MemoryMeter(
                self.gpus,
                configuration.__getitem__,
                workers,
                self.host.template_memory,
                self.host.templates.spare_bytes,
                self.host.templates.lived_on_bytes,
            ),
            events,
            self.jobs,
            KeptStates(Path(paths.cache_dir(environment), "kv"), configuration.__getitem__),
        )
        self.manager = Manager(
            configuration,
            self.library,
            backends,
            information,
            self.host,
            self.residency,
            self.jobs,
            ModelSettings(StateFile(Path(paths.state_dir(environment)) / "models.json")),
        )
        self.library.set_aliases(self.manager.settings.aliases())
        self.information = Information(
            endpoint.path,
            lambda: switches.shown(formats, configuration.__getitem__),
            self.manager,
            self.library,
        )
        self.warm_templates = WarmTemplates(
            self._enabled_backends,
            information,
            self.library,
            self.manager.usable,
            self.residency,
            self.host.templates,
        )
        self._end = trio.Event()
        parts = Daemon(
            self.manager,
            self.library,
            self.jobs,
            events,
            configuration,
            self.information,
            WebAccess(Path(paths.state_dir(environment))),
            self.stop,
        )
        self.listener = Listener(
            endpoint,
            parts,
            Dispatcher(REGISTRY.methods),
            Limits(
                configuration["server.max_line_bytes"],
                configuration["server.slow_consumer_bytes"],
                configuration["server.slow_consumer_seconds"],
            ),
            self.manager.worker_pids,
        )
        self.web = _web(parts, environment, endpoint.path, activated, self.manager.worker_pids)

    def stop(self) -> None:
        """Begin the end, as SIGTERM does."""
        self._end.set()

    async def run(self) -> None:
        """Live until stopped."""
        configuration = self.configuration
        configuration.on_change(self._reconfigure)
        async with trio.open_nursery() as nursery, trio.open_nursery() as connections:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                await nursery.start(self.host.run)
                await nursery.start(self.residency.run)
                await nursery.start(self.listener.serve, connections)
                if self.web is not None:
                    await nursery.start(self.web.run, connections)
                self.notifier.ready(f"scanning; listening on {self.endpoint.path}")
                log.info("ready on %s", self.endpoint.path)
                # Everything so far lives as long as the daemon: no collection has to look at it.
                gc.collect()
                gc.freeze()
                nursery.start_soon(self._take_signals, signals)
                nursery.start_soon(self._notify)
                nursery.start_soon(trio.to_thread.run_sync, self.gpus.open)
                await nursery.start(self.library.run)
                if configuration["workers.templates"] == "always":
                    nursery.start_soon(self.warm_templates.start_all)
                # One that leaves when it is idle at once would be up in vain.
                elif configuration["workers.template_keepalive"] != 0:
                    nursery.start_soon(self.warm_templates.run)
                await self._end.wait()
                await self._shut_down()
            connections.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        self.gpus.close()
        self.notifier.close()
        log.info("ended")

    # ---------------------------------------------------------------- inside

    async def _shut_down(self) -> None:
        log.info("stopping")
        self.notifier.stopping()
        self.listener.stop_accepting()
        if self.web is not None:
            self.web.stop_accepting()
        with trio.move_on_after(CLOSE_S):
            await self.residency.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listener.drain)
            if self.web is not None:
                nursery.start_soon(self.web.drain)

    async def _take_signals(self, signals: Any) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self.notifier.reloading()
                try:
                    changed = self.configuration.reload()["changed"]
                    log.info("reloaded; changed: %s", ", ".join(changed) or "nothing")
                except InvalidParams as exc:
                    log.error("not reloaded: %s", exc.message)
                self.notifier.ready(self.information.status_line())
            else:
                self.stop()

    async def _notify(self) -> None:
        """Keep systemd's status line and watchdog fed, through the loop that schedules."""
        interval = min(5.0, (self.notifier.watchdog_s or 10.0) / 2)
        while True:
            await self.manager.ping()
            self.notifier.alive()
            self.notifier.status(self.information.status_line())
            await trio.sleep(interval)

    def _enabled_backends(self) -> dict[str, Backend]:
        return switches.enabled(self._formats, self.configuration.__getitem__)

    def _catalog_settings(self) -> CatalogSettings:
        configuration = self.configuration
        return CatalogSettings(
            self._enabled_backends(),
            configuration.model_dirs(),
            demo=configuration["catalog.demo"],
            settle_s=configuration["catalog.settle_seconds"],
            reconcile_s=configuration["catalog.reconcile_minutes"] * 60,
            external=stores.external(configuration.__getitem__, self._environment),
        )

    def _publish_catalog(self, topic: str, type: str, **data: Any) -> None:
        self.events.publish(topic, type, **data)
        # What else changed of a model (an alias, another location) is not in memory.
        if type == "removed" or "files" in data.get("changed", ()):
            self.manager.files_changed(data["id"])
        self.warm_templates.look()

    def _reconfigure(self, changed: set[str]) -> None:
        c = self.configuration
        if "log.level" in changed:
            journal.set_level(c["log.level"])
        if any(key.startswith(("catalog.", "formats.")) for key in changed):
            self.library.reconfigure(self._catalog_settings())
        if self.web is not None:
            self.web.reconfigure(changed)


def _web(
    parts: Daemon,
    environment: Mapping[str, str],
    rpc_socket: str,
    activated: Sequence[socket.socket],
    workers: Callable[[], Collection[int]],
) -> Web | None:
    """The HTTP gateway, where its extra is installed."""
    try:
        from hybridd.http.web import Web
    except ModuleNotFoundError as exc:
        if exc.name != "h11":
            raise
        parts.web.problem = "h11 is not installed: pip install 'hybridd[http]'"
        return None
    return Web(parts, environment, rpc_socket, activated, workers)
