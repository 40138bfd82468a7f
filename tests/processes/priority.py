"""An echo engine that says at which priority it was imported, and at which it works.

Where the environment says so, its import at low priority never ends, or none does.
"""

from __future__ import annotations

import os
import signal
import threading

from hybridd.backends.api import LoadedFacts, LoadSpec, Report
from hybridd.backends.echo.engine.generator import EchoEngine


def _priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


LINGERS = "TEST_LOW_PRIORITY_LINGERS"
AT_IMPORT = _priority()
if (AT_IMPORT == 19 and LINGERS in os.environ) or os.environ.get(LINGERS) == "all":
    os.kill(os.getpid(), signal.SIGSTOP)


class PriorityEngine(EchoEngine):
    """Its name is the two priorities."""

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """As the echo engine does."""
        facts = super().load(spec, report)
        facts["engine"] = f"{AT_IMPORT} {_priority()}"
        return facts
