"""Where the daemon's plan puts a model, in transformers' words. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from hybridd.core.devices import CPU
from hybridd.core.model import Estimate
from hybridd.core.spread import budgets
from hybridd.wire.errors import LoadFailed, Unsupported


def is_spread(placement: Mapping[str, int]) -> bool:
    """Whether a plan puts a model on several devices."""
    return len(placement) > 1


def max_memory(placement: Mapping[str, int], estimate: Estimate) -> dict[int | str, int]:
    """transformers' `max_memory`: bytes of weights for each device that the plan names.

    GPUs are numbered as NVML numbers them, which is torch's order with
    CUDA_DEVICE_ORDER=PCI_BUS_ID. Main memory is not limited where it is planned for, since the GPUs
    take at least what the plan counted on; otherwise nothing may go there.
    """
    limits: dict[int | str, int] = {
        int(device.partition(":")[2]): max(0, size)
        for device, size in budgets(estimate, placement).items()
    }
    # accelerate keeps the room of a part free here too.
    limits[CPU] = 3 * estimate.weights_bytes if CPU in placement else 0
    return limits


def check(placement: Mapping[str, int], estimate: Estimate, model: str, cuda_devices: int) -> None:
    """Whether the plan can be followed here.

    Raises:
        Unsupported: A package is missing.
        LoadFailed: A device is not there, or the plan is of another model.
    """
    if find_spec("accelerate") is None:
        raise Unsupported(
            f"{model} has to lie on several devices ({', '.join(placement)}), which needs the "
            "Python package accelerate; install it with: pip install 'hybridd[quantization]'",
            capability="several devices",
            format="huggingface",
        )
    gone = [
        device
        for device in placement
        if device != CPU and int(device.partition(":")[2]) >= cuda_devices
    ]
    if gone or estimate.spread is None:
        why = f"torch sees no device {gone[0]}" if gone else "its parts cannot be told apart"
        raise LoadFailed(
            f"{model} cannot be put on the devices that were planned: {why}", reason=why
        )
