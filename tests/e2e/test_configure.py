"""`models.configure` through a real daemon: what is settled for a model holds, and lasts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hybridctl import ModelInvalid
from hybridd.wire.errors import InvalidParams

# peft 0.21 asks transformers 5 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
DEMO = Path(__file__).parents[2] / "hybridd" / "demo" / "demo-hf"


def test_settings_hold_and_last(daemon):
    for name in ("one", "two"):
        (daemon.models / f"{name}.echo").write_text("{}")
    with daemon.client() as client:
        client.rescan()
        assert client.configure("one") == {"model": "one"}
        made = client.configure(
            "one",
            alias="uno",
            keepalive=-1,
            options={"max_tokens": 2},
            load_options={"context_length": 64},
        )
        assert made["keepalive"] == -1
        client.rescan()
        assert client.resolve("uno") == "one"
        assert client.generate("uno", "a b c d").text == "a b"
        assert client.generate("uno", "a b c d", max_tokens=3).text == "a b c"
        loaded = client.loaded()[0]
        assert (loaded.context_length, loaded.expires_in_s) == (64, None)
        with pytest.raises(InvalidParams, match="another model is called two"):
            client.configure("one", alias="two")
        with pytest.raises(InvalidParams):
            client.configure("one", options={"max_tokenz": 2})
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        client.rescan()
        assert client.show("uno").settings["options"] == {"max_tokens": 2}
        assert client.configure("uno", alias=None, options=None)["load_options"]
        assert client.generate("one", "a b c d").text == "a b c d"


def test_a_pickle_is_loaded_once_it_is_allowed(daemon):
    torch = pytest.importorskip("torch", reason="needs the extra huggingface")
    from safetensors.torch import load_file

    path = Path(shutil.copytree(DEMO, daemon.models / "pickled"))
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with daemon.client() as client:
        client.rescan()
        assert "pickled" not in {m.id for m in client.list()}
        with pytest.raises(ModelInvalid, match="allow_pickle"):
            client.load("pickled")
        ran = daemon.ctl("configure", "pickled", "--allow-pickle", "yes", "--json")
        assert json.loads(ran.stdout)["allow_pickle"] is True
        assert "pickled" in {m.id for m in client.list()}
        expected = client.generate("hybridd/demo-hf", "To load", temperature=0, max_tokens=8).text
        made = client.generate("pickled", "To load", temperature=0, max_tokens=8).text
        assert made == expected != ""
        client.unload("pickled")
        client.configure("pickled", allow_pickle=None)
        with pytest.raises(ModelInvalid):
            client.load("pickled")


def test_an_adapter_is_named_by_its_id(daemon):
    peft = pytest.importorskip("peft", reason="needs the extra adapters")
    torch = pytest.importorskip("torch", reason="needs the extra huggingface")
    transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
    transformers.utils.logging.disable_progress_bar()  # its monitor is a thread that stays
    base = transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(daemon.models / "small-change")
    model = "hybridd/demo-hf"
    options = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    adapters = [{"name": "change", "path_or_id": "small-change"}]
    with daemon.client() as client:
        client.rescan()
        plain = client.generate(model, "To load", **options).text
        with pytest.raises(InvalidParams, match="no adapter"):
            client.load(model, adapters=[{"name": "x", "path_or_id": "hybridd/demo-gguf"}])
        loaded = client.load(model, adapters=adapters)
        assert loaded.load_options["adapters"] == adapters
        assert client.generate(model, "To load", **options).text == plain
        chosen = [{"name": "change", "scale": 8.0}]
        assert client.generate(model, "To load", adapters=chosen, **options).text != plain
