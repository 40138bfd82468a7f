"""What starting `hybridctl` costs, as whole processes, side by side with `python -c pass`.

Compares `hybridctl --version` and `hybridctl ps` (three loaded models, answered by a thread of
this process, so that only the client is measured) with the same interpreter doing nothing, in
interleaved runs. No model is involved. Prints ratios, of the medians and, for a machine that
has other work, of the best runs; asserts nothing.

    python tests/bench/cli_startup.py [RUNS]

The interpreter's own start depends on the environment: an editable installation makes `pass`
slower and so the ratios smaller. Judge by a plain one.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

LOADED = [
    {
        "id": f"publisher/model-{n}:Q4_K_M",
        "status": "loaded",
        "devices": [{"device": "cpu", "bytes": 4_000_000_000}],
        "memory": {"resident_bytes": 4_000_000_000},
        "context_length": 8192,
        "parallel": 1,
        "expires_in_s": 240.0,
    }
    for n in range(3)
]


def serve(listener: socket.socket) -> None:
    """Answer every request with the same list."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                answer = {"jsonrpc": "2.0", "id": json.loads(line)["id"]}
                answer["result"] = {"models": LOADED}
                connection.sendall(json.dumps(answer).encode() + b"\n")


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """The wall-clock seconds of one process."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    script = os.path.join(os.path.dirname(sys.executable), "hybridctl")
    hybridctl = [script] if os.path.exists(script) else [sys.executable, "-m", "hybridctl"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "hybridctl --version": [*hybridctl, "--version"],
        "hybridctl ps": [*hybridctl, "ps"],
    }
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "d.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        environment = {**os.environ, "HYBRIDD_SOCKET": path}
        # An installed package has its byte code; the first run of each writes it.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in commands.values():
            seconds(command, environment)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                taken[name].append(seconds(command, environment))
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.join()
    bare = taken["python -c pass"]
    print(f"{runs} interleaved runs, Python {sys.version.split()[0]}: median, and best")
    for name, values in taken.items():
        line = f"  {name:<20}"
        for figure in (statistics.median, min):
            line += f"  {figure(values) * 1000:6.1f} ms {figure(values) / figure(bare):5.2f} x"
        print(line)


if __name__ == "__main__":
    main()
