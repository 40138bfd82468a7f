"""Requests and their status: the table of `test_guard`."""

from __future__ import annotations

from typing import NamedTuple

from hybridd.http.guard import Policy

HOST = "127.0.0.1:4114"
TOKEN = "sesame-0123456789"
LISTED = "http://localhost:3000"
APP = "app://obsidian.md"
POLICY = Policy(
    frozenset({HOST, "localhost:4114", "[::1]:4114", "box.lan"}), frozenset({LISTED, APP}), TOKEN
)
WITHOUT = Policy(POLICY.hosts, POLICY.origins, None)

Header = tuple[str, str]
KEY: Header = ("authorization", f"Bearer {TOKEN}")
JSON: Header = ("content-type", "application/json")
BODY: Header = ("content-length", "2")
MOZILLA: Header = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15")
OK = 200  # not refused


def host(value: str) -> Header:
    return ("host", value)


def origin(value: str) -> Header:
    return ("origin", value)


def site(value: str, mode: str = "cors", dest: str = "empty") -> tuple[Header, ...]:
    return (("sec-fetch-site", value), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest))


class Row(NamedTuple):
    """One request and its status; `says` stands in the message."""

    headers: tuple[Header, ...]
    status: int
    says: str = ""
    method: str = "GET"
    target: str = "/v1/models"
    policy: Policy = POLICY
    open: bool = False
    acts: bool = False


def hosts(status: int, says: str, *values: str) -> list[Row]:
    return [Row((host(value), KEY), status, says) for value in values]


def origins(status: int, says: str, *values: str) -> list[Row]:
    return [Row((host(HOST), KEY, origin(value)), status, says) for value in values]


def posts(status: int, *headers: tuple[Header, ...]) -> list[Row]:
    says = "-H 'Content-Type: application/json'" if status == 415 else ""
    return [Row((host(HOST), KEY, *one), status, says, "POST") for one in headers]


def types(status: int, *values: str) -> list[Row]:
    return posts(status, *((BODY, ("content-type", value)) for value in values))


