"""Which adapters a sequence is computed with: one type, in which every engine tells them apart.

An adapter is a state of the model while a pass is computed. So sequences with different choices
never share a pass, and what was computed with one choice is of no use to a sequence with another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybridd.wire.errors import InvalidParams

# Of each adapter that counts: what stands for its content, and its scale. In order, so that equal
# choices are equal.
AdapterChoice = tuple[tuple[str, float], ...]
NO_ADAPTERS: AdapterChoice = ()


def choose(wanted: Sequence[tuple[str, float]], loaded: Mapping[str, str]) -> AdapterChoice:
    """What a request's `adapters` mean.

    Args:
        wanted: Names and scales. A scale of 0 is no adapter; scales of one content add up.
        loaded: Name -> what stands for its content. Two names may have the same.

    Raises:
        InvalidParams: A name that was not loaded.
    """
    if not wanted:
        return NO_ADAPTERS
    scales: dict[str, float] = {}
    for name, scale in wanted:
        if name not in loaded:
            raise InvalidParams(_unknown(name, loaded), field="options.adapters", reason="unknown")
        scales[loaded[name]] = scales.get(loaded[name], 0.0) + scale
    return tuple(sorted((content, scale) for content, scale in scales.items() if scale))


def _unknown(name: str, loaded: Mapping[str, str]) -> str:
    if not loaded:
        return (
            f"there is no adapter {name!r}: the model was loaded without any; load it with "
            "load_options.adapters"
        )
    return f"there is no adapter {name!r}; the model was loaded with {', '.join(loaded)}"
