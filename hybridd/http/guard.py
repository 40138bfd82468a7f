"""Who may ask: judges the head of one request against a policy, before anything is routed or read.

Pure: no I/O, no clock, no settings. What it keeps out, and by which header:

1. a site that had its own name point here (DNS rebinding): `Host`;
2. a page of another site, in the browser of the one who owns the daemon: `Origin`,
   `Sec-Fetch-Site`, and a body's `Content-Type`, which a page cannot choose without asking first;
3. other users of the machine and the network: the token.

The first two hold with `http.token = "none"` too. Each check returns the problem or None; the first
problem is the answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from hybridd.core.fields import shown
from hybridd.http import cors, media_type
from hybridd.http.problems import Headers, Problem

_CHALLENGE: Headers = (("www-authenticate", 'Bearer realm="hybridd"'),)
_PRINT_TOKEN = "print it with: hybridctl http token"
# Names under which APIs of others take a key in the query.
_TOKEN_PARAMETERS = frozenset({"token", "access_token", "api_key", "key"})
_OWN_SITES = frozenset({"same-origin", "none"})

Fields = Mapping[bytes, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Policy:
    """What one listener allows.

    Attributes:
        hosts: Exact, in lower case, with the port where it is not the default, IPv6 in brackets.
        origins: Exact, as browsers send them.
        token: None where no token is asked for.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    token: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What comes of a request.

    Attributes:
        problem: Why it is refused; None lets it pass.
        headers: Belong on the answer, whatever it is.
        preflight: The answer is 204 with these headers, and nothing else is done.
    """

    problem: Problem | None
    headers: Headers
    preflight: bool = False


def judge(
    method: str,
    target: str,
    headers: Sequence[tuple[bytes, bytes]],
    policy: Policy,
    *,
    open: bool = False,
    acts: bool = False,
) -> Verdict:
    """Judge the head of a request.

    Args:
        method: Of HTTP.
        target: As the request line has it.
        headers: As they came, names in lower case.
        policy: Of the listener that the request came by.
        open: Whether the route needs no token.
        acts: Whether it changes something although it is asked with GET.
    """
    fields = _grouped(headers)
    host = _text(fields, b"host").lower()
    origin = _text(fields, b"origin")
    problem = (
        _host_problem(fields, host, policy)
        or _target_problem(method, target, host)
        or _origin_problem(fields, origin, host, policy)
    )
    if problem is not None:
        return Verdict(problem, cors.VARY)
    listed = origin in policy.origins
    if listed and method == "OPTIONS" and b"access-control-request-method" in fields:
        return Verdict(None, _preflight(fields, origin), preflight=True)
    problem = (
        (None if listed else _site_problem(method, fields, reachable=open and not acts))
        or (_token_problem(target, fields, policy.token, open=open) if policy.token else None)
        or (_unsigned_problem(fields, host, policy) if acts and not policy.token else None)
        or _body_problem(fields)
    )
    return Verdict(problem, cors.allowed(origin) if listed else cors.VARY)


# -------------------------------------------------------------------- names and origins


def _host_problem(fields: Fields, host: str, policy: Policy) -> Problem | None:
    if len(fields.get(b"host", ())) != 1:
        # RFC 9112, 3.2: it has to be answered so.
        return Problem(400, "invalid_request", "a request has exactly one Host header")
    if host in policy.hosts:
        return None
    return _forbidden(
        f"this daemon does not answer to the name {shown(host)} (the Host header); if it is a "
        "name of this machine, add it to the setting http.allow_hosts",
        header="host",
    )


def _target_problem(method: str, target: str, host: str) -> Problem | None:
    """The target is a path; one with a host names the Host's (RFC 9112, 3.2.2)."""
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        return None
    scheme, _, rest = target.partition("://")
    if scheme.lower() == "http":
        authority = rest.replace("?", "/").replace("#", "/").partition("/")[0]
        if authority.lower() == host:
            return None
    return Problem(
        400, "invalid_request", f"{shown(target)} is no path of this server: this is no proxy"
    )


def _origin_problem(fields: Fields, origin: str, host: str, policy: Policy) -> Problem | None:
    if b"origin" not in fields or origin in policy.origins or origin == f"http://{host}":
        return None
    if origin == "null":
        return _forbidden(
            'pages without an origin ("null": a file, a sandboxed frame) are refused; serve the '
            "page from an address and add that to the setting http.allow_origins",
            header="origin",
        )
    return _forbidden(
        f"pages of {shown(origin)} are refused (the Origin header); to allow them, add the origin "
        "to the setting http.allow_origins",
        header="origin",
    )


