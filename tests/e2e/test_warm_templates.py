"""A daemon with models of a format has that format's template up before anything is asked of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridctl import Client

from .conftest import NET_S, RealDaemon

pytest.importorskip("torch", reason="needs the extra huggingface")

DEMO = Path(__file__).parents[2] / "hybridd" / "demo"


def templates(client: Client) -> set[str]:
    return {m.id for m in client.loaded(all=True) if m.status == "template"}


def until_there(client: Client, label: str) -> None:
    """Templates come up without an event."""
    deadline = time.monotonic() + NET_S
    while label not in templates(client):
        assert time.monotonic() < deadline, templates(client)


def test_a_hugging_face_model_is_expected(make_daemon: Callable[..., RealDaemon]) -> None:
    daemon = make_daemon(HYBRIDD_CATALOG_DEMO="false")
    with daemon.client() as client:
        assert templates(client) == set()
        shutil.copytree(DEMO / "demo-hf", daemon.models / "mine")
        client.rescan()
        until_there(client, "template:huggingface")
        # At whichever point of its start, a load is served.
        assert client.generate("mine", "To load", max_tokens=2).usage.completion_tokens == 2
        assert "template:huggingface" in templates(client)
    assert "cannot start" not in daemon.log.read_text()


@pytest.mark.parametrize("settings", [{"WORKERS_TEMPLATES": "never"}, {}])
def test_packaged_models_are_no_reason(
    make_daemon: Callable[..., RealDaemon], settings: dict[str, str]
) -> None:
    daemon = make_daemon(**{f"HYBRIDD_{name}": value for name, value in settings.items()})
    with daemon.client() as client:
        if settings:
            shutil.copytree(DEMO / "demo-hf", daemon.models / "mine")
        client.rescan()
        client.generate("hybridd/demo-gguf", "To load", max_tokens=2)
        assert "template:huggingface" not in templates(client)
