"""Names of the web in settings: what is taken, as what, and what is refused with which reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.core.web_names import Address, parse_address, parse_host, parse_origin


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4114", "127.0.0.1:4114"),
        ("127.0.0.1", "127.0.0.1:4114"),
        ("8080", "127.0.0.1:8080"),
        (":8080", "127.0.0.1:8080"),
        ("", "127.0.0.1:4114"),
        (" 127.0.0.1:0 ", "127.0.0.1:0"),
        ("localhost", "localhost:4114"),
        ("LocalHost:80", "localhost:80"),
        ("[::1]:4114", "[::1]:4114"),
        ("[::1]", "[::1]:4114"),
        ("[0:0::1]:1", "[::1]:1"),
        ("0.0.0.0:4114", "0.0.0.0:4114"),
        ("[::]:4114", "[::]:4114"),
        ("192.168.1.5:65535", "192.168.1.5:65535"),
        ("http://127.0.0.1:4114/", "127.0.0.1:4114"),
    ],
)
def test_an_address(text: str, address: str) -> None:
    assert str(parse_address(text)) == address
    assert str(parse_address(address)) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("box.lan:4114", "IP address"),
        ("127.1:4114", "IP address"),
        ("127.0.0.01:4114", "IP address"),
        ("https://127.0.0.1:4114", "brackets"),
        ("127.0.0.1:", "port"),
        ("127.0.0.1:x", "port"),
        ("127.0.0.1:65536", "0 to 65535"),
        ("127.0.0.1:-1", "0 to 65535"),
        ("127.0.0.1:٤", "0 to 65535"),
        ("127.0.0.1:4114/x", "0 to 65535"),
        ("99999", "0 to 65535"),
        ("::1", "brackets"),
        ("::1:4114", "brackets"),
        ("[127.0.0.1]:4114", "brackets"),
        ("127.0.0.1]:4114", "IP address"),
        ("[::1:4114", "IP address"),
        ("[[::1]]:4114", "port"),
        ("[::1]4114", "port"),
        ("[fe80::1%eth0]:4114", "zone"),
        ("x" * 10_000, "characters"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("::ffff:192.168.1.5", False),
    ],
)
def test_what_this_machine_alone_reaches(host: str, loopback: bool) -> None:
    assert Address(host, 4114).is_loopback == loopback


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("box.lan", "box.lan"),
        (" Box.LAN:8080 ", "box.lan:8080"),
        ("host.docker.internal", "host.docker.internal"),
        ("my_box", "my_box"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.168.1.5:4114", "192.168.1.5:4114"),
        ("[2001:DB8::0:1]:80", "[2001:db8::1]:80"),
    ],
)
def test_a_host(text: str, host: str) -> None:
    assert parse_host(text) == host
    assert parse_host(host) == host


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a name"),
        ("http://box.lan", "without http://"),
        ("box.lan/", "without http://"),
        ("*.lan", "wildcards"),
        ("*", "wildcards"),
        ("box.lan.", "a name"),
        (".lan", "a name"),
        ("box..lan", "a name"),
        ("user@box", "a name"),
        ("a b", "a name"),
        ("a,b", "a name"),
        ("bücher.example", "a name"),
        ("-box", "a name"),
        ("box:0", "1 to 65535"),
        ("box:", "port"),
        ("::1", "brackets"),
        ("[box]", "IPv6"),
        ("[::1", "IPv6"),
        ("x" * 300, "characters"),
        ("x" * 64, "a name"),
    ],
)
def test_what_is_no_host(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://localhost:3000", "http://localhost:3000"),
        ("HTTP://LocalHost:3000/", "http://localhost:3000"),
        ("https://chat.example", "https://chat.example"),
        ("https://chat.example:443", "https://chat.example"),
        ("http://chat.example:80", "http://chat.example"),
        ("http://chat.example:443", "http://chat.example:443"),
        ("http://chat.example:8080", "http://chat.example:8080"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("tauri://localhost:1430", "tauri://localhost:1430"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("vscode-webview://0a1B2c", "vscode-webview://0a1B2c"),
    ],
)
def test_an_origin(text: str, origin: str) -> None:
    assert parse_origin(text) == origin
    assert parse_origin(origin) == origin


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "scheme"),
        ("localhost:3000", "scheme"),
        ("null", "sandboxed"),
        ("*", "wildcards"),
        ("http://*.example", "wildcards"),
        ("http://", "a name"),
        ("http://a/b", "without a path"),
        ("http://a?b", "without a path"),
        ("http://a#b", "without a path"),
        ("http://u@a", "without a path"),
        ("http://a//", "without a path"),
        ("http://a b", "a name"),
        ("http://a, http://b", "without a path"),
        ("http://bücher.example", "a name"),
        ("file://", "one name"),
        ("app://a/b", "one name"),
        ("app://a:b", "one name"),
        ("1http://a", "scheme"),
        ("ht tp://a", "scheme"),
        ("app://" + "x" * 300, "one name"),
    ],
)
def test_what_is_no_origin(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_origin(text)


@pytest.mark.parametrize("parse", [parse_address, parse_host, parse_origin])
@given(st.one_of(st.text(max_size=40), st.text("[]:.0123456789afx/@%-", max_size=30)))
def test_any_text_is_read_or_refused(parse: Callable[[str], object], text: str) -> None:
    try:
        read = str(parse(text))
    except ValueError:
        return
    assert read.isascii()
    assert read.isprintable()
    assert "," not in read
    assert str(parse(read)) == read
