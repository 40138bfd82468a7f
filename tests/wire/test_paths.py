"""Where things lie, by the XDG rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from hybridd.wire import paths

HOME = {"HOME": "/home/u"}


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"HYBRIDD_SOCKET": "/s/x", "XDG_RUNTIME_DIR": "/run/u"}, "/s/x"),
        ({"XDG_RUNTIME_DIR": "/run/u"}, "/run/u/hybridd/hybridd.sock"),
        ({"XDG_RUNTIME_DIR": "run/u"}, "/home/u/.local/state/hybridd/hybridd.sock"),
        ({"XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": "/st"}, "/st/hybridd/hybridd.sock"),
        ({"XDG_STATE_HOME": "st"}, "/home/u/.local/state/hybridd/hybridd.sock"),
        ({"HYBRIDD_SOCKET": ""}, "/home/u/.local/state/hybridd/hybridd.sock"),
    ],
)
def test_the_socket(environment: dict[str, str], path: str) -> None:
    assert paths.socket_path({**HOME, **environment}) == path


def test_a_socket_path_has_107_bytes_at_most() -> None:
    fits = "/" + "x" * 106
    assert paths.socket_path({"HYBRIDD_SOCKET": fits}) == fits
    with pytest.raises(ValueError, match=r"108 bytes.*at most 107.*HYBRIDD_SOCKET"):
        paths.socket_path({"HYBRIDD_SOCKET": fits + "x"})
    # Bytes, not characters.
    with pytest.raises(ValueError, match="108 bytes"):
        paths.check_socket_path("/" + "ü" * 53 + "x")


@pytest.mark.parametrize(
    ("socket", "path"),
    [
        (None, "/run/u/hybridd/http.sock"),
        ("/s/hybridd.sock", "/s/http.sock"),
        ("/s/other.sock", "/s/other-http.sock"),
        ("/s/other", "/s/other-http.sock"),
    ],
)
def test_the_http_socket_is_beside(socket: str | None, path: str) -> None:
    environment = {**HOME, "XDG_RUNTIME_DIR": "/run/u"}
    assert paths.http_socket_path(environment, socket) == path


def test_an_http_socket_path_that_is_too_long_names_its_own_variable() -> None:
    with pytest.raises(ValueError, match="HYBRIDD_HTTP_SOCKET"):
        paths.http_socket_path(HOME, "/" + "x" * 106)


@pytest.mark.parametrize(
    ("function", "name", "default", "below"),
    [
        (paths.config_file, "XDG_CONFIG_HOME", "/home/u/.config", "hybridd/hybridd.toml"),
        (paths.state_dir, "XDG_STATE_HOME", "/home/u/.local/state", "hybridd"),
        (paths.cache_dir, "XDG_CACHE_HOME", "/home/u/.cache", "hybridd"),
        (paths.models_dir, "XDG_DATA_HOME", "/home/u/.local/share", "hybridd/models"),
        (paths.user_unit_dir, "XDG_CONFIG_HOME", "/home/u/.config", "systemd/user"),
    ],
)
def test_xdg(
    function: Callable[[Mapping[str, str]], str], name: str, default: str, below: str
) -> None:
    assert function(HOME) == f"{default}/{below}"
    assert function({**HOME, name: "/elsewhere"}) == f"/elsewhere/{below}"
    # The specification: a relative path is ignored, an empty one is as none.
    assert function({**HOME, name: "relative/x"}) == f"{default}/{below}"
    assert function({**HOME, name: ""}) == f"{default}/{below}"
