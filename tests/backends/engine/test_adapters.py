"""Names and scales of a request become what tells sequences apart."""

from __future__ import annotations

import pytest

from hybridd.backends.engine.adapters import NO_ADAPTERS, choose
from hybridd.wire.errors import InvalidParams

LOADED = {"b": "B", "a": "A", "same": "A"}


@pytest.mark.parametrize(
    ("wanted", "choice"),
    [
        ([], NO_ADAPTERS),
        ([("a", 0.0)], NO_ADAPTERS),
        ([("b", 1.0), ("a", 0.5)], (("A", 0.5), ("B", 1.0))),
        ([("a", 0.5), ("same", 0.25)], (("A", 0.75),)),
        ([("a", 0.5), ("same", -0.5), ("b", 2.0)], (("B", 2.0),)),
    ],
)
def test_equal_choices_are_equal(wanted: list[tuple[str, float]], choice: object) -> None:
    assert choose(wanted, LOADED) == choice
    assert choose(wanted[::-1], LOADED) == choice


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(InvalidParams, match="'c'; the model was loaded with b, a, same") as caught:
        choose([("a", 1.0), ("c", 0.0)], LOADED)
    assert caught.value.data["field"] == "options.adapters"
    with pytest.raises(InvalidParams, match="without any; load it with"):
        choose([("c", 1.0)], {})
