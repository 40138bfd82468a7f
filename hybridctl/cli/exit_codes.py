"""What `hybridctl` exits with. Scripts rely on these."""

from __future__ import annotations

OK = 0
ERROR = 1
USAGE = 2
NOT_RUNNING = 3
NO_SUCH_MODEL = 4
DOES_NOT_FIT = 5
# 128 + the signal's number, as a shell says it of a program that the signal ended.
INTERRUPTED = 130
BROKEN_PIPE = 141

BY_KIND = {
    "daemon_not_running": NOT_RUNNING,
    "model_not_found": NO_SUCH_MODEL,
    "model_ambiguous": NO_SUCH_MODEL,
    "does_not_fit": DOES_NOT_FIT,
}
