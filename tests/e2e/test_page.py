"""The gateway's page in Chromium, over TCP, through a real daemon with both demo models."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.browser import Browser
from tests.e2e.conftest import RealDaemon, check_end
from tests.e2e.test_http import tcp_url

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

GGUF, HF = "hybridd/demo-gguf", "hybridd/demo-hf"
ENTER, DOWN, TAB, ESCAPE = "\ue007", "\ue015", "\ue004", "\ue00c"
LONG = "on and on " * 2000
# What would run, or lead somewhere, if any of it became markup.
HOSTILE = (
    "<img src=x onerror='document.title=\"taken\"'> <script>document.title='taken'</script>\n\n"
    "[click](javascript:document.title='taken') [data](data:text/html,taken) "
    "![picture](http://tracker.invalid/a.png) [good](https://example.org/a)\n\n"
    "# <b>bold</b>\n\n| <i>a</i> | b |\n|---|---|\n| <u>c</u> | `<s>d</s>` |\n\n"
    "> <iframe src='http://tracker.invalid/'></iframe>\n\n```html\n<script>1</script>\n```\n"
)


def write_echo(daemon: RealDaemon, name: str, **facts: Any) -> None:
    """Put a model into the daemon's models directory."""
    (daemon.models / f"{name}.echo").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """A daemon on TCP with the models that this module talks to."""
    made = RealDaemon(tmp_path_factory.mktemp("page"), HYBRIDD_HTTP_LISTEN="127.0.0.1:0")
    write_echo(made, "talker", reply=LONG, token_delay_s=0.01)
    write_echo(made, "hostile", reply=HOSTILE)
    write_echo(made, "broken", fail="<img src=x onerror=1> is cut off; copy it again")
    made.start()
    yield made
    check_end(made)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.browser() as made:
        made.resize(1280, 800)
        yield made


def enter(page: Browser, daemon: RealDaemon) -> None:
    """Open the page by a link, as one who was never there."""
    page.open(f"{tcp_url(daemon)}/openapi.json")
    page.run("localStorage.clear(); sessionStorage.clear()")
    page.log()
    page.open(link(daemon))
    page.find('#link[data-state="live"]')
    page.find("#devices .device")
    page.find(row(GGUF))


def link(daemon: RealDaemon) -> str:
    ran = daemon.ctl("http", "url")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def row(model: str, state: str = "") -> str:
    status = f'[data-status="{state}"]' if state else ""
    return f'.row[data-id="{model}"]{status}'


def choose(page: Browser, model: str) -> None:
    page.click(f'#model option[value="{model}"]')


def conversation(page: Browser) -> list[dict[str, Any]]:
    """The messages of the chat that is shown, as the browser keeps them."""
    kept: list[dict[str, Any]] = page.run(
        "return JSON.parse(localStorage.getItem('hybridd.chats') ?? '[]')[0]?.messages ?? []"
    )
    return kept


def answered(page: Browser, count: int) -> str:
    """Wait until the answer with this number, from 1, is over; returns its text."""
    shown = "#messages .message.assistant .foot:not(:empty)"
    ended = "return document.querySelectorAll(arguments[0]).length >= arguments[1]"
    page.until(lambda: page.run(ended, shown, count), f"answer {count}")
    answers = [each for each in conversation(page) if each["role"] == "assistant"]
    assert "error" not in answers[count - 1], answers[count - 1]
    return str(answers[count - 1]["content"])


def say(page: Browser, text: str) -> None:
    page.type("#prompt", text + ENTER)


def set_steady(page: Browser) -> None:
    """Have answers that are the same each time, and short."""
    page.click("#settings")
    page.type("#set-temperature", "0")
    page.type("#set-max", "24")
    page.click("#settings-box .button.main")


# ------------------------------------------------------------------ the way in


