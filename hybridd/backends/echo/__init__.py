"""Echo models, which repeat what they are told and fail on demand: the daemon's test double."""

from __future__ import annotations

from hybridd.core.model import Facts

from ..api import Backend, Parallel, Switch
from .estimate import estimate
from .inspect import FORMAT, inspect

_MOST_PARALLEL = 4096  # as many as a file may say


class EchoBackend(Backend):
    """The daemon's half of the format."""

    name = FORMAT
    engine = "echo"
    engine_factory = "hybridd.backends.echo.engine.generator:EchoEngine"
    switch = Switch("List .echo files: models that repeat what they hear, for tests.", on=False)
    suffixes = (".echo",)
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)

    def parallel(self, facts: Facts) -> Parallel:
        """One at a time, unless the file says more."""
        return Parallel(facts.metadata.get("parallel", 1), _MOST_PARALLEL)


BACKEND: Backend = EchoBackend()
