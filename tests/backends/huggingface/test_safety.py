"""What a Hugging Face directory may not do by itself: pickles, code of its own, the network."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.huggingface.inspect import inspect, is_permitted
from hybridd.wire.errors import HybriddError, ModelInvalid
from tests.support_models import DEMO_HUGGINGFACE, ask, ignore_progress, make_engine, spec_for

QUESTION = {"prompt": "hello", "options": {"temperature": 0, "max_tokens": 8}}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A model that a test may change."""
    return Path(shutil.copytree(DEMO_HUGGINGFACE, tmp_path / "model"))


def answer(path: Path, *permissions: str) -> str:
    engine = make_engine("huggingface")
    spec = spec_for(path, "huggingface")
    spec["permissions"] = list(permissions)
    engine.load(spec, ignore_progress)
    made = ask(engine, **QUESTION)
    engine.close()
    return made.text


def refused(path: Path, *permissions: str) -> HybriddError:
    with pytest.raises(HybriddError) as caught:
        answer(path, *permissions)
    return caught.value


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


def pickled(copy: Path, name: str, *, index: bool = False) -> Path:
    """The model with its weights as a pickle."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import load_file

    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save({"state_dict": weights} if name.endswith(".pt") else weights, copy / name)
    if index:
        said = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
        (copy / "pytorch_model.bin.index.json").write_text(json.dumps(said))
    return copy


@pytest.mark.parametrize(
    ("name", "index"),
    [("pytorch_model.bin", False), ("pytorch_model-00001-of-00001.bin", True), ("best.pt", False)],
)
def test_pickles_are_loaded_only_where_they_are_allowed(copy: Path, name: str, index: bool) -> None:
    expected = answer(copy)
    pickled(copy, name, index=index)
    error = refused(copy)
    assert isinstance(error, ModelInvalid)
    assert "unsafe" in error.message
    assert "models.configure with allow_pickle" in error.message
    assert refused(copy, "trust_remote_code").kind == "model_invalid"
    assert answer(copy, "allow_pickle") == expected
    facts = inspect(copy)
    assert facts.weights_bytes > 4_000_000
    assert not is_permitted(facts, [])
    assert is_permitted(facts, ["allow_pickle"])


def test_an_allowed_pickle_still_runs_nothing(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    (copy / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "weights.pt"):
        (copy / name).write_bytes(pickle.dumps({"a": Evil(target)}))
        error = refused(copy, "allow_pickle")
        assert error.kind in ("load_failed", "model_invalid")
        assert len(error.message) < 500
        (copy / name).unlink()
        assert not target.exists()


def test_code_of_a_model_runs_only_where_it_is_trusted(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "ran"
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig"}
    config["model_type"] = "own"
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text(
        "import os\n"
        "from transformers import LlamaConfig\n"
        f"os.mkdir({str(target)!r})\n"
        "class OwnConfig(LlamaConfig):\n"
        "    model_type = 'own'\n"
    )
    error = refused(copy)
    assert error.kind == "model_invalid"
    assert "models.configure with trust_remote_code" in error.message
    assert not target.exists()
    refused(copy, "trust_remote_code")  # its configuration has no model class
    assert target.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation_internal"])
def test_attention_code_from_elsewhere_is_refused(copy: Path, key: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, key: "some/kernel"}))
    error = refused(copy)
    assert "attention code from elsewhere" in error.message
    assert "trust_remote_code" in error.message


def test_a_setting_does_not_help_against_another_reason(copy: Path) -> None:
    pickled(copy, "pytorch_model.bin")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    assert "no tokenizer" in refused(copy, "allow_pickle").message


_WATCHED = """
import sys
tried = []
def hook(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.client.")) and event != "socket.__new__":
        tried.append((event, str(arguments)[:200]))
sys.addaudithook(hook)
from pathlib import Path
from tests.support_models import ask, ignore_progress, make_engine, spec_for
engine = make_engine("huggingface")
engine.load(spec_for(Path(sys.argv[1]), "huggingface"), ignore_progress)
answer = ask(engine, "chat", messages=[{"role": "user", "content": "hello"}])
assert answer.text, answer
assert not tried, tried
print("nothing tried")
"""


def test_loading_and_answering_try_no_connection(tmp_path: Path) -> None:
    """In a network namespace of its own, where the machine allows that."""
    pytest.importorskip("torch", reason="torch is not installed")
    script = [sys.executable, "-c", _WATCHED, str(DEMO_HUGGINGFACE)]
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    has_unshare = shutil.which("unshare") is not None
    if has_unshare and subprocess.run([*alone, "true"], capture_output=True).returncode == 0:
        script = [*alone, *script]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment["HOME"] = str(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert ran.stdout.strip().endswith("nothing tried"), ran.stderr[-2000:]


def test_a_pickle_of_before_archives_is_loaded_too(copy: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    expected = answer(copy)
    pickled(copy, "best.pt")
    weights = torch.load(copy / "best.pt", weights_only=True)
    torch.save(weights, copy / "best.pt", _use_new_zipfile_serialization=False)
    assert answer(copy, "allow_pickle") == expected


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"_attn_implementation": {"text_config": "someone/kernel"}}, True),
        ({"text_config": {"attn_implementation": {"": "someone/kernel"}}}, True),
        ({"_attn_implementation": {"": "sdpa"}}, False),
        ({"_attn_implementation": "flash_attention_4"}, False),
        ({"_attn_implementation_autoset": True}, False),
        ({"attn_implementation": None}, False),
    ],
)
def test_attention_code_of_each_part_of_a_model(
    copy: Path, said: dict[str, Any], refused: bool
) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **said}))
    reason = inspect(copy).reason
    assert (reason is not None and "attention code from elsewhere" in reason) is refused
