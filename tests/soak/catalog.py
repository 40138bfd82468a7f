"""Downloads and malformed files in a live daemon's directory.

    python -m tests.soak.catalog [--downloads 300] [--malformed 1000] [--loads 1000] [--seed 1]

Downloads come in pieces with pauses, by the four ways that programs write them: in place, to a
name of their own that is changed at the end, and with the whole size from the start, with and
without aria2's control file beside them. Who writes with it closes the file between the pieces; who
writes without keeps it open, which is all that tells. None may be available before its last byte is
there; how long each takes from there is printed. Malformed files are mutants of
`tests/fuzz/headers.py`; the daemon is pinged while it reads them, then each is loaded, first those
that are listed as usable: a typed error or a model, and a daemon that lives. The exit code is 1 if
anything else is seen.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from hybridctl import HybriddError
from tests.bench.catalog import percentile, pinged, say
from tests.e2e.conftest import RealDaemon, check_end
from tests.fuzz import headers
from tests.make_models import write_gguf

SETTLE_S = 1.0
ALLOWED_S = 5.0
# Shorter and longer than the settle time.
_PAUSES_S = (0.05, 0.3, 0.9, 1.1, 1.5, 2.5)
_MANNERS = ("in place", "renamed", "aria2", "allocated")


class Download:
    """One file that comes in pieces."""

    def __init__(self, number: int, raw: bytes, models: Path, chance: random.Random) -> None:
        self.number = number
        self.manner = _MANNERS[number % len(_MANNERS)]
        self.target = models / f"d{number % 17}" / f"r{number}" / f"x{number}.gguf"
        self.target.parent.mkdir(parents=True)
        renamed = self.manner == "renamed"
        self.path = self.target.with_name(self.target.name + ".part") if renamed else self.target
        cuts = sorted(chance.sample(range(1, len(raw)), chance.randint(2, 5)))
        edges = [0, *cuts, len(raw)]
        self._pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
        self._file = self.path.open("wb")
        self._written = 0
        self._control = self.target.with_name(self.target.name + ".aria2")
        if self.manner == "aria2":
            self._control.touch()
        if self.manner in ("aria2", "allocated"):
            self._file.truncate(len(raw))
        self.complete_at: float | None = None

    def go_on(self) -> bool:
        """Write the next piece; whether there is another."""
        if len(self._pieces) == 1 and self.manner == "in place":
            self.complete_at = time.time()  # before: the daemon may be quicker than we are
        if self._file.closed:
            self._file = self.path.open("r+b")
            self._file.seek(self._written)
        self._written += self._file.write(self._pieces.pop(0))
        self._file.flush()
        if self._pieces:
            if self.manner == "aria2":
                self._file.close()  # nothing but the mark tells
            return True
        if self.manner == "allocated":
            self.complete_at = time.time()
        self._file.close()
        if self.manner == "renamed":
            self.complete_at = time.time()
            os.replace(self.path, self.target)
        elif self.manner == "aria2":
            self.complete_at = time.time()
            self._control.unlink()
        return False


def downloads(daemon: RealDaemon, count: int, seed: int) -> bool:
    """Write them side by side, and compare with when the daemon says that each is available."""
    chance = random.Random(seed)
    raw = write_gguf(daemon.directory / "whole.gguf").read_bytes()
    ready: dict[str, float] = {}
    everything = threading.Event()

    with daemon.client() as client, client.events("models") as events:

        def listen() -> None:
            for event in events:
                if event.raw.get("status") == "available" and event.type in ("added", "changed"):
                    ready.setdefault(str(event.raw["id"]).partition(":")[0], event.time)
                    if len(ready) >= count:
                        everything.set()
                        return

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        made = [Download(n, raw, daemon.models, chance) for n in range(count)]
        due = [(time.monotonic() + chance.choice(_PAUSES_S), one.number) for one in made]
        heapq.heapify(due)
        while due:
            at, number = heapq.heappop(due)
            time.sleep(max(0.0, at - time.monotonic()))
            if made[number].go_on():
                heapq.heappush(due, (time.monotonic() + chance.choice(_PAUSES_S), number))
        everything.wait(30)
    late, early, never = [], Counter[str](), 0
    for one in made:
        seen = ready.get(f"d{one.number % 17}/r{one.number}")
        if seen is None or one.complete_at is None:
            never += 1
            continue
        early[one.manner] += seen < one.complete_at
        late.append(seen - one.complete_at)
    shown = (f"{percentile(late, share):.2f}" for share in (0.5, 0.99, 1.0)) if late else ("-",)
    say(f"{count} downloads: ready after the last byte, p50, p99, max", " / ".join(shown) + " s")
    say("  ready early, never ready", f"{early.total()}, {never}")
    return not early.total() and not never and max(late, default=0) <= ALLOWED_S


def malformed(daemon: RealDaemon, count: int, loads: int, seed: int) -> bool:
    """Put mutants where the daemon looks, then ask for each."""
    with pinged(daemon, f"while {count} malformed models arrive"):
        for number in range(count):
            chance = random.Random(f"{seed}/{number}")
            place = daemon.models / f"bad{number}"
            place.mkdir()
            made = headers.KINDS[number % len(headers.KINDS)].make(chance, place)
            for path in (made, *(made.iterdir() if made.is_dir() else ())):
                os.utime(path, (1e9, 1e9))
        with daemon.client() as client:
            client.rescan()
            listed = [m for m in client.list(all=True) if "bad" in m.raw["source"]["path"]]
    said = Counter(m.status for m in listed)
    say("  listed as", ", ".join(f"{k}: {v}" for k, v in sorted(said.items())))
    outcomes: Counter[str] = Counter()
    bad = 0
    with daemon.client() as client, pinged(daemon, "while they are loaded by force"):
        # Only what is listed as usable costs a worker.
        for model in sorted(listed, key=lambda model: model.status != "available")[:loads]:
            try:
                client.load(model.id, keepalive=0)
                outcomes["loaded"] += 1
            except HybriddError as error:
                outcomes[error.kind] += 1
                bad += error.kind == "internal_error"
    say("  loaded by force", ", ".join(f"{k}: {v}" for k, v in sorted(outcomes.items())))
    return bad == 0


def main() -> int:
    """Run both and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--downloads", type=int, default=300)
    arguments.add_argument("--malformed", type=int, default=1000)
    arguments.add_argument("--loads", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    directory = Path(tempfile.mkdtemp())
    daemon = RealDaemon(directory, HYBRIDD_CATALOG_DEMO="false")
    daemon.start()
    try:
        good = downloads(daemon, options.downloads, options.seed)
        good = malformed(daemon, options.malformed, options.loads, options.seed) and good
    finally:
        check_end(daemon)
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
