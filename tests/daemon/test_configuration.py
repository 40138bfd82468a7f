"""The settings in force: layers, changes at run time, what lasts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hybridd.daemon.configuration import BadConfiguration, Configuration
from hybridd.daemon.events import EventHub
from hybridd.daemon.state import StateFile
from hybridd.wire.errors import InvalidParams


class Place:
    """A user's directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "config" / "hybridd" / "hybridd.toml"
        self.state = root / "state" / "hybridd" / "settings.json"
        self.environment = {
            "HOME": str(root),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_STATE_HOME": str(root / "state"),
        }

    def write(self, text: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text)

    def start(self, *, flags: Any = (), **environment: str) -> Configuration:
        return Configuration({**self.environment, **environment}, overrides=flags)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


KEY = "limits.max_loaded"


def test_the_sources_go_before_each_other_as_the_design_says(place: Place) -> None:
    assert place.start().get(KEY)[KEY]["source"] == "default"
    place.write("[limits]\nmax_loaded = 1")
    assert place.start()[KEY] == 1
    assert place.start(HYBRIDD_LIMITS_MAX_LOADED="2")[KEY] == 2
    place.start().set({KEY: 3}, persist=True)
    again = place.start(HYBRIDD_LIMITS_MAX_LOADED="2")
    assert (again[KEY], again.get(KEY)[KEY]["source"]) == (3, "runtime")
    again = place.start(flags=[f"{KEY}=4"], HYBRIDD_LIMITS_MAX_LOADED="2")
    assert (again[KEY], again.get(KEY)[KEY]["source"]) == (4, "flag")
    assert again.set({KEY: 5}, persist=True)["overridden_by_flag"] == [KEY]
    assert again[KEY] == 4


def test_all_problems_of_all_sources_at_once(place: Place) -> None:
    place.write('[limits]\nmax_loaded = -1\nmax_lode = 1\n[log]\nlevel = "loud"')
    with pytest.raises(BadConfiguration) as caught:
        place.start(flags=["nonsense", "log.level=x"], HYBRIDD_CATALOG_DEMO="perhaps")
    problems = caught.value.problems
    assert len(problems) == 6
    text = str(caught.value)
    for part in (
        "flag: nonsense: takes KEY=VALUE",
        'environment: HYBRIDD_CATALOG_DEMO: takes true or false, got "perhaps"',
        f"{place.file}: limits.max_loaded: takes an integer from 0 to 1000, got -1",
        "limits.max_lode: no such name; did you mean 'limits.max_loaded'?",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[limits", "is no TOML"),
        (b"\xff", "is no TOML"),
        (b"a = " + b"[" * 100_000, "is no TOML"),
        (b"#" * (1024 * 1024 + 1), "has more than"),
        (b"[limits]\nmax_loaded = nan", "takes an integer"),
        (b"[server]\nslow_consumer_seconds = inf", "takes a number from 1"),
        (b"[models]\nkeepalive = 2020-01-01", "takes a number of seconds"),
    ],
)  # fmt: skip
def test_a_bad_file(place: Place, content: bytes, problem: str) -> None:
    place.write("")
    place.file.write_bytes(content)
    with pytest.raises(BadConfiguration, match=problem):
        place.start()


def test_a_file_that_was_named_has_to_be_there(place: Place) -> None:
    assert place.start()[KEY] == 0, "the usual one need not be"
    with pytest.raises(BadConfiguration, match="there is no such file"):
        place.start(HYBRIDD_CONFIG=str(place.root / "missing"))
    with pytest.raises(BadConfiguration, match="cannot be read"):
        Configuration(place.environment, file=place.root)
    other = place.root / "other.toml"
    other.write_text("[limits]\nmax_loaded = 9")
    assert place.start(HYBRIDD_CONFIG=str(other))[KEY] == 9


# -------------------------------------------------------------------- config.get, set, unset


