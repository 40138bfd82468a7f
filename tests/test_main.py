"""`hybridd`'s command line: what the daemon is started with."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd import app
from hybridd.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ([], []),
        (["--http"], ["http.listen=127.0.0.1:4114"]),
        (["--http", "localhost:80"], ["http.listen=localhost:80"]),
        (["--http=8080", "--set", "a.b=c"], ["a.b=c", "http.listen=8080"]),
        (["--set", "http.listen=", "--http"], ["http.listen=", "http.listen=127.0.0.1:4114"]),
    ],
)
def test_the_flag_for_the_web_api(
    arguments: list[str], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def run(environment: Any, **settings: Any) -> int:
        started.append(settings["overrides"])
        return 7

    monkeypatch.setattr(app, "run", run)
    assert main(arguments) == 7
    assert started == [overrides]
