"""The stores of other programs, as synthetic trees in their layouts."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from hybridd.catalog import stores
from hybridd.catalog.stores import LOCAL_STORE, STORES, external, hub, llamacpp, local, ollama
from hybridd.catalog.walk import Source
from hybridd.core.keys import KEYS
from tests.make_models import llama_metadata, write_gguf, write_hf, write_json
from tests.make_stores import (
    catalog,
    hub_snapshot,
    models,
    ollama_blob,
    ollama_model,
    reasons,
    sha256,
    source,
)

A, B, C = "a" * 40, "b" * 40, "c" * 40


def local_source(path: Path) -> Source:
    return source(path, LOCAL_STORE, local.candidates)


def hub_source(path: Path) -> Source:
    return source(path, "hub", hub.candidates)


def ollama_source(path: Path) -> Source:
    return source(path, "ollama", ollama.candidates)


def gguf(path: Path, **more: object) -> Path:
    return write_gguf(path, llama_metadata(**more))


# ---------------------------------------------------------------- directories and settings


def directories(**environment: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for root, _ in external(lambda _setting: True, {"HOME": "/home/u", **environment}):
        found.setdefault(root.store, []).append(str(root.path))
    return found


def test_the_default_directories() -> None:
    assert directories() == {
        "lmstudio": ["/home/u/.lmstudio/models", "/home/u/.cache/lm-studio/models"],
        "hub": ["/home/u/.cache/huggingface/hub"],
        "llamacpp": ["/home/u/.cache/llama.cpp"],
        "ollama": ["/home/u/.ollama/models", "/usr/share/ollama/.ollama/models"],
    }


def test_directories_that_the_environment_names() -> None:
    found = directories(
        HF_HUB_CACHE="/hub",
        HF_HOME="~/hf",
        LLAMA_CACHE="/llama",
        OLLAMA_MODELS="/ollama",
        XDG_CACHE_HOME="/cache",
    )
    assert found["hub"] == ["/hub", "/home/u/hf/hub", "/cache/huggingface/hub"]
    assert found["llamacpp"] == ["/llama", "/cache/llama.cpp"]
    assert found["ollama"][0] == "/ollama"
    assert directories(HF_HUB_CACHE="relative", OLLAMA_MODELS="")["hub"] == [
        "/home/u/.cache/huggingface/hub"
    ]


def test_each_store_can_be_turned_off() -> None:
    for store in STORES:
        assert KEYS[store.setting].default is True
        on = external(lambda setting, off=store.setting: setting != off, {"HOME": "/h"})
        assert {root.store for root, _ in on} == {s.name for s in STORES} - {store.name}


def test_a_users_directory_that_is_a_stores_own_is_that_store() -> None:
    theirs = external(lambda _setting: True, {"HOME": "/h"})
    dirs = [Path("/h/.ollama/models"), Path("/m")]
    roots = [root for root, _ in stores.sources(dirs, demo=False, external=theirs)]
    assert [root.store for root in roots if str(root.path) == "/h/.ollama/models"] == ["ollama"]
    assert (roots[0].path, roots[0].store) == (Path("/m"), "local")


def test_directories_that_do_not_exist_are_no_problem(tmp_path: Path) -> None:
    everything = external(lambda _setting: True, {"HOME": str(tmp_path)})
    mine = [source for source in everything if tmp_path in source.root.path.parents]
    records, listing, _ = catalog([*mine, local_source(tmp_path / "none")])
    assert (records, listing.problems, listing.finished) == ({}, [], True)


def test_lm_studio(tmp_path: Path) -> None:
    current, _older = external(lambda s: s == "catalog.lmstudio", {"HOME": str(tmp_path)})
    gguf(current.root.path / "lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf")
    (record,) = models(current).values()
    assert record.id == "lmstudio-community/Qwen3-8B-GGUF:Q4_K_M"
    assert record.to_wire()["source"]["store"] == "lmstudio"
    assert record.base == "qwen3-8b"


def lm_studio_directories(home: Path) -> list[str]:
    found = external(lambda s: s == "catalog.lmstudio", {"HOME": str(home)})
    return [str(root.path) for root, _ in found]


def test_lm_studios_moved_directory(tmp_path: Path) -> None:
    usual = lm_studio_directories(tmp_path)
    moved = tmp_path / "disk/models"
    settings = write_json(
        tmp_path / ".lmstudio/settings.json", {"downloadsFolder": str(moved), "language": "en"}
    )
    assert lm_studio_directories(tmp_path) == [str(moved), *usual]
    gguf(moved / "lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf")
    (root, *_) = external(lambda s: s == "catalog.lmstudio", {"HOME": str(tmp_path)})
    (record,) = models(root).values()
    assert record.to_wire()["source"]["store"] == "lmstudio"
    write_json(settings, {"downloadsFolder": "~/disk/models"})
    assert lm_studio_directories(tmp_path) == [str(moved), *usual]
    write_json(settings, {"downloadsFolder": usual[0]})
    assert lm_studio_directories(tmp_path) == usual


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"downloadsFolder": 7}',
        '{"downloadsFolder": "models"}',
        '{"downloadsFolder": "/a\\u0000b"}',
        '{"downloadsFolder": null}',
        "[" * 100_000,
    ],
)
def test_lm_studios_settings_that_say_nothing(tmp_path: Path, text: str) -> None:
    usual = lm_studio_directories(tmp_path)
    (tmp_path / ".lmstudio").mkdir()
    (tmp_path / ".lmstudio/settings.json").write_text(text)
    assert lm_studio_directories(tmp_path) == usual


def test_lm_studios_home_elsewhere(tmp_path: Path) -> None:
    usual = lm_studio_directories(tmp_path)
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path}/other\n")
    assert lm_studio_directories(tmp_path) == [f"{tmp_path}/other/models", *usual]
    write_json(tmp_path / "other/settings.json", {"downloadsFolder": "/elsewhere"})
    assert lm_studio_directories(tmp_path)[0] == "/elsewhere"


# ---------------------------------------------------------------- the hub's cache


def test_the_hubs_cache(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    snapshot = hub_snapshot(cache, "Qwen/Qwen3-8B", write_hf(tmp_path / "m", shards=2), A)
    hub_snapshot(cache, "gpt2", write_hf(tmp_path / "n"), B)
    gguf(tmp_path / "g/sub/Q8.gguf")
    hub_snapshot(cache, "org/Some-GGUF", tmp_path / "g", C)
    (cache / "datasets--org--data/snapshots").mkdir(parents=True)
    (cache / ".locks/models--Qwen--Qwen3-8B").mkdir(parents=True)
    made = models(hub_source(cache))
    assert set(made) == {"Qwen/Qwen3-8B", "gpt2", "org/Some-GGUF:Q4_K_M"}
    record = made["Qwen/Qwen3-8B"]
    assert (record.available, record.store, record.path) == (True, "hub", snapshot)
    assert (record.publisher, record.name, record.base) == ("Qwen", "Qwen3-8B", "qwen3-8b")
    assert re.fullmatch("files-sha256:[0-9a-f]{64}", record.digest or "")
    one = made["org/Some-GGUF:Q4_K_M"]
    assert one.digest == f"sha256:{sha256(one.path)}"
    assert one.to_wire()["digest"] == one.digest


def test_the_snapshot_of_main_comes_first(tmp_path: Path) -> None:
    hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "1", hidden_size=16), A, ref="old")
    main = hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "2", hidden_size=32), B)
    hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "3", hidden_size=64), C, ref=None)
    made = models(hub_source(tmp_path))
    assert set(made) == {"p/n", "p/n@aaaaaaa", "p/n@ccccccc"}
    assert made["p/n"].path == main


def test_snapshots_of_the_same_files_are_one_model(tmp_path: Path) -> None:
    old = hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "1"), A, ref=None)
    new = hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "2"), B)
    (record,) = models(hub_source(tmp_path)).values()
    assert [location.path for location in record.locations] == [new, old]


def test_files_of_several_commits(tmp_path: Path) -> None:
    gguf(tmp_path / "1/x-Q4_K_M.gguf", general__name="one")
    gguf(tmp_path / "2/x-Q4_K_M.gguf", general__name="two")
    hub_snapshot(tmp_path, "p/r", tmp_path / "1", A, ref=None)
    hub_snapshot(tmp_path, "p/r", tmp_path / "2", B)
    made = models(hub_source(tmp_path))
    assert {key: record.facts.name for key, record in made.items()} == {
        "p/r:Q4_K_M": "two",
        "p/r:Q4_K_M@aaaaaaa": "one",
    }


def test_an_id_stays_when_main_moves_on(tmp_path: Path) -> None:
    hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "1", hidden_size=16), A)
    _, _, names = catalog([hub_source(tmp_path)])
    hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "2", hidden_size=32), B)
    records, _, _ = catalog([hub_source(tmp_path)], names)
    assert records["p/n"].path.name == A
    assert records["p/n@" + "b" * 7].path.name == B


def test_a_download_under_way_is_incomplete(tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "1", shards=2), A)
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()
    (tmp_path / "models--p--n/blobs" / f"{'e' * 64}.incomplete").write_bytes(b"x")
    (said,) = reasons(hub_source(tmp_path)).values()
    assert said.startswith("incomplete: ")


@pytest.mark.parametrize("ref", [b"", b"\xff\xfe", b"x" * 1000, b"../../etc"])
def test_a_ref_that_is_none(tmp_path: Path, ref: bytes) -> None:
    hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "1"), A)
    (tmp_path / "models--p--n/refs/main").write_bytes(ref)
    assert set(models(hub_source(tmp_path))) == {"p/n"}


def test_a_cache_without_symlinks_has_no_digests(tmp_path: Path) -> None:
    write_hf(tmp_path / "models--p--n/snapshots" / A)
    (record,) = models(hub_source(tmp_path)).values()
    assert (record.id, record.digest) == ("p/n", None)


def test_two_caches_with_the_same_download(tmp_path: Path) -> None:
    for name in ("one", "two"):
        hub_snapshot(tmp_path / name, "p/n", write_hf(tmp_path / f"m{name}"), A)
    (record,) = models(hub_source(tmp_path / "one"), hub_source(tmp_path / "two")).values()
    assert len(record.locations) == 2


# ---------------------------------------------------------------- Ollama


def test_ollamas_names(tmp_path: Path) -> None:
    for number, (host, name) in enumerate(
        [
            ("registry.ollama.ai", "llama3:8b"),
            ("registry.ollama.ai", "somebody/llama3:70b"),
            ("hub.example", "org/Some-GGUF:Q4_K_M"),
            ("registry.ollama.ai", "qwen3:latest"),
        ]
    ):
        weights = gguf(tmp_path / "w.gguf", general__name=str(number))
        ollama_model(tmp_path / "o", name, host=host, weights=weights)
    made = models(ollama_source(tmp_path / "o"))
    assert {key: (r.publisher, r.name, r.aliases) for key, r in made.items()} == {
        "llama3:8b": (None, "llama3", ()),
        "somebody/llama3:70b": ("somebody", "llama3", ()),
        "hub.example/org/Some-GGUF:Q4_K_M": ("org", "Some-GGUF", ()),
        "qwen3:latest": (None, "qwen3", ("qwen3",)),
    }
    record = made["llama3:8b"]
    assert record.available
    assert record.path.name == f"sha256-{sha256(record.path)}"
    assert record.digest == f"sha256:{sha256(record.path)}"
    assert record.to_wire()["source"] == {"store": "ollama", "path": str(record.path)}


def test_ollamas_layers(tmp_path: Path) -> None:
    ollama_model(
        tmp_path,
        "m:1",
        template="{{ .Prompt }}",
        system="Be brief.",
        params={"temperature": 0.6, "top_k": 20, "stop": ["<|end|>", 3, ""], "num_ctx": 4096},
        license="MIT",
    )
    (record,) = models(ollama_source(tmp_path)).values()
    assert record.facts.defaults == {"temperature": 0.6, "top_k": 20, "stop": ["<|end|>"]}
    said = record.facts.metadata["card"]["ollama"]
    assert (said["template"], said["system"]) == ("{{ .Prompt }}", "Be brief.")
    assert said["parameters"]["num_ctx"] == 4096
    assert record.facts.chat_template == llama_metadata()["tokenizer.chat_template"]
    assert [path.name[:7] for path in record.files] == ["sha256-"] * 4
    json.dumps(record.to_wire()), json.dumps(record.details())


def test_ollamas_projector(tmp_path: Path) -> None:
    ollama_model(tmp_path, "llava:7b", projector=write_mmproj(tmp_path / "p.gguf"))
    (record,) = models(ollama_source(tmp_path)).values()
    assert "vision" in record.facts.capabilities
    assert record.facts.size_bytes == sum(path.stat().st_size for path in record.files)


def test_an_adapter_of_ollama_is_not_left_out_silently(tmp_path: Path) -> None:
    ollama_model(tmp_path, "tuned:1", adapter=b"GGUF")
    assert "LoRA adapter" in reasons(ollama_source(tmp_path))["tuned:1"]


def write_mmproj(path: Path) -> Path:
    return write_gguf(
        path,
        {
            "general.architecture": "clip",
            "general.type": "mmproj",
            "clip.has_vision_encoder": True,
            "clip.projector_type": "mlp",
        },
    )


def test_two_names_of_one_model_are_one(tmp_path: Path) -> None:
    ollama_model(tmp_path, "qwen3:8b", params={"top_k": 20}, license="a")
    ollama_model(tmp_path, "qwen3:latest", params={"top_k": 20}, license="b")
    ollama_model(tmp_path, "strict:8b", params={"top_k": 1})
    ollama_model(tmp_path, "pirate:8b", params={"top_k": 20}, system="Arr.")
    made = models(ollama_source(tmp_path))
    assert set(made) == {"pirate:8b", "qwen3:8b", "strict:8b"}
    assert made["qwen3:8b"].aliases == ("qwen3", "qwen3:latest")
    assert len(made["qwen3:8b"].locations) == 2
    assert made["strict:8b"].facts.defaults == {"top_k": 1}


def test_a_layer_that_lies_in_the_hub_too_is_one_model(tmp_path: Path) -> None:
    gguf(tmp_path / "g/x-Q4_K_M.gguf")
    shutil.copytree(tmp_path / "g", tmp_path / "h")
    hub_snapshot(tmp_path / "hub", "p/r-GGUF", tmp_path / "g", A)
    ollama_model(
        tmp_path / "o",
        "x:latest",
        weights=tmp_path / "h/x-Q4_K_M.gguf",
        params={"top_k": 7},
        template="t",
    )
    ollama_model(tmp_path / "o", "x:pirate", weights=tmp_path / "h/x-Q4_K_M.gguf", system="Arr.")
    made = models(hub_source(tmp_path / "hub"), ollama_source(tmp_path / "o"))
    assert set(made) == {"p/r-GGUF:Q4_K_M", "x:pirate"}
    record = made["p/r-GGUF:Q4_K_M"]
    assert [location.store for location in record.locations] == ["hub", "ollama"]
    assert record.aliases == ("x", "x:latest")
    assert record.facts.defaults == {"top_k": 7}


def test_a_layer_that_is_linked_elsewhere_is_one_model(tmp_path: Path) -> None:
    ollama_model(tmp_path / "o", "x:latest")
    (blob,) = [b for b in (tmp_path / "o/blobs").iterdir() if b.stat().st_size > 2]
    (tmp_path / "m/p/r").mkdir(parents=True)
    os.link(blob, tmp_path / "m/p/r/x.gguf")
    (record,) = models(local_source(tmp_path / "m"), ollama_source(tmp_path / "o")).values()
    assert record.id == "p/r:Q4_K_M"
    assert [location.store for location in record.locations] == ["local", "ollama"]
    assert record.digest == f"sha256:{sha256(blob)}"


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (None, "it lists no layers"),
        ([], "remote"),
        (["x"], "unknown type"),
        ([{"mediaType": "image/png", "digest": "sha256:" + "0" * 64}], "unknown type"),
        ([{"mediaType": "application/vnd.ollama.image.model"}], "no digest"),
        (
            [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}],
            "no digest",
        ),
        (
            [{"mediaType": "application/vnd.ollama.image.tensor", "digest": "sha256:" + "0" * 64}],
            "no GGUF",
        ),
        (
            [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64}],
            "incomplete: its model is missing",
        ),
        (
            [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64}]
            * 2,
            "2 layers",
        ),
        ([{}] * 2000, "it lists no layers"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, layers: object, reason: str) -> None:
    write_json(
        tmp_path / "manifests/registry.ollama.ai/library/m/1",
        {"layers": layers} if layers is not None else {},
    )
    made = reasons(ollama_source(tmp_path))
    assert reason in made["m:1"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"{" * 10_000, b" " * 300_000])
def test_manifests_of_any_bytes(tmp_path: Path, raw: bytes) -> None:
    path = write_json(tmp_path / "manifests/registry.ollama.ai/library/m/1", {})
    path.write_bytes(raw)
    assert "manifest cannot be read" in reasons(ollama_source(tmp_path))["m:1"]


def test_layers_of_any_bytes(tmp_path: Path) -> None:
    ollama_model(
        tmp_path, "m:1", weights=b"no GGUF", params=b"[", template=b"\xff" * 9, projector=b""
    )
    assert reasons(ollama_source(tmp_path))["m:1"] == "no GGUF file: the magic number is missing"
    ollama_model(tmp_path, "m:2", params=b"[", template=b"\xff" * 9, projector=b"")
    record = models(ollama_source(tmp_path))["m:2"]
    assert record.available
    assert record.facts.metadata["card"]["projector"] == {
        "reason": "truncated: the file is empty or starts with zeros"
    }
    json.dumps(record.details())


def test_what_else_lies_among_manifests(tmp_path: Path) -> None:
    ollama_model(tmp_path, "m:1")
    base = tmp_path / "manifests/registry.ollama.ai/library"
    (tmp_path / "manifests/file").write_text("x")
    (base / "m/folder").mkdir()
    os.mkfifo(base / "m/pipe")
    (base / "m/.hidden").write_text("x")
    (base / "loop").symlink_to(base / "loop")
    ollama_blob(tmp_path, b"orphan")
    records, listing, _ = catalog([ollama_source(tmp_path)])
    assert set(records) == {"m:1"}
    assert len(listing.problems) == 1


def test_without_the_format_there_is_nothing_to_list(tmp_path: Path) -> None:
    from hybridd.catalog.walk import scan

    ollama_model(tmp_path, "m:1")
    assert scan([ollama_source(tmp_path)], {}).candidates == []


# ---------------------------------------------------------------- llama.cpp's cache


def test_llama_cpps_cache(tmp_path: Path) -> None:
    name = "ggml-org_gemma-3-4b-it-GGUF_gemma-3-4b-it-Q4_K_M.gguf"
    projector = "ggml-org_gemma-3-4b-it-GGUF_mmproj-model-f16.gguf"
    gguf(tmp_path / name)
    write_mmproj(tmp_path / projector)
    gguf(tmp_path / "plain.gguf", general__name="Plain")
    gguf(tmp_path / "half.gguf.downloadInProgress")
    (tmp_path / (name + ".json")).write_text("{}")
    write_json(
        tmp_path / "manifest=ggml-org=gemma-3-4b-it-GGUF=Q4_K_M.json",
        {
            "ggufFile": {"rfilename": "gemma-3-4b-it-Q4_K_M.gguf", "lfs": {"sha256": "d" * 64}},
            "mmprojFile": {"rfilename": "mmproj-model-f16.gguf"},
        },
    )
    (tmp_path / "manifest=broken=one=latest.json").write_text("[")
    write_json(tmp_path / "manifest=odd=one=latest.json", {"ggufFile": {"rfilename": 3}})
    made = models(source(tmp_path, "llamacpp", llamacpp.candidates))
    assert set(made) == {"ggml-org/gemma-3-4b-it-GGUF:Q4_K_M", "plain:Q4_K_M"}
    record = made["ggml-org/gemma-3-4b-it-GGUF:Q4_K_M"]
    assert record.digest == "sha256:" + "d" * 64
    assert "vision" in record.facts.capabilities
    assert [path.name for path in record.files] == [name, projector]
    assert "vision" not in made["plain:Q4_K_M"].facts.capabilities


# ---------------------------------------------------------------- stores put elsewhere


def test_other_programs_layouts_in_a_users_directory(tmp_path: Path) -> None:
    ollama_model(tmp_path, "m:1", weights=gguf(tmp_path.parent / "w.gguf", general__name="w"))
    hub_snapshot(tmp_path, "p/n", write_hf(tmp_path / "tmp"), A)
    gguf(tmp_path / "q/r/x.gguf")
    shutil.rmtree(tmp_path / "tmp")
    made = models(local_source(tmp_path))
    assert set(made) == {"m:1", "p/n", "q/r:Q4_K_M"}
    assert {record.store for record in made.values()} == {"local"}
