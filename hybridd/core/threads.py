"""Which model computes with how many threads while several models are at work.

An engine that is left to itself computes with a thread for each physical core. Two that do so at
once get in each other's way: an engine's threads wait for one another at every layer, and one that
the kernel has set aside holds up all. So the models that have requests running share the cores,
and a model that is alone has them all again. What was asked for by number is left alone, and
counted; a model that lies wholly on a GPU keeps one processor busy at most, and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hybridd.core.instance import Instance
from hybridd.core.lifecycle import State
from hybridd.core.scheduling import SetThreads


def fair_shares(cores: int, claims: Sequence[int]) -> list[int]:
    """Divide cores among claims: none gets more than it can use, and each at least one.

    What small claims leave goes to the larger ones (max-min fairness). The sum is more than
    `cores` only where there are more claims than cores.
    """
    shares = [0] * len(claims)
    left, waiting = cores, len(claims)
    for index in sorted(range(len(claims)), key=lambda i: claims[i]):
        shares[index] = max(1, min(claims[index], left // waiting))
        left, waiting = max(0, left - shares[index]), waiting - 1
    return shares


def retell(instances: Iterable[Instance], cores: int) -> list[SetThreads]:
    """Share the cores among the instances at work; returns what has to be told, and notes it.

    An idle instance keeps the number that it was told last: it computes nothing.

    Args:
        cores: Physical ones that may be used; 0 where no instance is to be told anything.
    """
    if cores <= 0:
        return []
    working = [i for i in instances if _works_on_cpu(i)]
    given = sum(i.threads_claimed for i in working if i.threads_given)
    sharing = [i for i in working if not i.threads_given]
    told: list[SetThreads] = []
    shares = fair_shares(cores - given, [i.threads_claimed for i in sharing])
    for instance, count in zip(sharing, shares, strict=True):
        if count != (instance.threads_told or instance.threads_claimed):
            instance.threads_told = count
            told.append(SetThreads(instance.number, count))
    return told


def _works_on_cpu(instance: Instance) -> bool:
    at_work = instance.state in (State.READY, State.DRAINING) and instance.active
    return bool(at_work and instance.threads_claimed and not instance.plan.on_gpu_alone)