def test_get(place: Place) -> None:
    configuration = place.start(MODEL_KEEPALIVE_MINUTES="-1")
    everything = configuration.get()
    json.dumps(everything, allow_nan=False)
    assert everything["models.keepalive"]["value"] == -1
    assert everything["models.keepalive"]["source"] == "environment"
    assert everything["server.socket"]["live"] is False
    assert all(setting["description"] for setting in everything.values())
    with pytest.raises(InvalidParams, match=r"did you mean 'limits\.max_loaded'"):
        configuration.get("limits.max_lode")


def test_set_is_all_or_nothing(place: Place) -> None:
    configuration = place.start()
    heard: list[set[str]] = []
    configuration.on_change(heard.append)
    with pytest.raises(InvalidParams) as caught:
        configuration.set({KEY: 5, "log.level": "loud", "log.levl": 1}, persist=True)
    assert caught.value.data["field"] == "log.level"
    assert len(caught.value.data["problems"]) == 2
    assert 'log.level: takes one of "debug"' in caught.value.message
    assert configuration[KEY] == 0
    assert heard == []
    assert not place.state.exists()


def test_set_tells_what_changed_and_who_has_to_know(place: Place) -> None:
    hub = EventHub()
    subscription = hub.subscribe(["config"], lambda: None)
    configuration = Configuration(place.environment, events=hub)
    heard: list[set[str]] = []
    configuration.on_change(heard.append)
    changed = configuration.set({KEY: 5, "server.socket": "/x", "log.level": "info"}, persist=False)
    assert changed == {"changed": [KEY, "server.socket"], "restart_needed": ["server.socket"]}
    assert heard == [{KEY}]
    event, _ = subscription.take()
    assert event is not None
    assert (event["type"], event["keys"]) == ("changed", [KEY, "server.socket"])
    assert configuration.set({KEY: 5}, persist=False)["changed"] == []
    assert not subscription.waiting


def test_what_is_persisted_outlives_a_restart_and_the_rest_does_not(place: Place) -> None:
    configuration = place.start()
    configuration.set({KEY: 5, "models.keepalive": "-1"}, persist=True)
    configuration.set({"limits.max_queue": 7}, persist=False)
    configuration.set({"limits": {"ram_max": "5GB"}}, persist=True)
    assert configuration["limits.max_queue"] == 7
    again = place.start()
    assert (again[KEY], again["models.keepalive"], again["limits.ram_max"]) == (5, math.inf, "5GB")
    assert again["limits.max_queue"] == 512


def test_unset(place: Place) -> None:
    configuration = place.start(HYBRIDD_LIMITS_MAX_LOADED="2")
    configuration.set({KEY: 5, "limits.max_queue": 7}, persist=True)
    assert configuration.unset([KEY]) == {"changed": [KEY], "restart_needed": []}
    assert configuration[KEY] == 2
    assert place.start()[KEY] == 0
    assert place.start()["limits.max_queue"] == 7
    assert configuration.unset([KEY])["changed"] == []
    with pytest.raises(InvalidParams):
        configuration.unset(["limits.max_queue", "nonsense"])
    assert configuration["limits.max_queue"] == 7


class ReadOnly(StateFile):
    """A state directory that cannot be written."""

    def write(self, text: str) -> None:
        raise PermissionError(13, "Permission denied")


def test_a_state_directory_that_cannot_be_written(place: Place) -> None:
    configuration = Configuration(place.environment, state=ReadOnly(place.state))
    with pytest.raises(InvalidParams) as caught:
        configuration.set({KEY: 5}, persist=True)
    assert caught.value.data["field"] == "persist"
    assert configuration[KEY] == 0, "nothing was changed"
    configuration.set({KEY: 5}, persist=False)
    assert configuration[KEY] == 5
    configuration.unset([KEY])
    assert configuration[KEY] == 0


