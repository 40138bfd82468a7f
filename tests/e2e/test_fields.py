"""What a daemon sends has its place in `wire/types`: every field of every record, one by one.

The results are those of the SDK's methods, so that each is held against the record that its method
gives. A field that the record has not fails, and so does one that is never sent, unless it stands
in `ELSEWHERE`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

from hybridctl import LoadFailed
from hybridd.wire import types
from hybridd.wire.record import Record
from tests.make_stores import ollama_model
from tests.support_models import DEMO_GGUF

# What this daemon does not send, why, and which test sees it.
ELSEWHERE = {
    "Timings.draft_tokens": "with a draft model only: test_draft_model",
    "Timings.draft_accepted_tokens": "with a draft model only: test_draft_model",
    "HttpLink.url": "with TCP only: test_http_access",
    "HttpLink.expires_in_s": "with TCP only: test_http_access",
    "ConfigChange.overridden_by_flag": "with a flag only: daemon/test_configuration",
}
# What is sent along with a record and is no field of it: which request it is for; the kind of
# event's own.
BESIDE = {types.Progress: {"id"}, types.Event: {"job", "kind", "model"}}


class Seen:
    """The fields that came, by record."""

    def __init__(self) -> None:
        self._fields: dict[type[Record], set[str]] = defaultdict(set)

    def take(self, made: Record | Iterable[Record]) -> None:
        """Note what the SDK gave."""
        for one in [made] if isinstance(made, Record) else made:
            self._sent(type(one), one.raw)

    def _sent(self, kind: type[Record], sent: dict[str, Any]) -> None:
        unknown = sent.keys() - {*kind._fields} - BESIDE.get(kind, set())
        assert not unknown, f"{kind.__name__} has no {unknown}"
        self._fields[kind] |= sent.keys()
        for name, (inner, many) in kind._nested.items():
            if (value := sent.get(name)) is not None:
                for one in value if many else [value]:
                    self._sent(inner, one)

    def missing(self) -> set[str]:
        """The fields that never came."""
        records = [each for each in vars(types).values() if isinstance(each, type)]
        return {
            f"{kind.__name__}.{name}"
            for kind in records
            if issubclass(kind, Record)
            for name in {*kind._fields} - self._fields[kind]
        }


def test_every_field_that_is_sent_and_none_that_is_not(make_daemon):
    daemon = make_daemon(HYBRIDD_FORMATS_ECHO="true")
    (daemon.models / "parrot.echo").write_text("{}")
    (daemon.models / "encoder.echo").write_text('{"capabilities": ["embedding", "reranking"]}')
    (daemon.models / "broken.echo").write_text('{"fail": "as it was told to"}')
    (daemon.models / "invalid.echo").write_text("no JSON")
    ollama_model(daemon.directory / ".ollama/models", "demo:f16", weights=DEMO_GGUF)
    seen = Seen()
    with daemon.client() as client, daemon.client() as watcher, watcher.events("jobs") as events:
        seen.take(client.info())
        seen.take(client.rescan(on_progress=seen.take))
        seen.take(next(events))
        models = client.list(all=True)
        seen.take([*models, *(client.show(model.id) for model in models)])
        seen.take(client.load("parrot", on_progress=seen.take))
        job = client.wait_job(client.load("parrot", wait=False))
        seen.take([job, client.job(job), client.cancel_job(job)])
        with pytest.raises(LoadFailed):
            client.load("broken")
        seen.take(client.jobs())
        seen.take(client.generate("parrot", "a b c", logprobs=1))
        messages = [{"role": "user", "content": "a b c"}]
        seen.take(client.chat("parrot", messages, logprobs=1))
        seen.take(client.embed("encoder", "a"))
        seen.take(client.rerank("encoder", "a", ["a b", "c"]))
        seen.take(client.show("parrot"))
        seen.take(client.loaded(all=True))
        seen.take(client.config_get().values())
        seen.take(client.config_set({"models.keepalive": 5}))
        seen.take(client.config_unset("models.keepalive"))
        seen.take(client.config_reload())
        seen.take(client.http_status())
        seen.take(client.unload("parrot"))
    assert seen.missing() == ELSEWHERE.keys()
