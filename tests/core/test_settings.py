"""Every setting, from every source, in the right order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hybridd.core import settings as core
from hybridd.core.fields import Bool
from hybridd.core.keys import KEYS as OWN
from hybridd.core.keys import Key
from hybridd.core.settings import Layer, read_environment, read_flags, read_table, resolve

FORMATS = (
    Key("formats.one", Bool(), True, "List the first.", variable="ENABLE_ONE_MODELS"),
    Key("formats.other", Bool(), False, "List the other."),
)
KEYS = {**OWN, **{key.name: key for key in FORMATS}}


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)
def test_each_key(key: core.Key) -> None:
    assert key.field.check(key.default) == key.default, "the default is one it takes"
    assert key.environment == "HYBRIDD_" + key.name.upper().replace(".", "_")
    assert key.description
    bad = read_table(KEYS, _nested(key.name))
    assert len(bad.problems) == 1
    assert bad.problems[0].startswith(f"{key.name}: takes ")
    assert bad.values == {}


def _nested(name: str) -> dict[str, Any]:
    section, key = name.split(".")
    return {section: {key: {"no": {}}}}


def test_all_problems_are_found_at_once() -> None:
    layer = read_table(
        KEYS,
        {
            "catalog": {"demo": "yes", "settle_seconds": -1, "model_dir": []},
            "limits": {"max_loaded": True},
            "catalgo": {},
            "log.level": "loud",
            "models": 7,
        },
    )
    problems = "\n".join(layer.problems)
    assert 'catalog.demo: takes true or false, got "yes"' in problems
    assert "catalog.settle_seconds: takes a number from 0 to 3600, got -1" in problems
    assert "catalog.model_dir: no such name; did you mean 'catalog.model_dirs'?" in problems
    assert "limits.max_loaded: takes an integer from 0 to 1000, got true" in problems
    assert "catalgo: no such name; did you mean 'catalog'?" in problems
    assert 'log.level: takes one of "debug", "info", "warning", "error", got "loud"' in problems
    assert "models: no such name" in problems
    assert len(layer.problems) == 7


# -------------------------------------------------------------------- environment


@pytest.mark.parametrize(
    ("environment", "name", "value"),
    [
        ({"HYBRIDD_LIMITS_MAX_LOADED": "3"}, "limits.max_loaded", 3),
        ({"HYBRIDD_CATALOG_MODEL_DIRS": "/a:/b"}, "catalog.model_dirs", ["/a", "/b"]),
        ({"HYBRIDD_MODELS_KEEPALIVE": "5m"}, "models.keepalive", 300.0),
        ({"HYBRIDD_MODELS_KEEPALIVE": "-1"}, "models.keepalive", math.inf),
        ({"HYBRIDD_LIMITS_RAM_MAX": "80%"}, "limits.ram_max", "80%"),
        ({"HYBRIDD_LIMITS_RAM_MAX": "1024"}, "limits.ram_max", 1024),
        ({"HYBRIDD_FORMATS_OTHER": "off"}, "formats.other", False),
        ({"HYBRIDD_LOG_LEVEL": "debug"}, "log.level", "debug"),
        ({"ENABLE_ONE_MODELS": "false"}, "formats.one", False),
        ({"ENABLE_ONE_MODELS": "1"}, "formats.one", True),
        ({"ENABLE_SMART_SWITCHING": "False"}, "models.smart_switching", False),
        ({"MODEL_KEEPALIVE_MINUTES": "10"}, "models.keepalive", 600.0),
        ({"MODEL_KEEPALIVE_MINUTES": "0"}, "models.keepalive", 0.0),
        ({"MODEL_KEEPALIVE_MINUTES": "-1"}, "models.keepalive", math.inf),
        ({"MODEL_KEEPALIVE_MINUTES": "0.5"}, "models.keepalive", 30.0),
        # The specific name goes before the bare one.
        (
            {"ENABLE_ONE_MODELS": "0", "HYBRIDD_FORMATS_ONE": "1"},
            "formats.one",
            True,
        ),
    ],
)
def test_environment(environment: dict[str, str], name: str, value: Any) -> None:
    layer = read_environment(KEYS, environment)
    assert layer.problems == []
    assert resolve(KEYS, {"environment": layer})[name] == value
    assert resolve(KEYS, {"environment": layer}).sources[name] == "environment"


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"HYBRIDD_LIMITS_MAX_LODED": "3"}, "did you mean 'HYBRIDD_LIMITS_MAX_LOADED'?"),
        ({"HYBRIDD_NONSENSE": "3"}, "HYBRIDD_NONSENSE: no such name"),
        ({"HYBRIDD_LIMITS_MAX_LOADED": "many"}, "HYBRIDD_LIMITS_MAX_LOADED: takes an integer from"),
        ({"HYBRIDD_CATALOG_MODEL_DIRS": "[1"}, "HYBRIDD_CATALOG_MODEL_DIRS: takes a list"),
        ({"ENABLE_ONE_MODELS": "perhaps"}, 'ENABLE_ONE_MODELS: takes true or false, got "perh'),
        ({"MODEL_KEEPALIVE_MINUTES": "soon"}, "MODEL_KEEPALIVE_MINUTES: takes a number of minutes"),
        ({"MODEL_KEEPALIVE_MINUTES": "nan"}, "MODEL_KEEPALIVE_MINUTES: takes a number of minutes"),
        ({"MODEL_KEEPALIVE_MINUTES": "inf"}, "MODEL_KEEPALIVE_MINUTES: takes a number of minutes"),
        ({"MODEL_KEEPALIVE_MINUTES": "1e300"}, "MODEL_KEEPALIVE_MINUTES: takes a number of minut"),
    ],
)
def test_bad_environment(environment: dict[str, str], problem: str) -> None:
    layer = read_environment(KEYS, environment)
    assert len(layer.problems) == 1
    assert problem in layer.problems[0]
    assert layer.values == {}


def test_a_format_that_is_not_installed() -> None:
    layer = read_table(KEYS, {"formats": {"onne": True}})
    assert layer.problems == ["formats.onne: no such format is installed; there are one, other"]
    layer = read_environment(KEYS, {"HYBRIDD_FORMATS_ONNE": "true"})
    (problem,) = layer.problems
    assert problem == "HYBRIDD_FORMATS_ONNE: no such format is installed; there are one, other"


def test_names_that_are_not_settings_are_left_alone() -> None:
    layer = read_environment(
        KEYS,
        {
            "HYBRIDD_SOCKET": "/x",
            "HYBRIDD_CONFIG": "/y",
            "HOME": "/z",
            "ENABLE_OTHER": "1",
            "ENABLE_ONE_MODELS": "",
        },
    )
    assert (layer.values, layer.problems) == ({}, [])


def test_external_models_dir_adds_to_the_directories_of_any_source() -> None:
    environment = read_environment(KEYS, {"EXTERNAL_MODELS_DIR": "/e1::/e2"})
    assert environment.extra_dirs == ["/e1", "/e2"]
    default = KEYS["catalog.model_dirs"].default
    made = resolve(KEYS, {"environment": environment})
    assert made["catalog.model_dirs"] == [*default, "/e1", "/e2"]
    assert made.sources["catalog.model_dirs"] == "environment"
    file = read_table(KEYS, {"catalog": {"model_dirs": ["/f", "/e1"]}})
    made = resolve(KEYS, {"environment": environment, "file": file})
    assert made["catalog.model_dirs"] == ["/f", "/e1", "/e2"]
    assert KEYS["catalog.model_dirs"].default == ["$XDG_DATA_HOME/hybridd/models"]


# -------------------------------------------------------------------- order


def test_the_order_of_the_sources() -> None:
    def layer(value: int) -> Layer:
        return Layer({"limits.max_loaded": value})

    layers = {"file": layer(1)}
    for number, source in enumerate(("environment", "runtime", "flag"), 2):
        layers[source] = layer(number)
        made = resolve(KEYS, layers)
        assert made["limits.max_loaded"] == number
        assert made.sources["limits.max_loaded"] == source
    assert resolve(KEYS, {}).sources["limits.max_loaded"] == "default"


def test_flags() -> None:
    layer = read_flags(KEYS, ["limits.max_loaded=3", "log.level = debug", "server.socket=/a=b"])
    assert "log.level: takes one of" in layer.problems[0]
    assert layer.values == {"limits.max_loaded": 3, "server.socket": "/a=b"}
    layer = read_flags(KEYS, ["limits.max_loaded", "limits.max_lode=1", "limits.max_queue=0"])
    assert [problem.split(":")[0] for problem in layer.problems] == [
        "limits.max_loaded",
        "limits.max_lode",
        "limits.max_queue",
    ]


def test_what_was_set_at_run_time_survives_its_file() -> None:
    import json

    values = {"models.keepalive": math.inf, "limits.ram_max": "5GB", "catalog.model_dirs": ["/ü"]}
    again = read_table(KEYS, json.loads(core.dump_runtime(values)))
    assert (again.values, again.problems) == (values, [])


def test_for_ever_is_minus_one_on_the_wire() -> None:
    assert core.on_wire(math.inf) == -1
    assert core.on_wire(5.0) == 5.0
