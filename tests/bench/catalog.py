"""What a large collection costs: the first scan, a restart, lists, memory, changes.

    python -m tests.bench.catalog [--models 10000] [--burst 60000] [--arrivals 50] [--directory DIR]

Makes the collection of `tests/make_collection.py` (or takes what is in DIR already), starts a real
daemon on it with an empty cache, pings it all the while from another process, then restarts it,
lists, adds models and makes a burst of changes. Times are wall-clock; the header's is the
thread's own. Prints figures beside the machine's load; asserts nothing but equality with the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hybridd.backends.gguf.inspect import inspect
from tests.bench import steps
from tests.e2e.conftest import RealDaemon, Wire
from tests.make_collection import make, metadata, tensors, vocabulary
from tests.make_models import write_echo, write_gguf

SETTLE_S = 1.0
_PING_EVERY_S = 0.005
_CHANGES_AT_A_TIME = 500


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def say(what: str, figure: str) -> None:
    """One line, with the load beside it, for other work on the machine shows in everything."""
    print(f"{what:<58} {figure:<60} load {os.getloadavg()[0]:.1f}", flush=True)


# ---------------------------------------------------------------- pinging


def _ping(socket: str, control: Connection) -> None:
    """Ping until told to end; answer with the seconds of each."""
    taken = []
    with Wire(socket) as wire:
        control.send("pinging")
        while not control.poll(_PING_EVERY_S):
            began = time.perf_counter()
            wire.call("system.ping")
            taken.append(time.perf_counter() - began)
    control.send(taken)


@contextlib.contextmanager
def pinged(daemon: RealDaemon, during: str) -> Iterator[None]:
    """Ping from another process for as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_ping, args=(daemon.socket, theirs))
    process.start()
    ours.recv()
    try:
        yield
    finally:
        ours.send("end")
        taken = ours.recv()
        process.join()
    shown = (f"{percentile(taken, share) * 1000:.1f}" for share in (0.5, 0.99, 1.0))
    say(f"  system.ping {during}: p50, p99, max", " / ".join(shown) + f" ms of {len(taken)}")


@contextlib.contextmanager
def held(daemon: RealDaemon, which: str) -> Iterator[None]:
    """Say which step of any task held the loop longest while the block ran, inside the daemon."""
    began = time.time()
    yield
    found = steps.read(_steps(daemon), began)
    longest = max(found, key=lambda step: step.held_s, default=None)
    own = max(found, key=lambda step: step.own_s, default=None)
    if longest is None or own is None:
        figure = f"under {steps.NOTED_S * 1e3:.0f} ms"
    else:
        figure = f"{longest.held_s * 1e3:.1f} ms; of its own {own.own_s * 1e3:.1f} ms"
    say(f"  longest step of the loop, {which} models.list", figure)


def _steps(daemon: RealDaemon) -> Path:
    return Path(daemon.environment["BENCH_STEPS"])


# ---------------------------------------------------------------- figures


def rss_mib(daemon: RealDaemon) -> float:
    """The daemon's resident memory."""
    text = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def cpu_s(daemon: RealDaemon) -> float:
    """The processor time that the daemon has taken, which other work on the machine blurs less."""
    words = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def complete(daemon: RealDaemon) -> dict[str, Any]:
    """Wait for the first scan; the catalog's part of system.info."""
    with daemon.client() as client:
        while not (info := client.info().raw["catalog"])["complete"]:
            time.sleep(0.02)
    return dict(info)


