"""What a browser is told about pages of other origins (Fetch, "CORS protocol"), pure.

Every header here is written for one origin that is on the list; who is on it is `guard`'s business.
Never `*`, and no credentials: pages send the token in a header, so that no cookie can be ridden.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hybridd.http.problems import Headers

# An answer differs by the request's Origin, also where it says nothing of CORS.
VARY: Headers = (("vary", "Origin"),)

_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_EXPOSED = "x-request-id, retry-after"
# Browsers keep an answer no longer than two hours; what it allows is checked again all the same.
_MAX_AGE_S = 7200
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, "token"
# Of one request. Clients of SDKs ask for some twenty.
_MAX_NAMES = 100


def allowed(origin: str) -> Headers:
    """The headers that let a page of `origin` read the answer."""
    return (
        ("access-control-allow-origin", origin),
        ("access-control-expose-headers", _EXPOSED),
        *VARY,
    )


def preflight(origin: str, names: Iterable[str], *, private_network: bool) -> Headers:
    """The headers that let a page of `origin` make a request that is not a simple one.

    Args:
        origin: Of the page.
        names: What `Access-Control-Request-Headers` asked for. Any header may be sent, for what is
            unknown is ignored; a name that no header can have is left out.
        private_network: Whether the browser asked to go from a public network to this machine.
    """
    proper = [name.lower() for name in names if _NAME.fullmatch(name)][:_MAX_NAMES]
    asked = (("access-control-allow-headers", ", ".join(proper)),) if proper else ()
    private = (("access-control-allow-private-network", "true"),) if private_network else ()
    return (
        ("access-control-allow-origin", origin),
        ("access-control-allow-methods", _METHODS),
        *asked,
        ("access-control-max-age", str(_MAX_AGE_S)),
        *private,
        ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network"),
    )
