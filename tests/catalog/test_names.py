"""From files on disk to ids and back: what is listed can be asked for, whatever it is called."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from hybridd.core.naming import resolve
from tests.catalog.test_stores import hub_source, ollama_source, write_mmproj
from tests.make_models import llama_metadata, write_gguf, write_hf, write_json
from tests.make_stores import catalog, hub_snapshot, models, ollama_model, source

RAW = some.binary(min_size=1, max_size=24).filter(
    lambda raw: b"/" not in raw and b"\0" not in raw and not raw.startswith(b".")
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(RAW, min_size=1, max_size=4, unique=True), some.data())
def test_any_bytes_round_trip(
    tmp_path_factory: pytest.TempPathFactory, raws: list[bytes], data: some.DataObject
) -> None:
    root = tmp_path_factory.mktemp("names")
    for number, raw in enumerate(raws):
        name = os.fsdecode(raw)
        if data.draw(some.booleans()):
            write_gguf(root / "pub" / name / "x.gguf", llama_metadata(general__name=str(number)))
        else:
            write_gguf(root / (name + ".gguf"), llama_metadata(general__name=str(number)))
    records, listing, _ = catalog([source(root, "local")])
    assert listing.problems == []
    assert len(records) == len(raws)
    for key, record in records.items():
        over_the_wire = json.loads(json.dumps(record.to_wire(), ensure_ascii=False).encode())
        assert over_the_wire["id"] == key
        assert resolve(key, records) == key


def test_bytes_that_are_no_utf8_are_addressed_by_percent(tmp_path: Path) -> None:
    write_gguf(tmp_path / os.fsdecode(b"gr\xfc\xdf.gguf"))
    write_hf(tmp_path / os.fsdecode(b"p\xff") / os.fsdecode(b"n\xfe"))
    records = models(source(tmp_path, "local"))
    assert set(records) == {"gr%FC%DF:Q4_K_M", "p%FF/n%FE"}
    assert resolve("GR%fc%df", records) == "gr%FC%DF:Q4_K_M"
    assert resolve("n%fe", records) == "p%FF/n%FE"


def test_a_name_that_spells_anothers_bytes_is_told_apart(tmp_path: Path) -> None:
    write_gguf(tmp_path / os.fsdecode(b"x\xff.gguf"), llama_metadata(general__name="raw"))
    write_gguf(tmp_path / "x%FF.gguf", llama_metadata(general__name="spelled"))
    records = models(source(tmp_path, "local"))
    assert len(records) == 2
    assert {record.facts.name for record in records.values()} == {"raw", "spelled"}


def test_composed_and_decomposed_letters_mean_the_same(tmp_path: Path) -> None:
    write_gguf(tmp_path / (unicodedata.normalize("NFD", "größé") + ".gguf"))
    records = models(source(tmp_path, "local"))
    (key,) = records
    for query in ("größé", "GRÖSSÉ", unicodedata.normalize("NFD", "größé")):
        assert resolve(query, records) == key


def test_thebloke_and_lmstudio_community(tmp_path: Path) -> None:
    for path in (
        "TheBloke/CodeLlama-13B-GGUF/codellama-13b.Q4_K_M.gguf",
        "TheBloke/deepseek-coder-6.7B-instruct-GGUF/deepseek-coder-6.7b-instruct.Q4_K_M.gguf",
        "lmstudio-community/Qwen2.5-Coder-14B-Instruct-GGUF/Qwen2.5-Coder-14B-Instruct-Q4_K_M.gguf",
        "sorted/by/me/lmstudio-community/gemma-3-12b-it-GGUF/gemma-3-12b-it-Q4_K_M.gguf",
        "mythomax-l2-13b.Q4_K_M.gguf",
    ):
        write_gguf(tmp_path / path, llama_metadata(general__name=path))
    records = models(source(tmp_path, "local"))
    assert {key: (r.publisher, r.base) for key, r in records.items()} == {
        "TheBloke/CodeLlama-13B-GGUF:Q4_K_M": ("TheBloke", "codellama-13b"),
        "TheBloke/deepseek-coder-6.7B-instruct-GGUF:Q4_K_M": (
            "TheBloke",
            "deepseek-coder-6.7b-instruct",
        ),
        "lmstudio-community/Qwen2.5-Coder-14B-Instruct-GGUF:Q4_K_M": (
            "lmstudio-community",
            "qwen2.5-coder-14b-instruct",
        ),
        "lmstudio-community/gemma-3-12b-it-GGUF:Q4_K_M": ("lmstudio-community", "gemma-3-12b-it"),
        "mythomax-l2-13b:Q4_K_M": (None, "mythomax-l2-13b"),
    }
    assert resolve("codellama", records) == "TheBloke/CodeLlama-13B-GGUF:Q4_K_M"


def test_builds_are_grouped_across_formats_and_stores(tmp_path: Path) -> None:
    write_gguf(tmp_path / "l/TheBloke/Big-7B-GGUF/big-7b.Q4_K_M.gguf")
    base = {"general.base_model.0.repo_url": "https://hub.example/Org/Big-7B"}
    write_gguf(tmp_path / "l/odd-name.gguf", {**llama_metadata(general__name="Big 7B"), **base})
    quantized = {"quant_method": "awq", "bits": 4}
    write_hf(tmp_path / "l/someone/Big-7B-AWQ", quantization_config=quantized)
    hub_snapshot(tmp_path / "hub", "Org/Big-7B", write_hf(tmp_path / "t"), "a" * 40)
    onnx = write_json(tmp_path / "l/onnx-community/Big-7B-ONNX/config.json", {}).parent
    (onnx / "model.onnx").write_bytes(b"x")
    ollama_model(tmp_path / "o", "big:7b", weights=write_named(tmp_path / "w.gguf", base))
    records = models(
        source(tmp_path / "l", "local"), hub_source(tmp_path / "hub"), ollama_source(tmp_path / "o")
    )
    assert len(records) == 6
    assert {record.base for record in records.values()} == {"big-7b"}
    assert {record.format for record in records.values()} == {"gguf", "huggingface", "onnx"}


def test_a_tuned_models_builds_are_together_and_not_with_what_it_was_trained_from(
    tmp_path: Path,
) -> None:
    base = {"general.base_model.0.repo_url": "https://hub.example/mistralai/Mistral-7B-v0.1"}
    named = llama_metadata(general__name="Kunoichi DPO 7B")
    write_gguf(tmp_path / "someone/Kunoichi-DPO-7B-GGUF/k.Q4_K_M.gguf", {**named, **base})
    write_hf(tmp_path / "other/Kunoichi-DPO-7B").joinpath("README.md").write_text(
        "---\nbase_model: mistralai/Mistral-7B-v0.1\n---\n"
    )
    instruct = llama_metadata(general__name="Mistral 7B Instruct v0.1")
    write_gguf(tmp_path / "p/Mistral-7B-Instruct-v0.1-GGUF/m.Q8_0.gguf", {**instruct, **base})
    write_hf(tmp_path / "mistralai/Mistral-7B-Instruct-v0.1")
    write_hf(tmp_path / "mistralai/Mistral-7B-v0.1")
    records = models(source(tmp_path, "local"))
    assert sorted(record.base for record in records.values()) == [
        *["kunoichi-dpo-7b"] * 2,
        *["mistral-7b-instruct-v0.1"] * 2,
        "mistral-7b-v0.1",
    ]


def write_named(path: Path, metadata: dict[str, str]) -> Path:
    return write_gguf(path, {**llama_metadata(general__name="other"), **metadata})


def test_a_projector_is_part_of_its_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "p/See-GGUF/See-Q4_K_M.gguf")
    write_mmproj(tmp_path / "p/See-GGUF/mmproj-F16.gguf")
    write_mmproj(tmp_path / "p/See-GGUF/mmproj-F32.gguf")
    write_mmproj(tmp_path / "alone/r/mmproj-F16.gguf")
    records = models(source(tmp_path, "local"))
    record = records.pop("p/See-GGUF:Q4_K_M")
    assert "vision" in record.facts.capabilities
    assert record.facts.metadata["card"]["rules"]["vision"] == (
        "its projector mmproj-F16.gguf brings it"
    )
    assert [path.name for path in record.files] == ["See-Q4_K_M.gguf", "mmproj-F16.gguf"]
    (other,) = records.values()
    assert "projector" in str(other.reason)
    # What comes later changes the model.
    (tmp_path / "p/See-GGUF/mmproj-F16.gguf").unlink()
    (tmp_path / "p/See-GGUF/mmproj-F32.gguf").unlink()
    assert "vision" not in models(source(tmp_path, "local"))["p/See-GGUF:Q4_K_M"].facts.capabilities


def test_a_link_to_a_model_with_a_projector_is_that_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "two/p/r/x.gguf")
    write_mmproj(tmp_path / "two/p/r/mmproj-F16.gguf")
    (tmp_path / "one").mkdir()
    (tmp_path / "one/mine.gguf").symlink_to(path)
    (record,) = models(source(tmp_path / "one", "local"), source(tmp_path / "two", "lm")).values()
    assert record.id == "mine:Q4_K_M"
    assert "vision" in record.facts.capabilities


def test_collisions_are_stable_and_visible(tmp_path: Path) -> None:
    for name in ("b", "c"):
        write_gguf(tmp_path / f"l/p/r/{name}.gguf", llama_metadata(general__name=name))
    write_gguf(tmp_path / "m/p/r/d.gguf", llama_metadata(general__name="d"))
    sources = [source(tmp_path / "l", "local"), source(tmp_path / "m", "lmstudio")]
    records, _, names = catalog(sources)
    assert set(records) == {"p/r:Q4_K_M+b", "p/r:Q4_K_M+c", "p/r:Q4_K_M"}
    write_gguf(tmp_path / "l/p/r/a.gguf", llama_metadata(general__name="a"))
    later, _, _ = catalog(sources, names)
    assert set(later) == {*records, "p/r:Q4_K_M+a"}
    assert {k: later[k].facts.name for k in records} == {
        k: r.facts.name for k, r in records.items()
    }