HOSTS = [
    *hosts(OK, "", HOST, "localhost:4114", "LOCALHOST:4114", "LocalHost:4114", "[::1]:4114"),
    *hosts(OK, "", "box.lan", "BOX.LAN"),
    # Missing, empty, doubled.
    Row((KEY,), 400, "exactly one Host"),
    Row((host(HOST), host(HOST), KEY), 400, "exactly one Host"),
    Row((host(HOST), host("evil.example"), KEY), 400, "exactly one Host"),
    Row((), 400, "exactly one Host", policy=WITHOUT),
    *hosts(403, "http.allow_hosts", "", f"{HOST},{HOST}", f"{HOST}, evil.example"),
    # Other names, and none of the ports that are meant.
    *hosts(403, "http.allow_hosts", "evil.example", "evil.example:4114", "box.lan.evil.example"),
    *hosts(403, "http.allow_hosts", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:41140", "localhost"),
    *hosts(403, "http.allow_hosts", "127.0.0.1:04114", "127.0.0.1:", "127.0.0.1:4114:80"),
    *hosts(403, "http.allow_hosts", "box.lan:4114", "box.lan:80", "[::1]", "::1:4114", "[::1]:80"),
    # Trailing dots, user information, parts of names.
    *hosts(403, "http.allow_hosts", "127.0.0.1.:4114", "localhost.:4114", "box.lan.", ".box.lan"),
    *hosts(403, "http.allow_hosts", "user@localhost:4114", f"a:b@{HOST}", f"{HOST}@evil.example"),
    *hosts(403, "http.allow_hosts", "notlocalhost:4114", "localhost:4114.evil.example"),
    *hosts(403, "http.allow_hosts", "127.0.0.1.evil.example:4114", "evil.example#localhost:4114"),
    *hosts(403, "http.allow_hosts", "sub.localhost:4114", "box.lan/x", "http://127.0.0.1:4114"),
    # The same machine, written as it was not listed, and other private addresses.
    *hosts(403, "http.allow_hosts", "127.1:4114", "2130706433:4114", "0x7f.0.0.1:4114", "0:4114"),
    *hosts(403, "http.allow_hosts", "0.0.0.0:4114", "127.0.0.2:4114", "[::]:4114"),
    *hosts(403, "http.allow_hosts", "[::ffff:127.0.0.1]:4114", "[0:0:0:0:0:0:0:1]:4114"),
    *hosts(403, "http.allow_hosts", "192.168.1.5:4114", "10.0.0.1:4114", "172.17.0.1:4114"),
    *hosts(403, "http.allow_hosts", "169.254.169.254", "[fe80::1]:4114", "[::1%25lo]:4114"),
    # What no name can be.
    *hosts(403, "http.allow_hosts", "localhost :4114", "localhost\t:4114", "lоcalhost:4114", "*"),
    *hosts(403, "http.allow_hosts", "localhost:4114\x00", "localhost:４１１４", "\udcff"),
    # Without a token nothing of this changes, nor where the route is open.
    Row((host("evil.example"),), 403, "http.allow_hosts", policy=WITHOUT),
    Row((host("evil.example"),), 403, "http.allow_hosts", open=True),
    Row((host("evil.example"), KEY, JSON, BODY), 403, "http.allow_hosts", "POST"),
]

TARGETS = [
    Row((host(HOST), KEY), OK, target=f"http://{HOST}/v1/models"),
    Row((host(HOST), KEY), OK, target=f"HTTP://{HOST.upper()}?x"),
    Row((host(HOST), KEY), 400, "no proxy", target="http://evil.example/v1/models"),
    Row((host(HOST), KEY), 400, "no proxy", target="http://localhost:4114/v1/models"),
    Row((host(HOST), KEY), 400, "no proxy", target=f"https://{HOST}/v1/models"),
    Row((host(HOST), KEY), 400, "no proxy", target=f"http://{HOST}@evil.example/"),
    Row((host(HOST), KEY), 400, "no proxy", "CONNECT", target=HOST),
    Row((host(HOST), KEY), 400, "no proxy", target="v1/models"),
    Row((host(HOST), KEY), 400, "no proxy", target=""),
    Row((host(HOST), KEY), 400, "no proxy", target="*"),
    Row((host(HOST), KEY), OK, "", "OPTIONS", target="*"),
]

ORIGINS = [
    Row((host(HOST), KEY), OK),
    *origins(OK, "", LISTED, APP, f"http://{HOST}"),
    Row((host("LocalHost:4114"), KEY, origin("http://localhost:4114")), OK),
    Row((host("[::1]:4114"), KEY, origin("http://[::1]:4114")), OK),
    *origins(403, "without an origin", "null"),
    *origins(403, "http.allow_origins", "", "NULL", "*", "file://", "https://evil.example"),
    # The same machine at another port or scheme is another origin.
    *origins(403, "http.allow_origins", "http://127.0.0.1", "http://127.0.0.1:3000"),
    *origins(
        403, "http.allow_origins", "http://localhost:4114", f"https://{HOST}", "http://box.lan"
    ),
    # Prefixes, suffixes, and what is the same for a careless comparison.
    *origins(403, "http.allow_origins", f"{LISTED}0", f"{LISTED}.evil.example", f"{LISTED}/"),
    *origins(403, "http.allow_origins", "http://localhost:300", "https://localhost:3000"),
    *origins(403, "http.allow_origins", "http://localhost.:3000", "http://xlocalhost:3000"),
    *origins(403, "http.allow_origins", "HTTP://LOCALHOST:3000", f"http://a@{LISTED[7:]}"),
    *origins(403, "http.allow_origins", f"http://evil.example/{LISTED}", f"{LISTED} {LISTED}"),
    *origins(403, "http.allow_origins", f"{LISTED}\x00", "http://lоcalhost:3000", "app://obsidian"),
    *origins(
        403, "http.allow_origins", f"http://{HOST}.evil.example", f"http://evil.example/{HOST}"
    ),
    *origins(403, "http.allow_origins", f"HTTP://{HOST}"),
    Row((host("localhost:4114"), KEY, origin("http://LOCALHOST:4114")), 403, "allow_origins"),
    Row((host(HOST), KEY, origin(LISTED), origin(LISTED)), 403, "http.allow_origins"),
    Row((host(HOST), KEY, origin(LISTED), origin("null")), 403, "http.allow_origins"),
    Row((host(HOST), KEY, origin("null")), 403, "without an origin", open=True),
    Row((host(HOST), origin("https://evil.example")), 403, "http.allow_origins", policy=WITHOUT),
    Row((host(HOST), origin("https://evil.example")), 403, "allow_origins", "POST", policy=WITHOUT),
]

SITES = [
    Row((host(HOST), KEY, *site("none")), OK),
    Row((host(HOST), KEY, *site("same-origin")), OK),
    Row((host(HOST), KEY, *site("same-origin"), origin(f"http://{HOST}")), OK),
    Row((host(HOST), KEY, *site("cross-site"), origin(LISTED)), OK),
    Row((host(HOST), KEY, *site("same-site"), origin(LISTED)), OK),
    Row((host(HOST), KEY, *site("cross-site")), 403, "another site"),
    Row((host(HOST), KEY, *site("same-site")), 403, "another site"),
    Row((host(HOST), KEY, *site("cross-site"), origin(f"http://{HOST}")), 403, "another site"),
    Row((host(HOST), *site("cross-site", "no-cors", "image")), 403, "another site", policy=WITHOUT),
    Row((host(HOST), *site("cross-site", "no-cors", "script")), 403, "another site", open=True),
    # A link leads to the page, and to nothing else.
    Row((host(HOST), *site("cross-site", "navigate", "document")), OK, target="/", open=True),
    Row((host(HOST), *site("same-site", "navigate", "document")), OK, target="/", open=True),
    Row((host(HOST), *site("none", "navigate", "document")), OK, target="/", open=True),
    Row((host(HOST), *site("cross-site", "navigate", "document")), 403, "another site"),
    Row((host(HOST), *site("cross-site", "navigate", "document")), 403, policy=WITHOUT),
    Row((host(HOST), *site("cross-site", "navigate", "document")), 403, open=True, acts=True),
    Row((host(HOST), *site("cross-site", "navigate", "iframe")), 403, open=True),
    Row((host(HOST), *site("cross-site", "no-cors", "document")), 403, open=True),
    Row((host(HOST), *site("cross-site", "navigate", "document")), 403, "", "POST", open=True),
    Row((host(HOST), *site("cross-site", "navigate", "document")), 403, "", "HEAD", open=True),
    Row((host(HOST), *site("cross-site", "navigate", "document"), origin("null")), 403, open=True),
    # What no browser sends is not believed to be harmless.
    Row((host(HOST), KEY, *site("Same-Origin")), 403, "another site"),
    Row((host(HOST), KEY, *site("")), 403, "another site"),
    Row((host(HOST), KEY, *site("none"), *site("cross-site")), 403, "another site"),
    # Node's fetch sends the mode alone.
    Row((host(HOST), KEY, ("sec-fetch-mode", "cors")), OK),
]

LOAD = "/api/v1/models/a/b/load"
ACTING = [
    Row((host(HOST), KEY), OK, target=LOAD, acts=True),
    Row((host(HOST), KEY, *site("cross-site", "no-cors", "image")), 403, target=LOAD, acts=True),
    Row((host(HOST), KEY, MOZILLA), OK, target=LOAD, acts=True),
    Row((host(HOST),), OK, target=LOAD, acts=True, policy=WITHOUT),
    Row((host(HOST), ("user-agent", "curl/8")), OK, target=LOAD, acts=True, policy=WITHOUT),
    Row((host(HOST), *site("same-origin")), OK, target=LOAD, acts=True, policy=WITHOUT),
    Row((host(HOST), *site("cross-site"), origin(LISTED)), OK, acts=True, policy=WITHOUT),
    Row((host(HOST), *site("cross-site", "no-cors")), 403, acts=True, policy=WITHOUT),
    # Browsers that say nothing of the page, or only in a Referer.
    Row((host(HOST), MOZILLA), 403, "use POST", acts=True, policy=WITHOUT),
    Row((host(HOST), MOZILLA), OK, policy=WITHOUT),
    Row((host(HOST), ("referer", "http://evil.example/")), 403, "POST", acts=True, policy=WITHOUT),
    Row((host(HOST), MOZILLA, ("referer", f"http://{HOST}/")), OK, acts=True, policy=WITHOUT),
    Row((host(HOST), MOZILLA, ("referer", f"{LISTED}/a/b?c")), OK, acts=True, policy=WITHOUT),
    Row((host(HOST), ("referer", f"http://{HOST}.evil/")), 403, acts=True, policy=WITHOUT),
    Row((host(HOST), ("referer", f"http://evil/http://{HOST}/")), 403, acts=True, policy=WITHOUT),
    Row((host(HOST), ("referer", f"http://{HOST}@evil/")), 403, acts=True, policy=WITHOUT),
]


def tokens(status: int, says: str, *values: str) -> list[Row]:
    return [Row((host(HOST), ("authorization", value)), status, says) for value in values]


TOKENS = [
    *tokens(OK, "", f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer   {TOKEN} "),
    Row((host(HOST), ("x-api-key", TOKEN)), OK),
    Row((host(HOST), ("x-api-key", TOKEN), ("authorization", "Bearer other")), OK),
    Row((host(HOST),), 401, "hybridctl http token"),
    *tokens(401, "hybridctl http token", "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}"),
    *tokens(401, "token is wrong", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"),
    *tokens(401, "token is wrong", f"Bearer {TOKEN.upper()}", f"Bearer Bearer {TOKEN}"),
    *tokens(
        401, "token is wrong", f'Bearer "{TOKEN}"', f"Bearer {TOKEN},{TOKEN}", "Bearer ä\udcff"
    ),
    Row((host(HOST), ("x-api-key", "")), 401, "token is wrong"),
    Row((host(HOST), ("x-api-key", f"Bearer {TOKEN}")), 401, "token is wrong"),
    Row((host(HOST), ("cookie", f"token={TOKEN}")), 401, "hybridctl http token"),
    Row((host(HOST), KEY, KEY), 401, "not several"),
    Row((host(HOST), KEY, ("authorization", "Bearer x")), 401, "not several"),
    Row((host(HOST), ("x-api-key", TOKEN), ("x-api-key", TOKEN)), 401, "not several"),
    Row((host(HOST), JSON, BODY), 401, "", "POST"),
    Row((host(HOST), origin(LISTED)), 401, "hybridctl http token"),
    Row((host(HOST), origin(f"http://{HOST}")), 401, "hybridctl http token"),
    # Open routes, and a listener without a token.
    Row((host(HOST),), OK, target="/", open=True),
    Row((host(HOST), ("authorization", "Bearer x")), OK, target="/health", open=True),
    Row((host(HOST),), OK, policy=WITHOUT),
    Row((host(HOST), ("authorization", "Bearer lm-studio")), OK, policy=WITHOUT),
    # Never in the URL, however it is written there.
    Row((host(HOST),), 400, "in the URL", target=f"/v1/models?token={TOKEN}"),
    Row((host(HOST), KEY), 400, "in the URL", target=f"/v1/models?a=b&access_token={TOKEN}"),
    Row((host(HOST),), 400, "in the URL", target=f"/v1/models?api_key={TOKEN}"),
    Row((host(HOST),), 400, "in the URL", target=f"/v1/models?key={TOKEN}"),
    Row((host(HOST),), 400, "in the URL", target=f"/v1/models?API_KEY={TOKEN}"),
    Row((host(HOST),), 400, "in the URL", target=f"/v1/models?%74oken={TOKEN}"),
    Row((host(HOST),), 400, "in the URL", target="/v1/models?token"),
    Row((host(HOST),), 400, "in the URL", target=f"/?token={TOKEN}", open=True),
    Row((host(HOST), KEY), OK, target="/v1/models?tokens=5&monkey=1&q=token=x"),
    Row((host(HOST),), OK, target="/v1/models?key=x", policy=WITHOUT),
]

PLAIN: Header = ("content-type", "text/plain")
CHUNKED: Header = ("transfer-encoding", "chunked")
BODIES = [
    *types(OK, "application/json", "Application/JSON", "application/json; charset=utf-8"),
    *types(
        OK, 'application/json;charset="UTF-8"', "application/json ; Charset=utf8;", JSON[1] + ";"
    ),
    *types(OK, "application/json; profile=x; charset=utf-8"),
    *types(415, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "json"),
    *types(415, "multipart/form-data; boundary=x", "application/json+x", "application/jsonx"),
    *types(415, "text/plain; application/json", "text/plain;a=application/json", "*/*"),
    *types(415, "application/json, text/plain", "application/json;a=b, text/plain"),
    *types(415, "application/json; charset=utf-16", 'application/json; charset="latin1"'),
    *types(415, "application/json; charset=utf-8; charset=utf-16", "application/json; charset"),
    *types(415, "application/json; charset=", "application/json\x00", "application /json"),
    *posts(415, (CHUNKED, PLAIN), (BODY, JSON, PLAIN), (BODY, JSON, JSON)),
    # Without a type: taken from what is no browser, which says where it comes from.
    *posts(OK, (BODY,), (CHUNKED,)),
    *posts(415, (BODY, origin(f"http://{HOST}")), (CHUNKED, origin(APP))),
    *posts(415, (BODY, ("sec-fetch-site", "same-origin")), (BODY, ("sec-fetch-mode", "cors"))),
    *posts(415, (("content-length", "1"), PLAIN), (("content-length", "x"), PLAIN)),
    *posts(415, (("content-length", "0"), ("content-length", "5"), PLAIN)),
    *posts(OK, (), (JSON,), (CHUNKED, JSON), (("content-length", "0"),)),
    *posts(OK, (("content-length", "00"), PLAIN)),
    Row((host(HOST), KEY, BODY, PLAIN), 415, "application/json", "GET"),
    Row((host(HOST), BODY, PLAIN), 415, "application/json", "POST", policy=WITHOUT),
    Row((host(HOST), BODY, PLAIN), 415, "application/json", "POST", open=True),
]

ROWS = [*HOSTS, *TARGETS, *ORIGINS, *SITES, *ACTING, *TOKENS, *BODIES]
