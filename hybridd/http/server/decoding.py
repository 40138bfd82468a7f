"""A request's body as it was before a client compressed it, within the limit of bytes."""

from __future__ import annotations

import zlib

from hybridd.http.problems import Problem

# zlib's window bits: 16 adds gzip's header, 32 finds out which of the two it is.
_GZIP = 16 + zlib.MAX_WBITS
_ENCODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


def too_large(limit: int) -> Problem:
    """What a body over the limit is answered with."""
    return Problem(
        413,
        "too_large",
        f"the body has more than {limit} bytes; send less, or raise the setting "
        "http.max_body_bytes",
        data={"limit_bytes": limit},
    )


def check_encoding(name: str) -> None:
    """Look at a Content-Encoding before the body is read.

    Raises:
        Problem: It is none that is known.
    """
    if name not in ("", "identity", *_ENCODINGS):
        raise Problem(
            415,
            "unsupported_encoding",
            f"the body is encoded as {name[:40]!r}; send it plain, or as gzip or deflate",
            headers=(("accept-encoding", "gzip, deflate"),),
        )


def decoded(data: bytes, encoding: str, limit: int) -> bytes:
    """A body without its encoding.

    Raises:
        Problem: It is not what it says, or has more than `limit` bytes.
    """
    if encoding not in _ENCODINGS:
        return data
    inflater = zlib.decompressobj(_ENCODINGS[encoding])
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error:
        plain = None
    if plain is not None and len(plain) > limit:
        raise too_large(limit)
    if plain is None or not inflater.eof or inflater.unused_data:
        raise Problem(400, "bad_encoding", f"the body is no whole {encoding} stream")
    return plain