def test_a_value_that_an_older_version_kept_is_no_obstacle(place: Place) -> None:
    place.state.parent.mkdir(parents=True)
    place.state.write_text(json.dumps({KEY: 5, "old.key": 1, "log.level": "loud", "x": {"y": 1}}))
    configuration = place.start()
    assert (configuration[KEY], configuration["log.level"]) == (5, "info")
    place.state.write_text("{")
    assert place.start()[KEY] == 0


# -------------------------------------------------------------------- reload


def test_reload(place: Place) -> None:
    place.write("[limits]\nmax_loaded = 1")
    configuration = place.start()
    heard: list[set[str]] = []
    configuration.on_change(heard.append)
    place.write("[limits]\nmax_loaded = 2\n[server]\nmax_line_bytes = 5000")
    assert configuration.reload() == {
        "changed": [KEY, "server.max_line_bytes"], "restart_needed": ["server.max_line_bytes"],
    }  # fmt: skip
    assert heard == [{KEY}]
    place.write("[limits]\nmax_loaded = 3\nmax_queue = 0\n[log]\nlevel = 1")
    with pytest.raises(InvalidParams) as caught:
        configuration.reload()
    assert len(caught.value.data["problems"]) == 2
    assert configuration[KEY] == 2, "a bad file changes nothing"
    place.file.unlink()
    assert configuration.reload()["changed"] == [KEY, "server.max_line_bytes"]
    assert configuration[KEY] == 0


def test_reload_does_not_forget_what_was_set(place: Place) -> None:
    configuration = place.start()
    configuration.set({KEY: 5}, persist=False)
    place.write("[limits]\nmax_loaded = 2")
    assert configuration.reload()["changed"] == []
    assert configuration[KEY] == 5


# -------------------------------------------------------------------- model_dirs


@pytest.mark.parametrize(
    ("texts", "environment", "made"),
    [
        (["$XDG_DATA_HOME/hybridd/models"], {}, ["~/.local/share/hybridd/models"]),
        (["$XDG_DATA_HOME/hybridd/models"], {"XDG_DATA_HOME": "/d"}, ["/d/hybridd/models"]),
        (["$XDG_DATA_HOME/x"], {"XDG_DATA_HOME": "relative"}, ["~/.local/share/x"]),
        (["~", "~/m", "$HOME/m", "${HOME}/m/"], {}, ["~", "~/m"]),
        (["/a/$WHO/${WHO}s"], {"WHO": "me"}, ["/a/me/mes"]),
        (["/a/$NOBODY/${NOBODY}"], {}, ["/a/$NOBODY/${NOBODY}"]),
        (["/a/$TWICE"], {"TWICE": "${HOME}"}, ["/a/${HOME}"]),
        (["/a/~", "/a/../b", "/b/", "/b"], {}, ["/a/~", "/b"]),
    ],
)
def test_model_dirs(
    place: Place, texts: list[str], environment: dict[str, str], made: list[str]
) -> None:
    configuration = place.start(**environment)
    configuration.set({"catalog.model_dirs": texts}, persist=False)
    home = str(place.root)
    expected = [Path(home + text[1:] if text.startswith("~") else text) for text in made]
    assert configuration.model_dirs() == expected


def test_external_models_dir_adds(place: Place) -> None:
    configuration = place.start(EXTERNAL_MODELS_DIR="/e:~/f")
    assert configuration.model_dirs()[1:] == [Path("/e"), place.root / "f"]


def test_a_map_lasts_and_is_found_in_every_source(place: Place) -> None:
    name, value = "http.model_map", {"claude-*": "qwen"}
    place.write('[http.model_map]\n"claude-*" = "qwen"\n')
    assert place.start()[name] == value
    assert place.start(HYBRIDD_HTTP_MODEL_MAP="a=b")[name] == {"a": "b"}
    assert place.start(flags=[f"{name}=claude-*=qwen"])[name] == value
    running = place.start(HYBRIDD_HTTP_MODEL_MAP="a=b")
    running.set({name: value}, persist=True)
    assert running[name] == value
    assert place.start(HYBRIDD_HTTP_MODEL_MAP="a=b")[name] == value
