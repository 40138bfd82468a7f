"""A request's head as it came, and its query taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl

# Names and values of a query; clients of local servers send one or two.
_MAX_PARAMETERS = 64


@dataclass(frozen=True)
class Request:
    """The head of a request.

    Attributes:
        target: As it stands in the request line, percent-encoded.
        raw_headers: Names in lower case, in their order; a name may come more than once.
    """

    method: str
    target: str
    raw_headers: Sequence[tuple[bytes, bytes]]

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def has_body(self) -> bool:
        """Whether its headers announce a body (RFC 9112, 6.3)."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, decoded; the last one of a name counts.

        Raises:
            ValueError: More of them than anyone sends.
        """
        text = self.target.partition("?")[2]
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name; values of one that came several times are joined by commas."""
        joined: dict[str, str] = {}
        for raw_name, raw_value in self.raw_headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined
