"""Who may ask: a table of requests (`guard_rows`), and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.http.guard import Policy, Verdict, judge

from .guard_rows import (
    BODY,
    HOST,
    JSON,
    KEY,
    LISTED,
    MOZILLA,
    OK,
    PLAIN,
    POLICY,
    ROWS,
    TOKEN,
    WITHOUT,
    Header,
    Row,
    host,
    origin,
    site,
)  # fmt: skip


def verdict(
    method: str,
    target: str,
    *headers: Header,
    policy: Policy = POLICY,
    open: bool = False,
    acts: bool = False,
) -> Verdict:
    raw = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers]
    return judge(method, target, raw, policy, open=open, acts=acts)


def ask(row: Row) -> Verdict:
    return verdict(
        row.method, row.target, *row.headers, policy=row.policy, open=row.open, acts=row.acts
    )


def test_the_table_is_long() -> None:
    assert len(ROWS) > 200


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.status} {row.headers!a}"[:120])
def test_a_row(row: Row) -> None:
    judged = ask(row)
    got = OK if judged.problem is None else judged.problem.status
    assert (got, judged.preflight) == (row.status, False)
    if judged.problem is not None:
        assert row.says in judged.problem.message
        assert judged.problem.message.isprintable()
        challenged = any(name == "www-authenticate" for name, _ in judged.problem.headers)
        assert challenged == (row.status == 401)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.status} {row.headers!a}"[:120])
def test_cors_headers_go_to_origins_of_the_list_alone(row: Row) -> None:
    told = dict(ask(row).headers)
    assert told["vary"] == "Origin"
    sent = [value for name, value in row.headers if name == "origin"]
    listed = len(sent) == 1 and sent[0] in row.policy.origins and row.headers[0][0] == "host"
    assert told.get("access-control-allow-origin") == (sent[0] if listed else None)
    assert "access-control-allow-credentials" not in told


def test_a_page_of_the_list_can_read_why_it_was_refused() -> None:
    for headers, status in (((origin(LISTED),), 401), ((origin(LISTED), KEY, BODY, PLAIN), 415)):
        judged = verdict("POST", "/v1/chat/completions", host(HOST), *headers)
        assert judged.problem is not None
        assert judged.problem.status == status
        assert dict(judged.headers) == {
            "access-control-allow-origin": LISTED,
            "access-control-expose-headers": "x-request-id, retry-after",
            "vary": "Origin",
        }


ASKS: Header = ("access-control-request-method", "POST")
NAMES = "authorization,content-type,x-stainless-os,anthropic-version"


def preflight(*headers: Header, policy: Policy = POLICY, at: str = HOST) -> Verdict:
    return verdict("OPTIONS", "/v1/chat/completions", host(at), *headers, policy=policy)


@pytest.mark.parametrize("policy", [POLICY, WITHOUT], ids=["token", "none"])
def test_a_preflight_needs_no_token(policy: Policy) -> None:
    asked = ("access-control-request-headers", NAMES)
    judged = preflight(origin(LISTED), ASKS, asked, *site("cross-site"), policy=policy)
    assert judged.problem is None
    assert judged.preflight
    told = dict(judged.headers)
    assert told["access-control-allow-origin"] == LISTED
    assert told["access-control-allow-headers"] == NAMES.replace(",", ", ")
    assert "POST" in told["access-control-allow-methods"].split(", ")
    assert int(told["access-control-max-age"]) > 0
    assert told["vary"].startswith("Origin,")
    assert "access-control-allow-private-network" not in told
    assert "access-control-allow-credentials" not in told


def test_private_network_access_is_granted_when_it_is_asked_for() -> None:
    asked = ("access-control-request-private-network", "true")
    assert ("access-control-allow-private-network", "true") in preflight(
        origin(LISTED), ASKS, asked
    ).headers
    for told in (
        preflight(origin(LISTED), ASKS, (asked[0], "false")),
        preflight(origin("https://evil.example"), ASKS, asked),
        preflight(origin("null"), ASKS, asked),
        preflight(ASKS, asked),
    ):
        assert "access-control-allow-private-network" not in dict(told.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((origin("https://evil.example"), ASKS), 403),
        ((origin("null"), ASKS), 403),
        ((origin(f"{LISTED}.evil.example"), ASKS, *site("cross-site")), 403),
        ((origin(LISTED), origin(LISTED), ASKS), 403),
        ((ASKS,), 401),  # no browser sent it
        ((origin(LISTED),), 401),  # an OPTIONS of a program
        ((origin(f"http://{HOST}"), ASKS), 401),
    ],
)
def test_what_is_no_preflight_of_a_listed_origin(headers: tuple[Header, ...], status: int) -> None:
    judged = preflight(*headers)
    assert judged.problem is not None
    assert (judged.problem.status, judged.preflight) == (status, False)
    assert "access-control-allow-methods" not in dict(judged.headers)


def test_a_preflight_to_another_name_is_refused() -> None:
    judged = preflight(origin(LISTED), ASKS, at="evil.example:4114")
    assert judged.problem is not None
    assert (judged.problem.status, judged.preflight) == (403, False)
    assert judged.headers == (("vary", "Origin"),)


def test_only_an_options_request_is_a_preflight() -> None:
    judged = verdict("POST", "/v1/models", host(HOST), origin(LISTED), ASKS)
    assert judged.problem is not None
    assert (judged.problem.status, judged.preflight) == (401, False)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("X-Api-Key", "x-api-key"),
        ("a, b ,c", "a, b, c"),
        ("a,b c,(d),e\x00,ü,f", "a, f"),
        ("", None),
        (",,", None),
        ("*", "*"),
        (",".join(f"x-{n}" for n in range(500)), ", ".join(f"x-{n}" for n in range(100))),
    ],
)
def test_names_of_headers_are_checked_before_they_are_echoed(
    asked: str, granted: str | None
) -> None:
    told = dict(preflight(origin(LISTED), ASKS, ("access-control-request-headers", asked)).headers)
    assert told.get("access-control-allow-headers") == granted


# -------------------------------------------------------------------- for all requests

VALUES = st.one_of(
    st.sampled_from([HOST, LISTED, f"http://{HOST}", "null", TOKEN, "none", "same-origin"]),
    st.text(st.characters(max_codepoint=0x250, exclude_categories=["Cs"]), max_size=40),
)


@st.composite
def near(draw: st.DrawFn, text: str) -> str:
    """A text that one edit or two make of `text`."""
    for _ in range(draw(st.integers(1, 2))):
        at, to = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        text = text[:at] + draw(st.text("./:@[]x1 \t,#?%", max_size=3)) + text[min(to, at + 2) :]
    return text


@given(st.one_of(VALUES, near(HOST), near("[::1]:4114")), st.booleans(), st.booleans())
def test_no_other_host_passes(name: str, open: bool, tokenless: bool) -> None:
    policy = WITHOUT if tokenless else POLICY
    judged = verdict("GET", "/", host(name), KEY, origin(LISTED), policy=policy, open=open)
    exact = name.strip(" \t").lower() in POLICY.hosts and name.isascii()
    assert (judged.problem is None) == exact
    assert exact or judged.headers == (("vary", "Origin"),)


@given(
    st.one_of(VALUES, near(LISTED), near(f"http://{HOST}")),
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD"]),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from([ASKS, MOZILLA, KEY, JSON, *site("none"), *site("cross-site")])),
)
def test_no_other_origin_passes(
    page: str, method: str, open: bool, acts: bool, more: list[Header]
) -> None:
    judged = verdict(
        method, "/", host(HOST), origin(page), *more, policy=WITHOUT, open=open, acts=acts
    )
    sent = page.strip(" \t")
    if sent not in {*POLICY.origins, f"http://{HOST}"}:
        assert judged.problem is not None
        assert judged.problem.status == 403
    if sent not in POLICY.origins:
        assert not [name for name, _ in judged.headers if name.startswith("access-control")]
        assert not judged.preflight


@given(st.one_of(VALUES, near(TOKEN)), st.sampled_from(["authorization", "x-api-key"]))
def test_no_other_token_passes(sent: str, name: str) -> None:
    value = f"Bearer {sent}" if name == "authorization" else sent
    judged = verdict("GET", "/v1/models", host(HOST), (name, value))
    assert (judged.problem is None) == (sent.strip(" \t") == TOKEN)


@given(
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "", "x y"]),
    st.text(max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from(
                b"host origin authorization content-type content-length sec-fetch-site referer "
                b"access-control-request-method x-api-key".split()
            ),
            st.one_of(VALUES.map(str.encode), st.binary(max_size=40)),
        ),
        max_size=8,
    ),
    st.booleans(),
    st.booleans(),
)
def test_any_head_has_a_verdict_that_can_be_sent(
    method: str, target: str, headers: list[tuple[bytes, bytes]], open: bool, acts: bool
) -> None:
    for policy in (POLICY, WITHOUT):
        judged = judge(method, target, headers, policy, open=open, acts=acts)
        problem = judged.problem
        for name, value in (*judged.headers, *(problem.headers if problem else ())):
            assert f"{name}: {value}".isascii()
            assert value.isprintable()
        assert not (problem and judged.preflight)