def test_the_page_shows_what_there_is_without_an_error(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    chromium.find(row(HF))
    chromium.find("#devices .device .bar")
    assert "free" in chromium.text("#devices")
    assert chromium.text("#version"), "the daemon's version"
    assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")
    assert chromium.log() == []


def test_a_link_lets_in_once(tcp: RealDaemon, chromium: Browser) -> None:
    address = link(tcp)
    chromium.open(f"{tcp_url(tcp)}/openapi.json")
    chromium.run("localStorage.clear(); sessionStorage.clear()")
    chromium.open(address)
    chromium.find('#link[data-state="live"]')
    assert chromium.run("return location.href") == f"{tcp_url(tcp)}/", "the code is gone"
    assert chromium.run("return document.cookie") == ""

    chromium.run("sessionStorage.clear()")
    chromium.open("about:blank")
    chromium.open(address)
    chromium.find("#locked-box[open]")
    told = chromium.until(lambda: chromium.text("#locked-box"))
    assert "used already" in told
    assert "hybridctl http url" in told


def test_who_has_no_key_is_told_how_to_get_one(tcp: RealDaemon, chromium: Browser) -> None:
    chromium.open(f"{tcp_url(tcp)}/openapi.json")
    chromium.run("sessionStorage.clear()")
    chromium.open(f"{tcp_url(tcp)}/")
    chromium.find("#locked-box[open]")
    assert "hybridctl http url" in chromium.text("#locked-box")
    token = tcp.ctl("http", "token").stdout.strip()
    chromium.type("#locked-token", token + ENTER)
    chromium.find('#link[data-state="live"]')
    chromium.find(row(GGUF))


def test_the_page_finds_a_daemon_that_comes_back(
    make_daemon: Callable[..., RealDaemon], chromium: Browser
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = make_daemon(HYBRIDD_HTTP_LISTEN=f"127.0.0.1:{port}")
    enter(chromium, daemon)
    daemon.stop()
    chromium.find('#link[data-state="off"]')
    write_echo(daemon, "came-meanwhile")
    daemon.start()
    chromium.find('#link[data-state="live"]')
    chromium.find(row("came-meanwhile"))


# ------------------------------------------------------------------ models


def test_a_model_appears_and_goes_live(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    write_echo(tcp, "newcomer")
    chromium.find(row("newcomer"))
    (tcp.models / "newcomer.echo").unlink()
    gone = "return !document.querySelector(arguments[0])"
    chromium.until(lambda: chromium.run(gone, row("newcomer")), "its end")


def test_a_model_is_loaded_and_unloaded(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    chromium.click(f'{row(GGUF, "available")} [data-part="act"]')
    chromium.find(row(GGUF, "loaded"))
    with tcp.client() as client:
        assert GGUF in [each.id for each in client.loaded()]
    chromium.until(lambda: GGUF in chromium.text("#devices"), "its share of memory")
    chromium.click(f'{row(GGUF, "loaded")} [data-part="act"]')
    chromium.find(row(GGUF, "available"))
    with tcp.client() as client:
        assert GGUF not in [each.id for each in client.loaded()]


def test_a_model_is_loaded_with_the_keyboard_alone(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    chromium.run("document.activeElement.blur()")
    chromium.keys("/demo-hf")
    only = "return document.querySelectorAll('#list .row').length === 1"
    chromium.until(lambda: chromium.run(only), "the search's result")
    chromium.keys(DOWN + TAB + ENTER)
    chromium.find(row(HF, "loaded"))
    at = chromium.run("return document.activeElement.getAttribute('aria-label')")
    assert at == f"Unload {HF}", "the focus stays with the model"


def test_a_pinned_model_says_so(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    chromium.click(f"{row(HF)} .row-name")
    chromium.click(f'{row(HF)} [data-part="pin"]')
    chromium.find(f'{row(HF, "loaded")} [data-part="pin"][aria-pressed="true"]')
    with tcp.client() as client:
        assert [each.pinned for each in client.loaded() if each.id == HF] == [True]
    chromium.click(f'{row(HF)} [data-part="pin"]')
    chromium.find(f'{row(HF)} [data-part="pin"][aria-pressed="false"]')


def test_why_a_load_failed_is_told_whole(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    chromium.click(f'{row("broken")} [data-part="act"]')
    told = chromium.text(f"{row('broken')} .trouble p")
    assert "<img src=x onerror=1> is cut off; copy it again" in told
    assert chromium.run("return document.querySelectorAll('.row img').length") == 0


def test_the_search_finds_by_facts(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    shown = "return [...document.querySelectorAll('#list .row')].map((each) => each.dataset.id)"

    def finds(words: str, *ids: str) -> None:
        chromium.run("document.getElementById('search').value = ''")
        chromium.type("#search", words)
        chromium.until(lambda: sorted(chromium.run(shown)) == sorted(ids), words)

    finds("gguf f16", GGUF)
    finds("HUGGINGFACE chat", HF)
    finds("<1mb echo", "talker", "hostile", "broken")
    finds("nothing-like-this")
    assert "Show all models" in chromium.text("#list")


# ------------------------------------------------------------------ chat


def test_a_conversation_goes_on_with_another_model(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    set_steady(chromium)
    choose(chromium, GGUF)
    say(chromium, "Who are you?")
    first = answered(chromium, 1)
    choose(chromium, HF)
    say(chromium, "Say it again.")
    second = answered(chromium, 2)
    assert "demo-hf answers from here" in chromium.text("#messages .switched")
    assert [each.get("model") for each in conversation(chromium)] == [None, GGUF, None, HF]

    messages = [{"role": "user", "content": "Who are you?"}]
    with tcp.client() as client:
        said = client.chat(GGUF, messages, temperature=0.0, max_tokens=24)
        assert first == said.text
        messages += [
            {"role": "assistant", "content": first},
            {"role": "user", "content": "Say it again."},
        ]
        assert second == client.chat(HF, messages, temperature=0.0, max_tokens=24).text

    chromium.open(f"{tcp_url(tcp)}/")
    chromium.find("#messages .message.assistant")
    assert [each["content"] for each in conversation(chromium)][1::2] == [first, second]


def test_a_long_answer_streams_and_is_stopped(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    choose(chromium, "talker")
    say(chromium, "Tell me a long story.")
    shown = "return document.querySelector('#messages .md')?.textContent.length ?? 0"
    some = chromium.until(lambda: chromium.run(shown), "the first words")
    chromium.until(lambda: chromium.run(shown) > some, "more words")
    chromium.click("#stop")
    text = answered(chromium, 1)
    assert LONG.startswith(text)
    assert len(text) < len(LONG)
    assert "stopped" in chromium.text("#messages .message.assistant .foot")
    with tcp.client() as client:
        chromium.until(
            lambda: not {each.id: each.active_requests for each in client.loaded()}["talker"],
            "the request's end in the daemon",
        )

    say(chromium, "Again.")
    chromium.until(lambda: chromium.run("return chatting?.message.content.length"), "words")
    chromium.keys(ESCAPE)
    answered(chromium, 2)
    assert conversation(chromium)[3]["stopped"] is True


def test_an_answer_is_made_anew(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    choose(chromium, "hostile")
    say(chromium, "Once.")
    answered(chromium, 1)
    choose(chromium, GGUF)
    chromium.click("#messages .message.assistant:last-child .foot .button:nth-child(2)")
    changed = "return chatting === null && current.messages[1].model"
    chromium.until(lambda: chromium.run(changed) == GGUF, "the other answer")
    assert len(conversation(chromium)) == 2


def test_what_a_model_writes_stays_text(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    title = chromium.run("return document.title")
    choose(chromium, "hostile")
    say(chromium, "<b>Do</b> your worst.")
    assert answered(chromium, 1) == HOSTILE
    made = chromium.run(
        "return [...document.querySelectorAll('#messages *')].map((each) => each.localName)"
    )
    assert not {"img", "script", "iframe", "b", "i", "u", "s", "style"} & set(made)
    assert {"table", "blockquote", "pre", "code"} <= set(made), "Markdown is drawn"
    links = chromium.run("return [...document.querySelectorAll('#messages a')].map((a) => a.href)")
    assert "https://example.org/a" in links
    assert all(each.startswith(("http://", "https://")) for each in links)
    shown = chromium.run("return document.getElementById('messages').textContent")
    assert "<img src=x onerror='document.title=\"taken\"'>" in shown
    assert "<script>1</script>" in shown
    assert "<b>Do</b> your worst." in shown
    assert chromium.run("return document.title") == title
    assert chromium.log() == []


def test_a_chat_is_deleted(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    choose(chromium, "hostile")
    say(chromium, "Forget this.")
    answered(chromium, 1)
    chromium.click("#history")
    assert "Forget this." in chromium.text("#history-list")
    chromium.click("#history-list li .bad")
    assert "No chats yet" in chromium.text("#history-list")
    assert conversation(chromium) == []
    chromium.click("#history-box [data-close]")
    assert "Forget this." not in chromium.text("#messages")


def test_a_picture_goes_to_a_model_that_reads_it(
    make_daemon: Callable[..., RealDaemon], chromium: Browser, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    images = pytest.importorskip("PIL.Image", reason="the extra vision is not installed")
    tiny = pytest.importorskip("tests.make_huggingface")
    daemon = make_daemon(HYBRIDD_HTTP_LISTEN="127.0.0.1:0")
    tiny.llava(daemon.models / "seeing")
    images.new("RGB", (40, 30), "teal").save(tmp_path / "teal.png")
    enter(chromium, daemon)
    chromium.find(row("seeing"))
    choose(chromium, GGUF)
    assert not chromium.run("return document.getElementById('attach').checkVisibility()")
    choose(chromium, "seeing")
    assert chromium.run("return document.getElementById('attach').checkVisibility()")
    set_steady(chromium)
    chromium.type("#file", str(tmp_path / "teal.png"))
    chromium.find("#attached img")
    say(chromium, "what is it")
    text = answered(chromium, 1)
    chromium.find("#messages .message.user .pictures img")
    (url,) = conversation(chromium)[0]["images"]
    assert url.startswith("data:image/png;base64,")
    picture = {"type": "image_url", "image_url": {"url": url}}
    content = [picture, {"type": "text", "text": "what is it"}]
    with daemon.client() as client:
        messages = [{"role": "user", "content": content}]
        assert text == client.chat("seeing", messages, temperature=0.0, max_tokens=24).text


# ------------------------------------------------------------------ small and dark


def test_a_phone_has_one_view_at_a_time(tcp: RealDaemon, chromium: Browser) -> None:
    enter(chromium, tcp)
    chromium.resize(390, 844)
    try:
        visible = (
            "return ['models', 'chat', 'machine'].filter("
            "(id) => document.getElementById(id).checkVisibility())"
        )
        for view in ("chat", "machine", "models"):
            chromium.click(f'.tabs [data-view="{view}"]')
            assert chromium.run(visible) == [view]
            assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        chromium.resize(1280, 800)


def test_light_and_dark_follow_the_system_until_they_are_chosen(
    tcp: RealDaemon, chromium: Browser
) -> None:
    def prefer(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.devtools("Emulation.setEmulatedMedia", features=features)

    def is_theme(name: str) -> None:
        chromium.find(f'html[data-theme="{name}"]')

    enter(chromium, tcp)
    prefer("dark")
    is_theme("dark")
    prefer("light")
    is_theme("light")
    chromium.click("#theme")
    is_theme("dark")
    chromium.open(f"{tcp_url(tcp)}/")
    is_theme("dark")
