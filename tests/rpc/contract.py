"""What `rpc.discover` says, as checks: of a reply, of a notification, of an error."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonschema

import hybridd.rpc.methods
from hybridd.rpc.discover import document
from hybridd.rpc.registry import REGISTRY

assert hybridd.rpc.methods


class Contract:
    """A document, whose records here have no other fields than it names."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.document = copy.deepcopy(dict(told))
        for schema in self.document["components"]["schemas"].values():
            # x-… are this document's own extensions.
            schema.update(additionalProperties=False, patternProperties={"^x-": {}})
        self.methods = {method["name"]: method for method in self.document["methods"]}
        self.notifications = {n["name"]: n for n in self.document["x-notifications"]}
        self._events = {(e["topic"], e["type"]): e["fields"] for e in self.document["x-events"]}
        self._everywhere = {_kind(error) for error in self.document["x-errors"]}

    def check_reply(self, method: str, reply: Mapping[str, Any]) -> None:
        """A response is what the method's entry says."""
        if "error" in reply:
            self.check_error(method, reply["error"])
        else:
            self._check(reply["result"], self.methods[method]["result"]["schema"])

    def check_error(self, method: str, error: Mapping[str, Any]) -> None:
        """An error is one that the method may end with, and has the facts of its kind."""
        kind = error["data"]["kind"]
        own = {_kind(e) for e in self.methods[method]["errors"]}
        assert kind in own | self._everywhere, f"{method} says nothing of {kind}"
        told = self.document["components"]["errors"][kind]
        assert error["code"] == told["code"]
        assert all(name == "kind" or name in told["x-data"] for name in error["data"])
        if "plan" in error["data"]:
            self._check(error["data"]["plan"], {"$ref": "#/components/schemas/Plan"})

    def check_notification(self, message: Mapping[str, Any]) -> None:
        """A notification is one of those that are told, an event too."""
        params = dict(message["params"])
        if message["method"] == "$/event":
            own = self._events[params["topic"], params["type"]]
            assert set(own) >= {k for k in params if k not in _EVENT}
            params = {k: v for k, v in params.items() if k in _EVENT}
        self._check(params, self.notifications[message["method"]]["params"])

    def _check(self, value: Any, schema: Mapping[str, Any]) -> None:
        components = self.document["components"]
        validator = jsonschema.Draft202012Validator({**schema, "components": components})
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not problems


_EVENT = ("subscription", "seq", "time", "topic", "type")


def _kind(error: Mapping[str, str]) -> str:
    return error["$ref"].rpartition("/")[2]


def contract() -> Contract:
    """The contract of this tree."""
    return Contract(document(REGISTRY.methods))
