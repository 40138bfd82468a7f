"""A person's whole collection, as the system that hybridd succeeds had it: every fact of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.make_inventory import BUILDS, DIRECTORIES, Build, write_inventory

from .conftest import RealDaemon

# By its repository's name each, for the ones that exist in two builds as well.
GIB = 1024**3


@pytest.fixture(scope="module")
def inventory(shared_daemon: RealDaemon) -> RealDaemon:
    write_inventory(shared_daemon.models)
    with shared_daemon.client() as client:
        client.rescan()
    return shared_daemon


def test_everything_is_there_and_nothing_else(inventory: RealDaemon) -> None:
    with inventory.client() as client:
        found = {m.id for m in client.list() if m.source and m.source.store == "local"}
    assert found == {build.id for build in BUILDS} | set(DIRECTORIES)
    assert len(BUILDS) == 13
    assert len(DIRECTORIES) == 4


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.id)
def test_a_gguf(inventory: RealDaemon, build: Build) -> None:
    path = inventory.models / build.publisher / build.repository / build.file
    with inventory.client() as client:
        model = client.show(build.id)
    shape = build.shape
    assert model.format == "gguf"
    assert model.publisher == build.publisher
    assert model.name == build.repository
    assert model.architecture == shape.architecture
    assert model.parameters == shape.parameters
    assert model.quantization is not None
    assert model.quantization.name == build.quantization
    assert model.context_length == shape.context
    assert model.size_bytes == path.stat().st_size
    assert 6.7e9 <= model.size_bytes <= 8.6 * GIB
    bits = (model.quantization.bits_per_weight or 0) * shape.parameters
    assert bits / 8 == pytest.approx(model.size_bytes, rel=0.001)
    assert set(model.capabilities) == {"completion", "chat"}
    assert model.status == "available"
    assert model.source is not None
    assert model.source.path == str(path)
    assert model.metadata[f"{shape.architecture}.block_count"] == shape.layers
    assert model.metadata[f"{shape.architecture}.attention.head_count_kv"] == shape.kv_heads
    assert path.stat().st_blocks * 512 < 2**20, "the test's own files take no room"


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory(inventory: RealDaemon, name: str) -> None:
    shape = DIRECTORIES[name]
    with inventory.client() as client:
        model = client.show(name)
    assert model.id == name
    assert model.format == "huggingface"
    assert model.publisher is None
    assert model.architecture == "llama"
    assert model.parameters == shape.parameters
    assert model.quantization is not None
    assert model.quantization.name == "BF16"
    assert model.quantization.bits_per_weight == 16
    assert model.context_length == shape.context
    assert model.size_bytes == pytest.approx(shape.parameters * 2, rel=0.001)
    assert model.capabilities == ["completion"]
    assert model.status == "available"


def test_what_a_person_types_is_understood(inventory: RealDaemon) -> None:
    with inventory.client() as client:
        assert client.resolve("silicon-maid-7b") == "TheBloke/Silicon-Maid-7B-GGUF:Q8_0"
        assert client.resolve("TheBloke/EstopianMaid-13B-GGUF").endswith(":Q4_K_M")
        assert client.resolve("demo-vi-llama") == "demo-vi-llama"


def test_one_too_large_says_what_is_missing(make_daemon: Callable[..., RealDaemon]) -> None:
    daemon = make_daemon(HYBRIDD_LIMITS_RAM_MAX="4GiB")
    write_inventory(daemon.models)
    with daemon.client() as client:
        client.rescan()
    refused = daemon.ctl("load", BUILDS[0].id)
    assert refused.returncode == 5
    assert "GB" in refused.stderr
