"""`doctor --catalog` and `list --group` against the scripted daemon: what a person reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybridctl.cli import main
from hybridctl.cli.commands.doctor import duplicates
from hybridd.wire.types import Model

GB = 1_000_000_000


def model(id: str, path: str, **more: Any) -> dict[str, Any]:
    store = more.pop("store", "local")
    place = {"store": store, "path": path}
    return {
        "id": id,
        "format": "gguf",
        "base": "llama-3-8b",
        "size_bytes": 5 * GB,
        "parameters": 8 * GB,
        "quantization": {"name": "Q4_K_M", "bits_per_weight": 4.8},
        "architecture": "llama",
        "context_length": 8192,
        "capabilities": ["completion"],
        "status": "available",
        "source": place,
        "locations": [place],
        **more,
    }


MODELS = [
    model("p/Llama-3-8B:Q4_K_M", "/m/p/Llama-3-8B/Llama-3-8B-Q4_K_M.gguf"),
    model("p/Llama-3-8B:Q4_K_M@hub", "/hub/x/Llama-3-8B-Q4_K_M.gguf", store="hub"),
    model("p/Llama-3-8B:Q8_0", "/m/p/Llama-3-8B/Llama-3-8B-Q8_0.gguf", size_bytes=8 * GB,
          quantization={"name": "Q8_0"}),
    model("other", "/m/other.gguf", base="other", size_bytes=GB, parameters=7),
    model("broken", "/m/broken.gguf", base="broken", status="invalid", reason="cut: x\x1b[2J"),
]  # fmt: skip
CATALOG = {
    "complete": True,
    "models": 4,
    "watching": "polling",
    "polling_remedy": "fs.inotify.max_user_watches",
    "places": [
        {"store": "local", "path": "/m", "exists": True},
        {"store": "hub", "path": "/hub", "exists": True},
        {"store": "ollama", "path": "/o", "exists": False},
    ],
    "problems": ["/m/closed: Permission denied"],
}


@pytest.fixture
def scripted(daemon: Any) -> Any:
    info = daemon.handlers["system.info"]
    daemon.handlers["system.info"] = lambda call: {**info(call), "catalog": CATALOG}
    daemon.handlers["models.list"] = lambda call: {"models": MODELS, "revision": 7}
    return daemon


def test_doctor_in_words(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--catalog"]) == 0
    out = capsys.readouterr().out
    assert scripted.asked("models.list") == [{"all": True}]
    lines = [line.split() for line in out.splitlines()]
    assert ["local", "3", "14.0", "GB", "1", "/m"] in lines
    assert ["hub", "1", "5.0", "GB", "0", "/hub"] in lines
    assert ["ollama", "-", "-", "-", "/o", "(not", "there)"] in lines
    assert (
        "polling, for inotify has no room: raise it with sysctl fs.inotify.max_user_watches" in out
    )
    assert "  /m/closed: Permission denied" in out
    assert "  /m/broken.gguf  cut: x" in out
    assert "\x1b" not in out
    assert "5.0 GB taken twice, the same by name, kind and size:" in out
    assert "    p/Llama-3-8B:Q4_K_M@hub  /hub/x/Llama-3-8B-Q4_K_M.gguf" in out
    assert "5.0 GB could be free" in out


def test_doctor_as_json(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(p["store"], p["models"], p["rejected"]) for p in said["places"]] == [
        ("local", 3, 1),
        ("hub", 1, 0),
        ("ollama", 0, 0),
    ]
    assert said["rejected"][0]["id"] == "broken"
    assert said["twice_bytes"] == 5 * GB


def test_nothing_wrong(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.handlers["models.list"] = lambda call: {"models": [], "revision": 7}
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Nothing was rejected." in out
    assert "Nothing takes its space twice." in out


def found(*models: dict[str, Any]) -> list[tuple[list[str], bool]]:
    made = duplicates([Model.from_wire(m) for m in models])
    return [([m["id"] for m in group["models"]], group["certain"]) for group in made]


def test_what_counts_as_a_duplicate() -> None:
    one = model("a", "/m/a.gguf")
    assert found(one, model("b", "/n/other.gguf")) == [(["a", "b"], False)]  # the same base
    assert found(one, model("b", "/n/A.gguf", base="x")) == [(["a", "b"], False)]
    assert found(one, model("b", "/n/b.gguf", base="x")) == []
    assert found(one, model("b", "/n/a.gguf", size_bytes=5 * GB + 1)) == []
    assert found(one, model("b", "/n/a.gguf", architecture="qwen3")) == []
    same, other = {"digest": "sha256:1"}, {"digest": "sha256:2"}
    digested = model("a", "/m/a.gguf", **same)
    assert found(digested, model("b", "/n/b", base="x", **same)) == [(["a", "b"], True)]
    assert found(digested, model("b", "/n/a.gguf", **other)) == []
    assert found(digested, model("b", "/n/a.gguf")) == [(["a", "b"], False)]
    assert found(model("a", "/m/a", size_bytes=0), model("b", "/n/a", size_bytes=0)) == []


def test_list_by_group(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--group", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "ID", "broken", "broken", "llama-3-8b", "p/Llama-3-8B:Q4_K_M", "p/Llama-3-8B:Q4_K_M@hub",
        "p/Llama-3-8B:Q8_0", "other", "other",
    ]  # fmt: skip
    assert lines[3].split() == ["llama-3-8b", "18.0", "GB"]
    assert lines[4].startswith("  p/Llama")
    assert main(["list", "--group", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(group["base"], len(group["models"])) for group in said] == [
        ("broken", 1),
        ("llama-3-8b", 3),
        ("other", 1),
    ]
