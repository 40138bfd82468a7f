"""Where to listen, and by which names a listener may be called there; pure.

Settings come in as `core/web_fields` checked them. Sockets are opened elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hybridd.core.web_names import Address, bracketed, parse_address

_DEFAULT_PORT = 80  # of http
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
# What `curl --unix-socket` and SDKs over one have as the host of their URL.
_UNIX_NAMES = ("localhost", "hybridd", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Binding:
    """What one socket is bound to.

    Attributes:
        family: `socket.AF_INET` or `AF_INET6`; the latter takes no IPv4.
    """

    family: socket.AddressFamily
    host: str
    port: int


def parse_listen(setting: str) -> Address | None:
    """The address of `http.listen`; None where it is "".

    Raises:
        ValueError: It is none.
    """
    return parse_address(setting) if setting else None


def bindings(address: Address) -> Sequence[Binding]:
    """What to bind for an address: for localhost both its addresses, as names resolve to either.

    Where the machine has no IPv6, the second of localhost's fails, and does not matter.
    """
    if address.host == "localhost":
        return (
            Binding(socket.AF_INET, "127.0.0.1", address.port),
            Binding(socket.AF_INET6, "::1", address.port),
        )
    version = ipaddress.ip_address(address.host).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return (Binding(family, address.host, address.port),)


def exposure(address: Address, token: str) -> str | None:
    """Why an address must not be listened on; None where it may.

    Args:
        address: Where.
        token: `http.token`.
    """
    if address.is_loopback or token != "none":
        return None
    return (
        f"{address} can be reached from the network, and http.token is none: everyone there could "
        'use this daemon. Set http.token to auto, or listen on "127.0.0.1:4114" and reach it '
        "through ssh -L or a reverse proxy that asks for a password"
    )


def hosts(address: Address, allow_hosts: Iterable[str]) -> frozenset[str]:
    """The values of `Host` that a listener on a TCP address answers to.

    Args:
        address: With the port that it has really.
        allow_hosts: The setting. A name without a port is taken with the listener's port, and
            as it stands: a reverse proxy's.
    """
    names = {bracketed(address.host)}
    # An address of no kind (0.0.0.0) is on the loopback interface as well.
    if address.is_loopback or ipaddress.ip_address(address.host).is_unspecified:
        names |= {bracketed(name) for name in _LOOPBACK_NAMES}
    extra = set(allow_hosts)
    names |= {name for name in extra if not _has_port(name)}
    found = {f"{name}:{address.port}" for name in names} | extra
    return frozenset(found | names if address.port == _DEFAULT_PORT else found)


def unix_hosts(allow_hosts: Iterable[str]) -> frozenset[str]:
    """The values of `Host` that the Unix socket's listener answers to."""
    return frozenset({*_UNIX_NAMES, *allow_hosts})


def url(address: Address) -> str:
    """Where a browser finds it; a listener on all addresses is shown by the loopback one."""
    host = address.host
    if host != "localhost" and (found := ipaddress.ip_address(host)).is_unspecified:
        host = "127.0.0.1" if found.version == 4 else "::1"
    return f"http://{bracketed(host)}:{address.port}"


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdigit() and ":" in name
