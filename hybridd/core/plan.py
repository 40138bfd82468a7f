"""What a load needs and where it goes: estimate x free memory -> placement. Pure arithmetic.

A model goes whole to the first GPU that has room, else (GGUF) with as many layers as fit, or (what
can be spread, `core/spread`) to several GPUs and main memory, else to the CPU. What was asked for
by number is never changed; what was left to us ("auto") is settled here, so that the engine gets
numbers. Where memory is short, this goes first, and the next only when that is not enough:

1. Requests at a time: from the engine's usual number by halves down to one. They serve requests
   that may come, while everything below is felt by each request that does; so for them no other
   model leaves and no layer leaves the GPU.
2. Other models, as far as they may go (`placing`). Once they have gone the load is planned again,
   and takes as many requests at a time as have room then.
3. The context length, down to `MIN_AUTO_CONTEXT`, when the whole machine, with every other model
   gone, has no room for one request of the full length.

A cache in main memory for sequences that have to leave the KV cache gets a part of what is left in
the end (`with_host_cache`): nothing goes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hybridd.core.devices import CPU
from hybridd.core.model import Estimate
from hybridd.core.spread import shares
from hybridd.wire.units import format_size

# The length of a model that does not say what it was made for.
DEFAULT_CONTEXT = 8192
# Under this a context is of no use for a chat, so "auto" goes no lower.
MIN_AUTO_CONTEXT = 512
# A host cache gets this part of what is free once everything has its place, so that the next model
# finds room without that a model has to leave for a cache.
HOST_CACHE_SHARE = 4
# Under this it holds no conversation of a model for which computing it anew takes any time.
MIN_HOST_CACHE_BYTES = 16 * 1024 * 1024
# Kept free on a GPU for the driver's own context and fragmentation.
GPU_SLACK_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Need:
    """One model as the planner has to know it.

    Attributes:
        estimate: Load options with numbers -> bytes; the backend's own formula.
        context_length: The longest that the model was made for, when it says so.
        auto_context: The cap that "auto" takes; 0 for none but the model's own.
        host_cache: The most main memory for states of sequences; 0 where the engine keeps none.
        auto_parallel: Requests at a time that "auto" takes when there is room.
        gpu: Whether the engine that is installed can use a GPU.
        layers: For a split between GPU and CPU; None when the engine cannot split.
    """

    model: str
    estimate: Callable[[Mapping[str, Any]], Estimate]
    context_length: int | None = None
    auto_context: int = DEFAULT_CONTEXT
    auto_parallel: int = 1
    host_cache: int = 0
    gpu: bool = False
    layers: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The answer: `placement` is empty when it does not fit.

    Attributes:
        host_cache_bytes: Of the CPU's share, what the engine may keep states of sequences in. It
            is part of the estimate's overhead.
    """

    model: str
    load_options: Mapping[str, Any]
    estimate: Estimate
    placement: Mapping[str, int]
    free: Mapping[str, int]
    evict: Sequence[Mapping[str, Any]] = ()
    max_context_length: int = 0
    gpu_layers: int | None = None
    host_cache_bytes: int = 0
    reason: str | None = None
    hint: str | None = None  # what to do, where less context is not the answer

    @property
    def on_gpu_alone(self) -> bool:
        """Whether the CPU holds nothing of it that is computed with."""
        elsewhere = any(device != CPU for device in self.placement)
        return elsewhere and self.placement.get(CPU, 0) <= self.host_cache_bytes

    @property
    def fits(self) -> bool:
        """Whether there is a placement."""
        return bool(self.placement)

    def to_wire(self) -> dict[str, Any]:
        """As `models.plan` and `does_not_fit` show it."""
        e = self.estimate
        fields: dict[str, Any] = {
            "model": self.model,
            "load_options": dict(self.load_options),
            "fits": self.fits,
            "estimate": {
                "weights_bytes": e.weights_bytes,
                "kv_cache_bytes": e.kv_cache_bytes,
                "compute_bytes": e.compute_bytes,
                "overhead_bytes": e.overhead_bytes,
                "reserved_bytes": e.reserved_bytes,
                "resident_bytes": e.resident_bytes,
                "source": e.source,
            },
            "placement": [
                {"device": d, "bytes": n}
                | ({"layers": self.gpu_layers} if d != CPU and self.gpu_layers is not None else {})
                for d, n in self.placement.items()
            ],
            "free": [{"device": d, "bytes": max(0, n)} for d, n in self.free.items()],
            "evict": list(self.evict),
            "max_context_length": self.max_context_length,
        }
        if self.reason:
            fields["reason"] = self.reason
        return fields


