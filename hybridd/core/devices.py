"""The machine's memory as the planner sees it: an immutable reading, and the arithmetic on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """One pool of memory at one moment.

    Attributes:
        id: `cpu`, `cuda:0`, …
        limit_bytes: What `limits.ram_max` or `limits.vram_max` allows hybridd in all.
        free_bytes: What the kernel or the driver says could be had now. File-backed pages that a
            worker maps count as free, since the kernel takes them back without writing.
        hybridd_bytes: Private memory of hybridd's workers on it, measured, and what those of a
            model share with its template.
        templates_bytes: Of the templates beside that: they are no models but take room as well.
    """

    id: str
    kind: str
    name: str
    total_bytes: int
    free_bytes: int
    limit_bytes: int
    hybridd_bytes: int = 0
    templates_bytes: int = 0
    uuid: str | None = None

    @property
    def capacity_bytes(self) -> int:
        """What hybridd's models could have in all if each of them were measured away first."""
        return max(0, min(self.limit_bytes, self.free_bytes + self.hybridd_bytes))

    def to_wire(self) -> dict[str, Any]:
        """The device as `system.info` shows it."""
        fields = {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "uuid": self.uuid,
            "total_bytes": self.total_bytes,
            "free_bytes": self.free_bytes,
            "limit_bytes": self.limit_bytes,
            "hybridd_bytes": self.hybridd_bytes,
            "templates_bytes": self.templates_bytes,
        }
        return {k: v for k, v in fields.items() if v is not None}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All devices at one moment; the CPU is always there, GPUs come in the driver's order."""

    devices: tuple[Device, ...] = field(default_factory=tuple)

    def available(self, reserved: Iterable[Mapping[str, int]]) -> dict[str, int]:
        """Bytes by device that a new model could reserve beside these reservations.

        May be negative when others took memory that was promised to a model.
        """
        left = {d.id: d.capacity_bytes for d in self.devices}
        for shares in reserved:
            for device, size in shares.items():
                if device in left:
                    left[device] -= size
        return left

    @property
    def gpus(self) -> tuple[Device, ...]:
        """The devices that are no CPU."""
        return tuple(d for d in self.devices if d.id != CPU)
