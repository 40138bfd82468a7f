"""Lasting settings of single models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hybridd.core.model import Facts, Location, ModelRecord
from hybridd.daemon.state import StateFile
from hybridd.serving.model_settings import ModelSettings
from hybridd.wire.errors import InternalError, InvalidParams


def record(id: str = "a", permissions: list[str] | None = None, reason: str | None = None):
    facts = Facts("huggingface", (Path("/m/a"),), reason=reason)
    if permissions is not None:
        facts = replace(facts, metadata={"permissions": permissions})
    place = Location("dir", Path("/m/a"))
    status = "invalid" if reason else "available"
    return ModelRecord(id, facts, None, id, "dir", place.path, (place,), status, reason, 0, (), ())


def test_settings_last_and_null_removes(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "models.json")
    settings = ModelSettings(state)
    changed: list[str] = []
    settings.on_change(changed.append)
    settings.change(record(), {"pin": True, "alias": "x"}, set())
    settings.change(record(), {"options": {"top_k": 3}}, set())
    again = ModelSettings(state)
    assert again.get("a") == {"pin": True, "alias": "x", "options": {"top_k": 3}}
    assert again.aliases() == {"a": ("x",)}
    again.change(record(), {"pin": None, "alias": None, "options": None}, set())
    assert again.get("a") == {}
    assert ModelSettings(state).aliases() == {}
    assert changed == ["a", "a"]


def test_a_name_of_another_model_is_no_alias(tmp_path: Path) -> None:
    settings = ModelSettings()
    with pytest.raises(InvalidParams) as caught:
        settings.change(record(), {"alias": "b", "pin": True}, {"b"})
    assert caught.value.data["field"] == "alias"
    assert settings.get("a") == {}


def test_what_cannot_be_written_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = ModelSettings(StateFile(tmp_path / "file" / "models.json"))
    with pytest.raises(InternalError, match="nothing was changed"):
        settings.change(record(), {"pin": True}, set())
    assert settings.get("a") == {}


@pytest.mark.parametrize(
    ("needed", "granted", "permitted"),
    [
        (["allow_pickle"], ["allow_pickle"], True),
        (["allow_pickle"], ["trust_remote_code"], False),
        (["allow_pickle", "trust_remote_code"], ["allow_pickle"], False),
        ([], ["allow_pickle"], False),
        (None, ["allow_pickle"], False),
    ],
)
def test_a_permission_helps_against_its_own_reason_only(
    needed: list[str] | None, granted: list[str], permitted: bool
) -> None:
    settings = ModelSettings()
    bad = record("a", needed, "unsafe")
    assert not settings.permits(bad)
    settings.change(bad, dict.fromkeys(granted, True), set())
    assert settings.permits(bad) is permitted
    assert not settings.permits(replace(bad, reason="its files are gone"))
    settings.change(bad, dict.fromkeys(granted, False), set())
    assert not settings.permits(bad)
