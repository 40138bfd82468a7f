"""LoRA adapters through a real daemon: found in the catalog, named by id, used by request."""

from __future__ import annotations

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

from hybridd.wire.errors import InvalidParams, ModelInvalid, ModelNotFound, Unsupported
from tests.make_gguf import write_adapter, write_tiny

MODEL = "tiny-llama:F32"
LOAD = {"context_length": 256, "parallel": 2}


@pytest.fixture
def client(daemon):
    write_tiny("tiny-llama", daemon.models)
    write_adapter(daemon.models / "polite.gguf")
    with daemon.client() as made:
        made.rescan()
        yield made


def said(client, **options):
    wanted = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, **options}
    return client.generate(MODEL, "the people could find water", **wanted).text


def test_an_adapter_from_the_catalog(daemon, client):
    found = {m.id: m for m in client.list(all=True)}
    adapter = next(m for m in found.values() if m.source.path.endswith("polite.gguf"))
    assert adapter.status == "invalid"
    assert "load_options.adapters" in adapter.reason
    with pytest.raises(ModelInvalid):
        client.generate(adapter.id, "hello")
    wanted = [{"name": "polite", "path_or_id": adapter.id}]
    loaded = client.load(MODEL, load_options={**LOAD, "adapters": wanted})
    assert loaded.load_options["adapters"] == wanted
    plain = said(client)
    changed = said(client, adapters=[{"name": "polite", "scale": 1.0}])
    assert changed != plain
    assert said(client, adapters=[{"name": "polite", "scale": 0}]) == plain
    assert said(client, context_shift=False) == plain
    with pytest.raises(InvalidParams, match="loaded with polite"):
        said(client, adapters=[{"name": "rude"}])


def test_what_is_no_adapter_of_the_catalog_is_refused(daemon, client):
    outside = write_adapter(daemon.directory / "outside.gguf")
    for query, error in (
        (str(outside), ModelNotFound),
        ("/etc/hostname", ModelNotFound),
        (MODEL, InvalidParams),
    ):
        with pytest.raises(error):
            client.load(MODEL, load_options={"adapters": [{"name": "x", "path_or_id": query}]})
    (daemon.models / "writer.echo").write_text("{}")
    client.rescan()
    with pytest.raises(Unsupported):
        client.generate("writer", "hello", adapters=[{"name": "polite"}])
    with pytest.raises(Unsupported):
        client.generate("writer", "hello", context_shift=True)