def _site_problem(method: str, fields: Fields, *, reachable: bool) -> Problem | None:
    """What browsers say of a request's sender where they send no Origin: images, scripts, links.

    Args:
        reachable: Whether a link of another site may lead there.
    """
    sites = fields.get(b"sec-fetch-site", ())
    if all(site.decode("latin-1") in _OWN_SITES for site in sites):
        return None
    navigates = (
        method == "GET"
        and _text(fields, b"sec-fetch-mode") == "navigate"
        and _text(fields, b"sec-fetch-dest") == "document"
    )
    if reachable and navigates:
        return None
    return _forbidden(
        f"a page of another site asked (Sec-Fetch-Site: {shown(_text(fields, b'sec-fetch-site'))})"
        "; to allow it, add its origin to the setting http.allow_origins and ask with fetch",
        header="sec-fetch-site",
    )


def _unsigned_problem(fields: Fields, host: str, policy: Policy) -> Problem | None:
    """A GET that acts, without a token: a browser has to say which page asks.

    Old browsers, and all of them where the address is not this machine's own, send an image's GET
    with nothing but a `Referer`, which the page can leave out but not forge.
    """
    if b"origin" in fields or b"sec-fetch-site" in fields:
        return None
    referer = _text(fields, b"referer")
    page = "/".join(referer.split("/", 3)[:3])
    if referer and (page == f"http://{host}" or page in policy.origins):
        return None
    if referer or "mozilla/" in _text(fields, b"user-agent").lower():
        return _forbidden(
            "a browser does not say which page asks, and this GET changes something; use POST, or "
            'a token (http.token = "auto")',
            header="referer",
        )
    return None


# -------------------------------------------------------------------- token


def _token_problem(target: str, fields: Fields, token: str, *, open: bool) -> Problem | None:
    if _TOKEN_PARAMETERS & _query_names(target):
        return Problem(
            400,
            "invalid_request",
            "a token in the URL would end up in logs and histories, so it is not taken there; send "
            "the header Authorization: Bearer TOKEN",
        )
    if open:
        return None
    sent = [*_bearer(fields), *fields.get(b"x-api-key", ())]
    if len(fields.get(b"authorization", ())) > 1 or len(fields.get(b"x-api-key", ())) > 1:
        return _unauthorized("a request has one Authorization or x-api-key header, not several")
    if not sent:
        return _unauthorized(
            f"this needs the token, as the header Authorization: Bearer TOKEN; {_PRINT_TOKEN}"
        )
    # All are compared, each in constant time.
    right = [hmac.compare_digest(one, token.encode()) for one in sent]
    return None if any(right) else _unauthorized(f"the token is wrong; {_PRINT_TOKEN}")


def _bearer(fields: Fields) -> list[bytes]:
    found = []
    for value in fields.get(b"authorization", ()):
        scheme, _, rest = value.partition(b" ")
        if scheme.lower() == b"bearer" and rest.strip():
            found.append(rest.strip())
    return found


def _query_names(target: str) -> set[str]:
    _, _, query = target.partition("?")
    if not query:
        return set()
    return {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}


# -------------------------------------------------------------------- body

# What browsers send of themselves with a request that may have a body (Fetch; Fetch Metadata).
_OF_BROWSERS = frozenset({b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"})


def _body_problem(fields: Fields) -> Problem | None:
    if b"transfer-encoding" not in fields and not any(
        length.strip(b"0") for length in fields.get(b"content-length", ())
    ):
        return None
    types = fields.get(b"content-type", ())
    if len(types) == 1 and media_type.is_json(types[0].decode("latin-1")):
        return None
    # A form always says its type. A script can leave it out, but then its browser says Origin.
    if not types and not (_OF_BROWSERS & fields.keys()):
        return None
    got = ", ".join(_shown_type(each) for each in types) or "none"
    return Problem(
        415,
        "unsupported_media_type",
        "a body is JSON in UTF-8 and has to say so: add -H 'Content-Type: application/json' "
        f"(got {got})",
        headers=(("accept", "application/json"),),
    )


def _shown_type(value: bytes) -> str:
    return shown(value.decode("ascii", "backslashreplace"))


# -------------------------------------------------------------------- parts


def _preflight(fields: Fields, origin: str) -> Headers:
    names = _text(fields, b"access-control-request-headers").split(",")
    private = _text(fields, b"access-control-request-private-network") == "true"
    return cors.preflight(origin, [name.strip() for name in names], private_network=private)


def _grouped(headers: Sequence[tuple[bytes, bytes]]) -> Fields:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value.strip(b" \t"))
    return fields


def _text(fields: Fields, name: bytes) -> str:
    """A header's value; of several the list that they make (RFC 9110, 5.3), "" without one."""
    return b", ".join(fields.get(name, ())).decode("ascii", "backslashreplace")


def _forbidden(message: str, *, header: str) -> Problem:
    return Problem(403, "forbidden", message, data={"header": header})


def _unauthorized(message: str) -> Problem:
    return Problem(401, "unauthorized", message, headers=_CHALLENGE)
