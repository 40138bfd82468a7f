"""The sockets that systemd passes: by count and by name, each to the face it is meant for.

Descriptors have the numbers 3, 4, …, so a process of its own takes them over.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

# Takes sockets over from 3 on, as a process that systemd starts does, and says what it found.
TAKE = """
import json, os, sys
for target, fd in enumerate(map(int, sys.argv[2:]), 3):
    os.dup2(fd, target + 100)
for target in range(3, 3 + len(sys.argv[2:])):
    os.dup2(target + 100, target)
    os.close(target + 100)
from hybridd.host.sockets import activated_sockets
environment = json.loads(sys.argv[1])
if environment.get("LISTEN_PID") == "own":
    environment["LISTEN_PID"] = str(os.getpid())
found = activated_sockets(environment)
print(json.dumps({name: [s.getsockname()[1] for s in each] for name, each in found.items()}))
assert not any(s.get_inheritable() or s.getblocking() for each in found.values() for s in each)
"""
NONE: dict[str, list[int]] = {"rpc": [], "http": []}


def taken(count: int, **environment: str) -> tuple[dict[str, list[int]], list[int], str]:
    """What a process finds, the ports of the sockets it was given, and what it logged."""
    with ExitStack() as stack:
        given = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in given:
            each.bind(("127.0.0.1", 0))
            each.listen()
        ran = subprocess.run(
            [sys.executable, "-c", TAKE, json.dumps(environment)]
            + [str(each.fileno()) for each in given],
            pass_fds=[each.fileno() for each in given],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout), [each.getsockname()[1] for each in given], ran.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_PID": "own"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "own"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": "own"},
        {"LISTEN_FDS": "one", "LISTEN_PID": "own"},
    ],
)
def test_sockets_of_another_process_are_left_alone(environment: dict[str, str]) -> None:
    assert taken(1, **environment)[0] == NONE


def test_a_socket_without_a_name_is_the_daemons_own() -> None:
    found, ports, _ = taken(1, LISTEN_FDS="1", LISTEN_PID="own")
    assert found == {"rpc": ports, "http": []}


@pytest.mark.parametrize(
    ("names", "own", "http"),
    [
        ("hybridd.socket", [0], []),
        ("hybridd.socket:http:http", [0], [1, 2]),
        ("http:http:hybridd.socket", [2], [0, 1]),
        ("http", [], [0]),
        ("unknown", [0], []),
    ],
)
def test_sockets_by_name(names: str, own: list[int], http: list[int]) -> None:
    count = names.count(":") + 1
    found, ports, _ = taken(count, LISTEN_FDS=str(count), LISTEN_PID="own", LISTEN_FDNAMES=names)
    assert found == {"rpc": [ports[n] for n in own], "http": [ports[n] for n in http]}


def test_a_descriptor_that_is_no_socket_is_left_out() -> None:
    names = "hybridd.socket:http"
    found, ports, said = taken(1, LISTEN_FDS="2", LISTEN_PID="own", LISTEN_FDNAMES=names)
    assert found == {"rpc": ports, "http": []}
    assert "descriptor 4" in said
