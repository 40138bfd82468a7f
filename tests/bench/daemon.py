"""What the daemon itself costs: start to READY, idle memory, a ping, a token's relay.

    python tests/bench/daemon.py [--rounds 9]

READY is compared with `python -c pass` of the same environment, started right beside it. The relay
compares tokens per second through the socket with those that the engine itself counted, on the
packaged demo model (2.6 M parameters, F16), whose tokens are so cheap that the relay shows.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hybridctl import Client

MODEL = "hybridd/demo-gguf"


class Daemon:
    """A daemon in a temporary directory."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        path = self._directory.name
        self.socket = f"{path}/hybridd/hybridd.sock"
        names = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        environment = {**os.environ, **dict.fromkeys(names, path), "NOTIFY_SOCKET": f"{path}/n"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(f"{path}/n")
            began = time.perf_counter()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hybridd", "--set", "log.level=error"], env=environment
            )
            while b"READY=1" not in notify.recv(4096):
                pass
            self.ready_s = time.perf_counter() - began

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self._directory.cleanup()


def empty_python_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    ready, empty, resident = [], [], []
    for _ in range(rounds):
        empty.append(empty_python_s())
        daemon = Daemon()
        with Client(daemon.socket) as client:
            client.list()  # the first scan is over
        ready.append(daemon.ready_s)
        resident.append(daemon.resident_kib())
        daemon.close()
    ratio = statistics.median(ready) / statistics.median(empty)
    print(f"READY      median {statistics.median(ready):.3f} s = {ratio:.1f} x python -c pass")
    print(f"idle RSS   median {statistics.median(resident) / 1024:.1f} MiB")

    daemon = Daemon()
    with Client(daemon.socket) as client:
        pings = []
        for _ in range(2000):
            began = time.perf_counter()
            client.ping()
            pings.append(time.perf_counter() - began)
        print(
            f"ping       p50 {percentile(pings, 0.5) * 1e3:.2f} ms, "
            f"p99 {percentile(pings, 0.99) * 1e3:.2f} ms"
        )
        ratios = []
        for _ in range(rounds):
            began = time.perf_counter()
            with client.generate(
                MODEL, "To load", max_tokens=800, ignore_eos=True, temperature=0, stream=True
            ) as stream:
                tokens = sum(delta.tokens for delta in stream)
                engine = stream.result().timings.generation_tokens_per_s
            assert engine
            ratios.append((tokens / (time.perf_counter() - began)) / engine)
        print(f"relay      {statistics.median(ratios):.2f} of the engine's own tokens/s ({MODEL})")
    daemon.close()


if __name__ == "__main__":
    main()
