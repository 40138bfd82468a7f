"""Which route a raw path means.

Ids contain slashes, raw or encoded, so a name in a pattern takes any number of segments and may be
followed by a verb. Paths are matched as they were sent and only what stands for a name is decoded:
an encoded slash is an ordinary one then, and nothing is normalised, for no route takes a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from hybridd.http.faces.api import Face, Route
from hybridd.http.problems import Problem

_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Found:
    """A route, and what its pattern's names stand for."""

    route: Route
    face: Face
    names: Mapping[str, str]


class Router:
    """The routes of all faces.

    Args:
        faces: A path below several faces' prefixes belongs to the one with the longest; the first
            face also gets what is below none.
    """

    def __init__(self, faces: Sequence[Face]) -> None:
        self._faces = faces
        self._prefixes = sorted(
            ((prefix, face) for face in faces for prefix in face.prefixes),
            key=lambda pair: -len(pair[0]),
        )
        self._exact: dict[str, dict[str, tuple[Route, Face]]] = {}
        patterns: dict[str, dict[str, tuple[Route, Face]]] = {}
        for face in faces:
            for route in face.routes:
                known = patterns if "{" in route.pattern else self._exact
                methods = known.setdefault(route.pattern, {})
                if route.method in methods:
                    raise ValueError(f"{route.method} {route.pattern} stands in two faces")
                methods[route.method] = (route, face)
        # The longest text first: `/models/{id}/load` before `/models/{id}`.
        ordered = sorted(patterns, key=lambda pattern: -len(_NAME.sub("", pattern)))
        self._patterns = [(_compiled(pattern), patterns[pattern]) for pattern in ordered]

    def face(self, path: str) -> Face:
        """In whose shape an error at this path is told."""
        for prefix, face in self._prefixes:
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return face
        return self._faces[0]

    def find(self, method: str, path: str) -> Found:
        """The route that is meant.

        Raises:
            Problem: 404, 405 with Allow, 400 for a name that is no text.
        """
        methods, names = self._methods(path)
        if methods is None:
            raise Problem(
                404, "not_found", f"there is no {_shown(path)} here; GET /openapi.json lists all"
            )
        found = methods.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = allow(methods)
            raise Problem(
                405,
                "method_not_allowed",
                f"{_shown(path)} takes {allowed}, not {_shown(method)}",
                headers=(("allow", allowed),),
            )
        return Found(*found, names)

    def methods(self, path: str) -> str:
        """The methods that a path takes, as Allow has them; empty where there is no such path."""
        methods, _ = self._methods(path)
        return "" if methods is None else allow(methods)

    def _methods(
        self, path: str
    ) -> tuple[Mapping[str, tuple[Route, Face]] | None, Mapping[str, str]]:
        plain = path.rstrip("/") or "/"
        if plain in self._exact:
            return self._exact[plain], {}
        for pattern, methods in self._patterns:
            if match := pattern.fullmatch(plain):
                return methods, {n: _decoded(v) for n, v in match.groupdict().items()}
        return None, {}


def allow(methods: Iterable[str]) -> str:
    """An Allow header's value."""
    known = {*methods, "OPTIONS"}
    return ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))


def _compiled(pattern: str) -> re.Pattern[str]:
    """`/models/{id}/load` as an expression; linear, for a name is followed by fixed text."""
    text, at = "", 0
    for match in _NAME.finditer(pattern):
        text += re.escape(pattern[at : match.start()]) + f"(?P<{match[1]}>.+)"
        at = match.end()
    return re.compile(text + re.escape(pattern[at:]))


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "bad_request", f"{_shown(text)} is no UTF-8 text") from None


def _shown(text: str) -> str:
    """What a client sent, as a message may show it."""
    return text if len(text) <= 120 else text[:117] + "..."
