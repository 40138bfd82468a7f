"""Where to listen, and which Hosts that makes."""

from __future__ import annotations

import socket

import pytest

from hybridd.core.web_names import Address, parse_address
from hybridd.http.addresses import Binding, bindings, exposure, hosts, parse_listen, unix_hosts, url

OWN = {"127.0.0.1:4114", "localhost:4114", "[::1]:4114"}


@pytest.mark.parametrize(
    ("listen", "allow", "names"),
    [
        ("127.0.0.1:4114", [], OWN),
        ("localhost:4114", [], OWN),
        ("[::1]:4114", [], OWN),
        ("127.0.0.2:4114", [], OWN | {"127.0.0.2:4114"}),
        ("0.0.0.0:4114", [], OWN | {"0.0.0.0:4114"}),
        ("192.168.1.5:4114", [], {"192.168.1.5:4114"}),
        # A name without a port is the listener's, and a reverse proxy's.
        ("127.0.0.1:4114", ["box.lan"], OWN | {"box.lan", "box.lan:4114"}),
        ("127.0.0.1:4114", ["box.lan:8080"], OWN | {"box.lan:8080"}),
        ("127.0.0.1:4114", ["[fd00::1]"], OWN | {"[fd00::1]", "[fd00::1]:4114"}),
        ("127.0.0.1:4114", ["[fd00::1]:1"], OWN | {"[fd00::1]:1"}),
        # Clients leave the usual port out.
        ("192.168.1.5:80", [], {"192.168.1.5:80", "192.168.1.5"}),
        ("192.168.1.5:80", ["b:81"], {"192.168.1.5:80", "192.168.1.5", "b:81"}),
    ],
)
def test_hosts_of_an_address(listen: str, allow: list[str], names: set[str]) -> None:
    assert hosts(parse_address(listen), allow) == names


def test_hosts_of_the_unix_socket() -> None:
    assert unix_hosts([]) == {"localhost", "hybridd", "127.0.0.1"}
    assert unix_hosts(["localhost:4114"]) - unix_hosts([]) == {"localhost:4114"}


@pytest.mark.parametrize(
    ("listen", "shown"),
    [
        ("127.0.0.1:4114", "http://127.0.0.1:4114"),
        ("localhost:4114", "http://localhost:4114"),
        ("[::1]:4114", "http://[::1]:4114"),
        ("0.0.0.0:4114", "http://127.0.0.1:4114"),
        ("[::]:4114", "http://[::1]:4114"),
        ("192.168.1.5:4114", "http://192.168.1.5:4114"),
    ],
)
def test_the_url_is_one_that_the_guard_lets_in(listen: str, shown: str) -> None:
    address = parse_address(listen)
    assert url(address) == shown
    assert shown.removeprefix("http://") in hosts(address, [])


def test_localhost_is_both_addresses() -> None:
    assert bindings(Address("localhost", 4114)) == (
        Binding(socket.AF_INET, "127.0.0.1", 4114),
        Binding(socket.AF_INET6, "::1", 4114),
    )
    assert bindings(Address("::1", 1)) == (Binding(socket.AF_INET6, "::1", 1),)
    assert bindings(Address("0.0.0.0", 1)) == (Binding(socket.AF_INET, "0.0.0.0", 1),)


@pytest.mark.parametrize(
    ("listen", "token", "refused"),
    [
        ("127.0.0.1:4114", "none", False),
        ("localhost:4114", "none", False),
        ("[::1]:4114", "none", False),
        ("0.0.0.0:4114", "auto", False),
        ("0.0.0.0:4114", "none", True),
        ("[::]:4114", "none", True),
        ("192.168.1.5:4114", "none", True),
    ],
)
def test_the_network_needs_a_token(listen: str, token: str, refused: bool) -> None:
    problem = exposure(parse_address(listen), token)
    assert (problem is not None) == refused
    assert problem is None or "ssh -L" in problem


def test_no_address_is_none() -> None:
    assert parse_listen("") is None
    assert parse_listen("127.0.0.1:4114") == Address("127.0.0.1", 4114)
