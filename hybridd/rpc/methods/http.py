"""`http.*`: how the other face is reached; what it serves is `hybridd/http`'s business.

Where it listens is a setting (`config.set`), so there is no method to turn it on.
"""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Bool
from hybridd.daemon.web_access import CODE_S
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method
from hybridd.wire.errors import Unsupported
from hybridd.wire.types import HttpLink, HttpStatus


@method("http.status", result=HttpStatus)
async def status(call: Call) -> dict[str, Any]:
    """Where the HTTP gateway listens, and who may ask.

    To turn it on and off, set `http.listen`.
    """
    web, configuration = call.daemon.web, call.daemon.configuration
    return {
        "enabled": bool(web.addresses),
        "listen": configuration["http.listen"],
        "addresses": list(web.addresses),
        "problem": web.problem,
        "changing": web.changing,
        "token": configuration["http.token"],
        "allow_origins": configuration["http.allow_origins"],
        "allow_hosts": configuration["http.allow_hosts"],
    }


@method("http.token", result=results.HttpToken, errors=(Unsupported,))
async def token(
    call: Call,
    *,
    renew: Annotated[bool, Bool(), "Make a new one; the old one counts for nothing then."] = False,
) -> dict[str, Any]:
    """The token that requests over TCP carry.

    `unsupported` where its file cannot be used: others can read it, or it cannot be written.
    """
    web = call.daemon.web
    return {"token": web.renew() if renew else web.token(), "needed": _needs_token(call)}


@method("http.link", result=HttpLink, errors=(Unsupported,))
async def link(call: Call) -> dict[str, Any]:
    """A link that opens the gateway's page in a browser, with the token brought once.

    The code in it stands behind `#`, so that it is in no request line and no log. `unsupported`
    where the gateway does not listen on TCP.
    """
    web = call.daemon.web
    url = next((each for each in web.addresses if each.startswith("http://")), None)
    if url is None:
        wanted = call.daemon.configuration["http.listen"]
        reason = web.problem or "it is off"
        # What was asked for and failed is not mended by asking again.
        remedy = "" if wanted and web.problem else "; turn it on with: hybridctl http on"
        raise Unsupported(
            f"the HTTP gateway does not listen on TCP: {reason}{remedy}",
            capability="http",
            reason=reason,
        )
    if not _needs_token(call):
        return {"url": f"{url}/", "expires_in_s": None}
    return {"url": f"{url}/#code={web.new_code()}", "expires_in_s": CODE_S}


def _needs_token(call: Call) -> bool:
    needed: bool = call.daemon.configuration["http.token"] != "none"
    return needed
