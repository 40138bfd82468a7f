"""What a face's tests ask the gateway, with a manager that is a fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from hybridd.core.model import Facts, FileIdentity, Location, ModelRecord
from hybridd.http.faces.api import Ask, Call
from hybridd.parts import Daemon
from hybridd.serving.requests import Sink
from hybridd.serving.views import Overlay
from hybridd.wire.delta import Delta
from hybridd.wire.errors import ModelNotFound

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "cached_tokens": 8, "total_tokens": 23}
TIMINGS = {"total_s": 1.5, "load_s": 0.25, "prompt_s": 0.125, "generation_s": 1.0}


def generates(*texts: str, chat: bool = True, **more: Any) -> Callable[[str, Sink | None], Any]:
    """What a model does: brings these texts, each in a step of its own.

    Args:
        chat: Whether it answers a conversation, not a plain prompt.
        more: Of the result.
    """

    async def work(model: str, sink: Sink | None) -> dict[str, Any]:
        for text in texts:
            await trio.lowlevel.checkpoint()
            if sink is not None and (flush := sink(Delta(text, 1))):
                flush()
        whole = "" if sink is not None else "".join(texts)
        said = {"message": {"role": "assistant", "content": whole}} if chat else {"text": whole}
        ended = {"finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}
        return {"model": model, **said, **ended, **more}

    return work


def record(id: str, **more: Any) -> ModelRecord:
    """A model of the catalog; what is no field of a record is one of its facts."""
    own = {name: more.pop(name) for name in list(more) if name in ModelRecord.__dataclass_fields__}
    known = {"architecture": "llama", "capabilities": ("completion", "chat"), "size_bytes": 10}
    path = Path(f"/models/{id}")
    values: dict[str, Any] = {
        "id": id,
        "facts": Facts("gguf", (path,), **{**known, **more}),
        "publisher": "lab",
        "name": id,
        "store": "local",
        "path": path,
        "locations": (Location("local", path),),
        "status": "available",
        "reason": None,
        "modified_at": 1796125731.25,
        "files": (path,),
        "identity": (FileIdentity(1, 2, 10, 3),),
    }
    return ModelRecord(**{**values, **own})


class _Settings(dict[str, dict[str, Any]]):
    """See `serving.model_settings`: every model has some, if none."""

    def get(self, id: str, default: Any = None) -> Any:
        return super().get(id, {})


class Models:
    """A manager that is a fake: models by their ids, and what a test lets them answer.

    Attributes:
        answer: What an ask is answered with.
        asked: Every ask, in order.
        moved: Every load and unload, in order.
        settings: What models were configured to, by id.
    """

    def __init__(
        self,
        *records: ModelRecord,
        answer: Callable[[Ask], Mapping[str, Any]] | None = None,
        loaded: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.records = {each.id: each for each in records}
        self.asked: list[Ask] = []
        self.moved: list[tuple[str, str, dict[str, Any]]] = []
        self.answer = answer
        self._loaded = loaded
        self.model_map: dict[str, str] = {}
        self.settings = _Settings()

    async def find(self, name: str) -> ModelRecord:
        await trio.lowlevel.checkpoint()
        if name not in self.records:
            raise ModelNotFound(f"there is no model {name!r}", model=name)
        return self.records[name]

    async def infer(self, ask: Ask) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.asked.append(ask)
        assert self.answer is not None
        return dict(self.answer(ask))

    async def load(self, name: str, **others: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.moved.append(("load", name, others))
        return {"id": name}

    async def unload(self, name: str, **others: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.moved.append(("unload", name, others))
        return {"unloaded": [name]}

    async def loaded(self) -> list[Mapping[str, Any]]:
        await trio.lowlevel.checkpoint()
        return list(self._loaded)

    @property
    def loaded_models(self) -> list[str]:
        return [each["id"] for each in self._loaded if each["status"] == "loaded"]

    def listed(self) -> Mapping[str, ModelRecord]:
        return self.records

    def usable(self, each: ModelRecord) -> bool:
        return each.available

    def overlay(self, id: str) -> Overlay | None:
        statuses = {each["id"]: each["status"] for each in self._loaded}
        return Overlay(statuses[id]) if id in statuses else None

    def call(self, body: Any = None, query: Mapping[str, str] | None = None, **path: str) -> Call:
        """A request to a handler."""

        async def wait_complete() -> None:
            await trio.lowlevel.checkpoint()

        parts: Any = SimpleNamespace(
            manager=self,
            library=SimpleNamespace(wait_complete=wait_complete),
            configuration={"http.model_map": self.model_map},
        )
        daemon: Daemon = parts
        return Call(daemon, "POST", path, query or {}, {}, body, "req_1", 0.0, self.infer)
