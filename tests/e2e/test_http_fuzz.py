"""Broken connections against a real daemon: it answers or closes each and holds nothing of them."""

from __future__ import annotations

import trio

from tests.e2e.conftest import RealDaemon
from tests.fuzz.http import MODEL, check_nothing_held, prepared, storm


def test_five_hundred_broken_connections(daemon: RealDaemon) -> None:
    (daemon.models / f"{MODEL}.echo").write_text("{}")
    before = prepared(daemon)
    ends = trio.run(storm, daemon.http_socket, 500, 1)
    assert sum(ends.values()) == 500
    assert ends["answered 200"] > 0
    check_nothing_held(daemon, before)
