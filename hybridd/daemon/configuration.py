"""The settings in force: reads the layers, takes changes at run time, tells who has to know.

What settings there are is handed in (`core/keys` and the formats' switches); this module knows
where their values lie and owns the one `Settings` that the daemon runs with.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hybridd.core import settings as core
from hybridd.core.keys import KEYS
from hybridd.daemon.events import EventHub
from hybridd.daemon.state import StateFile
from hybridd.wire import paths
from hybridd.wire.errors import InvalidParams

MAX_FILE_BYTES = 1024 * 1024
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


class BadConfiguration(Exception):
    """All problems of the start's sources at once, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Configuration:
    """The layers and what they make together."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        keys: core.Keys = KEYS,
        file: Path | None = None,
        overrides: Iterable[str] = (),
        state: StateFile | None = None,
        events: EventHub | None = None,
    ) -> None:
        """Read every source.

        Args:
            keys: What settings there are.
            file: Instead of the usual one; it has to exist.
            overrides: `KEY=VALUE`, of the command line.
            state: Where values that are set at run time last.

        Raises:
            BadConfiguration: With the problems of all sources.
        """
        self._keys = keys
        self._environment = environment
        self._file = file or Path(
            environment.get("HYBRIDD_CONFIG") or paths.config_file(environment)
        )
        self._must_exist = file is not None or bool(environment.get("HYBRIDD_CONFIG"))
        self._state = state or StateFile(Path(paths.state_dir(environment)) / "settings.json")
        self._events = events
        self._listeners: list[Callable[[set[str]], None]] = []
        self._layers: dict[str, core.Layer] = {"flag": core.read_flags(keys, overrides)}
        self._layers["environment"] = core.read_environment(keys, environment)
        self._layers["runtime"] = core.read_table(self._keys, self._state.read())
        # A value that an older version persisted must not keep the daemon from starting.
        self._layers["runtime"].problems.clear()
        self._persisted = dict(self._layers["runtime"].values)
        self._layers["file"] = self._read_file()
        problems = [
            f"{source}: {problem}"
            for source, name in (
                ("flag", "flag"),
                ("environment", "environment"),
                (str(self._file), "file"),
            )
            for problem in self._layers[name].problems
        ]
        if problems:
            raise BadConfiguration(problems)
        self.settings = core.resolve(self._keys, self._layers)

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    def on_change(self, listener: Callable[[set[str]], None]) -> None:
        """Call `listener` with the names of changed keys, after each change."""
        self._listeners.append(listener)

    def get(self, key: str | None = None) -> dict[str, Any]:
        """`config.get`'s values.

        Raises:
            InvalidParams: No such key.
        """
        if key is not None:
            self._known([key])
        return {
            name: {
                "value": core.on_wire(self.settings.values[name]),
                "source": self.settings.sources[name],
                "live": known.live,
                "description": known.description,
            }
            for name, known in self._keys.items()
            if key in (None, name)
        }

    def set(self, values: Mapping[str, Any], *, persist: bool) -> dict[str, Any]:
        """Set values at run time, all or none.

        Raises:
            InvalidParams: A key or a value is bad; nothing was changed.
        """
        layer = core.read_table(self._keys, values)
        if layer.problems:
            raise InvalidParams(
                "; ".join(layer.problems),
                field=layer.problems[0].split(":")[0],
                reason=layer.problems[0],
                problems=layer.problems,
            )
        runtime = self._layers["runtime"].values
        if persist:
            self._persist({**self._persisted, **layer.values})
        self._layers["runtime"].values = {**runtime, **layer.values}
        # A flag of this start goes before: the value is kept, and counts from the next start on.
        overridden = sorted(n for n in layer.values if n in self._layers["flag"].values)
        return {**self._apply(), **({"overridden_by_flag": overridden} if overridden else {})}

    def unset(self, keys: Iterable[str]) -> dict[str, Any]:
        """Forget values that were set at run time.

        Raises:
            InvalidParams: No such key.
        """
        keys = list(keys)
        self._known(keys)
        self._persist({k: v for k, v in self._persisted.items() if k not in keys})
        runtime = self._layers["runtime"].values
        self._layers["runtime"].values = {k: v for k, v in runtime.items() if k not in keys}
        return self._apply()

    def reload(self) -> dict[str, Any]:
        """Read the file again; a bad file changes nothing.

        Raises:
            InvalidParams: With every problem of the file.
        """
        layer = self._read_file()
        if layer.problems:
            raise InvalidParams(
                f"{self._file.name}: " + "; ".join(layer.problems),
                field=layer.problems[0].split(":")[0],
                reason=layer.problems[0],
                problems=layer.problems,
            )
        self._layers["file"] = layer
        return self._apply()

    def model_dirs(self) -> list[Path]:
        """`catalog.model_dirs` with ~ and variables expanded, each once."""
        base = {
            "XDG_DATA_HOME": str(Path(paths.models_dir(self._environment)).parent.parent),
            "HOME": self._environment.get("HOME") or os.path.expanduser("~"),
        }
        directories: dict[Path, None] = {}
        known = {**self._environment, **base}
        for text in self.settings["catalog.model_dirs"]:
            if text == "~" or text.startswith("~/"):
                text = base["HOME"] + text[1:]
            # What is no known variable stays as it is: a directory may be called so.
            text = _VARIABLE.sub(lambda match: known.get(match[1] or match[2], match[0]), text)
            directories[Path(os.path.abspath(text))] = None
        return list(directories)

    # ---------------------------------------------------------------- inside

    def _known(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._keys:
                reason = core.unknown(key, self._keys)
                raise InvalidParams(f"{key}: {reason}", field=key, reason=reason)

    def _read_file(self) -> core.Layer:
        layer = core.Layer()
        try:
            with open(self._file, "rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            if self._must_exist:
                layer.problems.append("there is no such file")
            return layer
        except OSError as exc:
            layer.problems.append(f"cannot be read: {exc.strerror}")
            return layer
        if len(text) > MAX_FILE_BYTES:
            layer.problems.append(f"has more than {MAX_FILE_BYTES} bytes")
            return layer
        try:
            return core.read_table(self._keys, tomllib.loads(text.decode("utf-8")))
        except (ValueError, RecursionError) as exc:
            layer.problems.append(f"is no TOML: {exc}")
            return layer

    def _persist(self, values: dict[str, Any]) -> None:
        if values == self._persisted:
            return
        try:
            self._state.write(core.dump_runtime(values))
        except OSError as exc:
            raise InvalidParams(
                f"the values cannot be kept across restarts ({exc.strerror}); "
                "set them with persist false",
                field="persist",
                reason="the state directory is not writable",
            ) from None
        self._persisted = values

    def _apply(self) -> dict[str, Any]:
        before, self.settings = self.settings, core.resolve(self._keys, self._layers)
        changed = {n for n, v in self.settings.values.items() if v != before.values[n]}
        live = {n for n in changed if self._keys[n].live}
        for listener in self._listeners:
            listener(live)
        if changed and self._events is not None:
            self._events.publish("config", "changed", keys=sorted(changed))
        return {"changed": sorted(changed), "restart_needed": sorted(changed - live)}
