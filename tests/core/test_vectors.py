"""A worker's word is not taken for JSON."""

from __future__ import annotations

import pytest

from hybridd.core.vectors import as_numbers


@pytest.mark.parametrize("text", ["[1,2]extra", "[1],[2]", '[1,"x"]', "1,2", "[1,2]\n", "]1["])
def test_a_vector_of_a_worker_is_numbers_and_nothing_else(text: str) -> None:
    assert as_numbers("[0.5,-1e-07,3]") == b"[0.5,-1e-07,3]"
    with pytest.raises(ValueError, match="no list of numbers"):
        as_numbers(text)