def header() -> None:
    """One header with 152k tokens and merges."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "m.gguf"
        write_gguf(path, metadata("m", 15, vocabulary(152_064)), tensors("Q4_K", 152_064))
        wall, own = [], []
        for _ in range(11):
            began = time.perf_counter(), time.thread_time()
            inspect(path)
            wall.append(time.perf_counter() - began[0])
            own.append(time.thread_time() - began[1])
    figure = (
        f"{statistics.median(wall) * 1e3:.0f} ms, {statistics.median(own) * 1e3:.0f} of its own"
    )
    say("one header, 152k tokens and merges (median)", figure)


def first_scan(daemon: RealDaemon, cached: bool) -> None:
    """Start it on the collection, and list everything."""
    began = time.perf_counter()
    daemon.start()
    ready = time.perf_counter() - began
    with contextlib.nullcontext() if cached else pinged(daemon, "meanwhile"):
        info = complete(daemon)
    taken = time.perf_counter() - began
    say(
        "restart, with the cache" if cached else "first scan, without a cache",
        f"{taken:.1f} s ({ready:.1f} to READY, {cpu_s(daemon):.1f} of CPU), {info['models']} found",
    )
    if cached:
        with daemon.client() as client:
            count = len(client.list(all=True))
        say(
            "  start to the complete list in a client",
            f"{time.perf_counter() - began:.1f} s, {count}",
        )
    say("  resident memory of the daemon", f"{rss_mib(daemon):.0f} MiB")


def lists(daemon: RealDaemon) -> None:
    """models.list by other processes, while we ping."""
    command = [sys.executable, "-m", "hybridctl", "list", "--json", "--all"]
    for which, count in (("first", 1), ("next five", 5)):
        with pinged(daemon, f"beside the {which} models.list"), held(daemon, which):
            for _ in range(count):
                subprocess.run(
                    command, env=daemon.environment, stdout=subprocess.DEVNULL, check=True
                )
    with daemon.client() as client:
        began = time.perf_counter()
        client.list(all=True)
        say("models.list of everything, in a client", f"{time.perf_counter() - began:.2f} s")
        began = cpu_s(daemon)
        with pinged(daemon, "during a rescan"):
            result = client.rescan()
        figure = f"{result.seconds_s:.2f} s ({cpu_s(daemon) - began:.2f} of CPU)"
    say("a full rescan without changes", figure)
    say("  resident memory of the daemon", f"{rss_mib(daemon):.0f} MiB")


def arrivals(daemon: RealDaemon, count: int) -> None:
    """From a model's last byte to its event, less the settle time."""
    late = []
    with daemon.client() as client, client.events("models") as events:
        for number in range(count):
            path = daemon.models / f"publisher-{number % 40}" / f"new-{number}" / "new-Q4_K_M.gguf"
            write_gguf(path)
            written = time.time()
            for event in events:
                if event.type == "added" and f"new-{number}:" in str(event.raw["id"]):
                    late.append(event.time - written - SETTLE_S)
                    break
    shown = (f"{percentile(late, share):.2f}" for share in (0.5, 0.99, 1.0))
    say("a new model is listed after its settle time: p50, p99, max", " / ".join(shown) + " s")


def burst(daemon: RealDaemon, count: int) -> None:
    """Create and delete, then compare the catalog with the disk until they are equal."""
    chance = random.Random(3)
    root = daemon.models / "burst"
    living: list[str] = []
    began = time.perf_counter()
    done = number = 0
    while done < count:
        living.append(name := f"d{number % 100}/m{number}.echo")
        write_echo(root / name)
        done, number = done + 1, number + 1
        if done < count and (number > 2000 or number % 3 == 0):
            at = chance.randrange(len(living))
            living[at], living[-1] = living[-1], living[at]
            os.unlink(root / living.pop())
            done += 1
    made = time.perf_counter() - began
    expected = {os.fspath(root / name) for name in living}
    ended = time.perf_counter()
    with daemon.client() as client:
        while True:
            found = {m.raw["source"]["path"] for m in client.list(all=True, format="echo")}
            if found == expected:
                break
            if time.perf_counter() - ended > 120:
                raise SystemExit(f"{len(expected - found)} missed, {len(found - expected)} phantom")
            time.sleep(0.1)
    say(
        f"{count} creations and deletions in {made:.0f} s: equal to the disk",
        f"{time.perf_counter() - ended:.1f} s after the last, {len(living)} left",
    )
    shutil.rmtree(root)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--models", type=int, default=10_000)
    arguments.add_argument("--burst", type=int, default=60_000)
    arguments.add_argument("--arrivals", type=int, default=50)
    arguments.add_argument("--quick", action="store_true", help="the two starts and lists only")
    arguments.add_argument("--directory", type=Path, help="where a collection is or may stay")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        noted = Path(temporary, "steps")
        noted.touch()
        daemon = RealDaemon(
            Path(temporary), HYBRIDD_CATALOG_DEMO="false", BENCH_STEPS=os.fspath(noted)
        )
        daemon.module = "tests.bench.steps"
        if options.directory is not None:
            daemon.models.rmdir()
            daemon.models.symlink_to(options.directory.resolve())
            options.directory.mkdir(exist_ok=True)
        if not any(daemon.models.iterdir()):
            for _ in make(daemon.models, options.models):
                pass
        say(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}", "")
        header()
        try:
            first_scan(daemon, cached=False)
            lists(daemon)
            daemon.stop()
            first_scan(daemon, cached=True)
            if options.quick:
                return
            with pinged(daemon, "while models arrive"):
                arrivals(daemon, options.arrivals)
            with pinged(daemon, "during the burst"):
                burst(daemon, options.burst)
        finally:
            daemon.stop()
            for path in daemon.models.glob("publisher-*/new-*"):
                shutil.rmtree(path)


if __name__ == "__main__":
    main()
