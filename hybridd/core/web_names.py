"""Names of the web as people write them in settings: addresses, hosts, origins. Pure.

What a name means for a request is `hybridd/http/guard`'s business, and where is listened
`hybridd/http/addresses`'.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from hybridd.wire.protocol import HTTP_PORT

_MAX_CHARACTERS = 253 + len(":65535")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# What extensions and desktop programs have as a host: an id of their own.
_OPAQUE = re.compile(r"[a-zA-Z0-9._~-]+(?::[0-9]{1,5})?")
_WEB = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: An IP address without brackets, or "localhost".
        port: 0 lets the kernel choose.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


def bracketed(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def parse_address(text: str) -> Address:
    """An address to listen on; without a port it is hybridd's, without a host 127.0.0.1.

    Raises:
        ValueError: With the reason.
    """
    # What a browser's address bar gives is meant well.
    host, port = _split(text.strip().removeprefix("http://").removesuffix("/"))
    if not port and host.isascii() and host.isdigit():
        host, port = "", host
    number = _port(port, least=0) if port else HTTP_PORT
    if not host or host.lower() == "localhost":
        return Address(host.lower() or "127.0.0.1", number)
    try:
        address = ipaddress.ip_address(_unbracketed(host))
    except ValueError:
        raise ValueError(
            "the host is an IP address of this machine, or localhost; other names for it go into "
            "http.allow_hosts"
        ) from None
    if getattr(address, "scope_id", None):
        raise ValueError("an address with a zone cannot be listened on")
    if (address.version == 6) != host.startswith("["):
        raise ValueError("an IPv6 address stands in brackets, and no other does")
    return Address(str(address), number)


def parse_host(text: str) -> str:
    """A name as a `Host` header has it, with or without a port; in lower case.

    Raises:
        ValueError: With the reason.
    """
    text = text.strip().lower()
    if "://" in text or "/" in text:
        raise ValueError("a host is a name alone, without http:// and without a path")
    if "*" in text:
        raise ValueError("each host is named; there are no wildcards")
    host, port = _split(text)
    host = _host(host)
    return f"{host}:{_port(port, least=1)}" if port else host


def parse_origin(text: str) -> str:
    """An origin as browsers send it: a scheme and a host, with the port that is not the usual.

    Raises:
        ValueError: With the reason.
    """
    text = text.strip()
    if "*" in text:
        raise ValueError("each origin is named; there are no wildcards")
    if text == "null":
        raise ValueError('"null" is the origin of any sandboxed page; serve yours from an address')
    scheme, sign, rest = text.partition("://")
    scheme = scheme.lower()
    if not sign or not _SCHEME.fullmatch(scheme):
        raise ValueError("an origin begins with its scheme, such as http://")
    rest = rest.removesuffix("/")
    if scheme not in _WEB:
        if not _OPAQUE.fullmatch(rest) or len(rest) > _MAX_CHARACTERS:
            raise ValueError("behind the scheme stands one name, without a path")
        return f"{scheme}://{rest}"
    if any(sign in rest for sign in "/?#@"):
        raise ValueError("an origin ends with the host and port, without a path")
    host = parse_host(rest)
    # Browsers leave the usual port out.
    return f"{scheme}://{host.removesuffix(f':{_WEB[scheme]}')}"


def _split(text: str) -> tuple[str, str]:
    """Host and port; a port that is named and empty is refused."""
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a name has at most {_MAX_CHARACTERS} characters")
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if rest and (not rest.startswith(":") or rest == ":"):
        raise ValueError("behind the host stands a colon and a port")
    if ":" in rest[1:]:
        raise ValueError("an IPv6 address stands in brackets: [::1]:4114")
    return host, rest[1:]


def _unbracketed(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _host(host: str) -> str:
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(_unbracketed(host))}]"
        except ValueError:
            raise ValueError("in brackets stands an IPv6 address") from None
    if not _NAME.fullmatch(host):
        raise ValueError("a host is a name such as box.lan, or an IP address")
    return host


def _port(text: str, *, least: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= 65535:
        return int(text)
    raise ValueError(f"a port is a number from {least} to 65535")