def settle(
    need: Need,
    wanted: Mapping[str, Any],
    *,
    context_length: int | None = None,
    parallel: int | None = None,
) -> dict[str, Any]:
    """Turn every "auto" of the context's size into a number.

    Args:
        context_length: What "auto" is to take instead of the usual.
        parallel: The same.
    """
    options = dict(wanted)
    cells = _number(options, "kv_cells")
    if _number(options, "context_length") is None:
        usual = min(_native(need), need.auto_context or _native(need))
        # Cells that were given by number bound what one request can have of them.
        options["context_length"] = min(context_length or usual, cells or usual)
    if _number(options, "parallel") is None:
        options["parallel"] = parallel or need.auto_parallel
    if cells is None:
        options["kv_cells"] = options["context_length"] * options["parallel"]
    return options


def _number(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    return value if isinstance(value, int) else None


def _native(need: Need) -> int:
    """The longest context that the model was made for."""
    return need.context_length or DEFAULT_CONTEXT


def _parallel_choices(need: Need, wanted: Mapping[str, Any]) -> list[int]:
    """The numbers of requests at a time to try, the most first."""
    asked = _number(wanted, "parallel")
    if asked is not None:
        return [asked]
    choices = [max(1, need.auto_parallel)]
    while choices[-1] > 1:
        choices.append(choices[-1] // 2)
    return choices


def place(need: Need, options: Mapping[str, Any], available: Mapping[str, int]) -> Plan:
    """Put a load with settled options into `available` bytes by device, or say why not."""
    estimate = need.estimate(options)
    total = estimate.reserved_bytes
    base = Plan(need.model, options, estimate, {}, available)
    layers = options.get("gpu_layers", "auto")
    device = options.get("device")
    gpus = [d for d in available if d != CPU and (device is None or d == device)]
    if device not in (None, CPU, *gpus):
        known = ", ".join(available)
        return replace(base, reason=f"there is no device {device!r}", hint=f"there are {known}")
    if device not in (None, CPU) and not need.gpu:
        return replace(base, reason=f"its engine as installed cannot use the device {device!r}")
    # 1 is one layer, 1.0 all of them: Python holds them for equal.
    whole = layers == "auto" or (isinstance(layers, float) and layers == 1.0) or not need.layers
    usable = gpus if need.gpu and device != CPU and layers != 0 else []
    for gpu in usable:
        room = available[gpu] - GPU_SLACK_BYTES
        if whole and total <= room:
            return _placed(base, {gpu: total}, need.layers)
        count = _layers_that_fit(need, estimate, layers, room)
        if count:
            share = _gpu_share(need, estimate, count)
            if total - share <= available.get(CPU, 0):
                return _placed(base, {gpu: share, CPU: total - share}, count)
    if usable and device is None:
        rooms = {gpu: available[gpu] - GPU_SLACK_BYTES for gpu in usable}
        if spread := shares(estimate, rooms, available.get(CPU, 0)):
            return _placed(base, spread, None)
    # What was asked onto a GPU by number is not quietly put elsewhere, if there is one to use.
    elsewhere = device in (None, CPU) and (layers == "auto" or not usable)
    if elsewhere and total <= available.get(CPU, 0):
        return _placed(base, {CPU: total}, 0)
    return replace(
        base,
        reason=f"it needs {format_size(total)}; free: "
        + ", ".join(f"{format_size(max(0, n))} on {d}" for d, n in available.items()),
    )


def _placed(base: Plan, shares: dict[str, int], layers: int | None) -> Plan:
    options = dict(base.load_options)
    if any(device != CPU for device in base.free):
        # With a GPU in the machine the engine must not choose another place than the plan did.
        options["device"] = next(iter(shares))
        if layers is not None:
            options["gpu_layers"] = layers
    return replace(base, placement=shares, gpu_layers=layers, load_options=options)


def _gpu_share(need: Need, estimate: Estimate, count: int) -> int:
    """Bytes of `count` layers with their KV cache, and the compute buffer."""
    assert need.layers
    per_layer = (estimate.weights_bytes + estimate.kv_cache_bytes) / need.layers
    return int(per_layer * count) + estimate.compute_bytes


def _layers_that_fit(need: Need, estimate: Estimate, wanted: object, room: int) -> int:
    if not need.layers:
        return 0
    if wanted == "auto":
        most = need.layers
    elif isinstance(wanted, float):
        most = round(wanted * need.layers)
    else:
        most = min(int(str(wanted)), need.layers)
    while most and _gpu_share(need, estimate, most) > room:
        if wanted != "auto":
            return 0  # nor is it made less
        most -= 1
    return most


def largest_context(need: Need, wanted: Mapping[str, Any], available: Mapping[str, int]) -> int:
    """The longest context, up to the model's own, that fits into `available`; 0 when none does."""
    low, high = 0, min(_native(need), _number(wanted, "kv_cells") or _native(need))
    fewest = _parallel_choices(need, wanted)[-1]
    while low < high:
        middle = (low + high + 1) // 2
        options = settle(need, {**wanted, "context_length": middle}, parallel=fewest)
        if place(need, options, available).fits:
            low = middle
        else:
            high = middle - 1
    return low


def fit(
    need: Need, wanted: Mapping[str, Any], available: Mapping[str, int], all_free: Mapping[str, int]
) -> Plan:
    """Plan a load.

    Args:
        available: Bytes by device beside what is loaded now.
        all_free: The same if every model that may ever be evicted were gone.

    Returns:
        A plan that fits now; or one that does not, whose `load_options` are those to wait for: the
        least that will do, so that no more has to leave than must. Its `max_context_length` is 0
        only when it would not fit with everything evicted either.
    """
    *more, fewest = _parallel_choices(need, wanted)
    now = place(need, settle(need, wanted, parallel=fewest), available)
    if now.fits:
        longest = largest_context(need, wanted, available)
        for parallel in more:
            roomy = place(need, settle(need, wanted, parallel=parallel), available)
            if roomy.fits and _speed(roomy) == _speed(now):
                return replace(roomy, max_context_length=longest)
        return replace(now, max_context_length=longest)
    longest = largest_context(need, wanted, all_free)
    if (
        not place(need, now.load_options, all_free).fits
        and _number(wanted, "context_length") is None
        and longest >= MIN_AUTO_CONTEXT
    ):
        shorter = min(longest, now.load_options["context_length"])
        options = settle(need, wanted, context_length=shorter, parallel=fewest)
        now = place(need, options, available)
    return replace(now, max_context_length=longest)


def with_host_cache(need: Need, planned: Plan, spare: int) -> Plan:
    """Reserve a host cache of up to `need.host_cache` bytes, if there is room for one of any use.

    Args:
        spare: Bytes of main memory that no model needs beside this load.
    """
    size = min(need.host_cache, spare // HOST_CACHE_SHARE)
    if not planned.fits or size < MIN_HOST_CACHE_BYTES:
        return planned
    estimate = replace(planned.estimate, overhead_bytes=planned.estimate.overhead_bytes + size)
    placement = {**planned.placement, CPU: planned.placement.get(CPU, 0) + size}
    return replace(planned, estimate=estimate, placement=placement, host_cache_bytes=size)


def _speed(planned: Plan) -> tuple[list[str], int | None]:
    """What tells fast placements of a model from slow ones: where it lies, layers on the GPU."""
    return list(planned.placement), planned.gpu_layers
