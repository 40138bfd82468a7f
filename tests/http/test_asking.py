"""What a face asks is checked, and names that clients insist on mean a model of ours."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http import asking
from hybridd.http.faces.api import Ask
from hybridd.wire.errors import InvalidParams
from tests.http.support import FakeManager, fake_daemon, says


async def asked(ask: Ask) -> dict[str, Any]:
    manager = FakeManager(says("yes"), models=("m", "claude-3", "ours"))
    await asking.run(fake_daemon(manager), ask)
    return manager.asked[0]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("m", "m"),
        ("claude-9-opus", "ours"),
        ("claude-3", "claude-3"),  # a model that has the name itself goes before
        ("other", "other"),
        ("xclaude-9", "xclaude-9"),
    ],
)
async def test_names_are_mapped_where_no_model_has_them(name: str, model: str) -> None:
    assert (await asked(Ask("generate", name, {"prompt": "p"})))["model"] == model


async def test_null_is_unset() -> None:
    got = await asked(Ask("generate", "m", {"prompt": "p"}, {"top_p": None, "temperature": 0}))
    assert got["options"] == {"temperature": 0}


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (Ask("generate", "m", {"prompt": 1}), "prompt"),
        (Ask("generate", "", {"prompt": "p"}), "model"),
        (Ask("generate", "m", {"prompt": "p"}, {"temperature": -1}), "temperature"),
        (Ask("generate", "m", {"prompt": "p"}, {"stop": [1]}), "stop"),
        (Ask("chat", "m", {"messages": [{"role": "x"}]}), "messages.0.role"),
        (Ask("chat", "m", {"messages": []}), "messages"),
        (Ask("embed", "m", {"input": []}), "input"),
        (Ask("generate", "m", {"prompt": "p"}, load_options={"mmap": 1}), "load_options.mmap"),
    ],
)
async def test_the_field_at_fault_is_named(ask: Ask, field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await asked(ask)
    assert caught.value.data["field"] == field
    assert caught.value.message.startswith(field)
