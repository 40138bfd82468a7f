"""Chat templates: what they render, what users' special tokens become, and what stops them."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="jinja2 comes with an engine's extra")

from hybridd.backends.engine.chat_template import ChatTemplate, Segment
from hybridd.backends.engine.messages import normalize
from hybridd.wire.errors import InvalidParams, Unsupported
from tests.support_models import user

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|im_end|>>"]
CHATML = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def template(source: str = CHATML) -> ChatTemplate:
    return ChatTemplate(source, lambda: SPECIAL, {"bos_token": "<s>"}, "gguf")


def text(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def render(source: str, messages: Any = None, **more: Any) -> str:
    return text(template(source).render(messages or user("hi"), **more))


def test_renders_as_the_family_does() -> None:
    assert text(template().render(user("hi"))) == (
        "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_of_a_user_are_segments_of_text() -> None:
    segments = template().render(user("a<|im_end|>b</s>"))
    assert segments == [
        Segment("<s><|im_start|>user\na", True),
        Segment("<|im_end|>", False),
        Segment("b", True),
        Segment("</s>", False),
        Segment("<|im_end|>\n<|im_start|>assistant\n", True),
    ]


def test_removing_one_special_token_makes_no_other() -> None:
    segments = template().render(user("<|im_<|im_end|>end|>"))
    assert [s.text.count("<|im_end|>") for s in segments if s.special] == [0, 1]
    assert Segment("<|im_end|>", False) in segments


def test_the_longest_special_string_is_hidden_whole() -> None:
    segments = template().render(user("<|im_end|>>"))
    assert Segment("<|im_end|>>", False) in segments


def test_special_tokens_are_hidden_wherever_they_stand() -> None:
    source = "{{ tools | tojson }}{{ messages[0].name }}{{ extra }}"
    messages = [{"role": "user", "content": "", "name": "</s>"}]
    tools = [{"description": "<s>", "<|im_end|>": 1}]
    segments = template(source).render(messages, tools, {"extra": "<|im_start|>"})
    assert [s.text for s in segments if not s.special] == [
        "<s>",
        "<|im_end|>",
        "</s>",
        "<|im_start|>",
    ]


def test_private_characters_of_a_user_stay_what_they_are() -> None:
    content = "\U000f0000</s>\U000f0001"
    segments = template("{{ messages[0].content }}").render(user(content))
    assert segments == [
        Segment("\U000f0000", True),
        Segment("</s>", False),
        Segment("\U000f0001", True),
    ]


def test_helpers_that_templates_of_the_family_use() -> None:
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert render("{% generation %}x{% endgeneration %}") == "x"
    assert render(
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    ) == ("01")
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")
    assert render("{% for m in messages %}{{ loop.last }}{{ loop.length }}{% endfor %}") == "True1"
    assert render("{{ flag }}", kwargs={"flag": "on"}) == "on"
    assert render("  {% if true %}\n  x\n  {% endif %}\n") == "  x\n"


def test_kwargs_cannot_replace_the_messages() -> None:
    assert render("{{ messages[0].content }}", kwargs={"messages": "no"}) == "hi"


def test_raise_exception_is_the_users_mistake() -> None:
    with pytest.raises(InvalidParams, match="no system role") as caught:
        render("{{ raise_exception('no system role') }}")
    assert caught.value.data["field"] == "messages"


def test_a_template_that_trips_over_the_messages() -> None:
    with pytest.raises(InvalidParams, match="failed at these messages"):
        render("{{ messages.nothing.there }}")


@pytest.mark.parametrize("source", ["{% if %}", "{{ 'x' ", "{% nosuch %}", "x" * 600_000])
def test_no_template(source: str) -> None:
    with pytest.raises(Unsupported) as caught:
        template(source)
    assert caught.value.data["capability"] == "chat"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}"
        "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'a' * 10**11 }}",
        "{{ 'a' | center(10**11) }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ 9 ** 99999 }}",
        "{% set ns = namespace(x=3) %}"
        "{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_what_does_not_end_is_stopped(source: str) -> None:
    with pytest.raises(Unsupported) as caught:
        render(source)
    assert caught.value.data["capability"] == "chat"


def test_calls_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridd.backends.engine.chat_template._MAX_TICKS", 10_000)
    fork = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    with pytest.raises(Unsupported, match="does not come to an end"):
        render(fork + "{{ m(60) }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append({}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.os }}",
    ],
)
def test_nothing_of_python_is_reached(source: str) -> None:
    with pytest.raises(InvalidParams):
        render(source)


def test_a_bounded_rendering_leaves_the_process_as_it_was() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(Unsupported):
        render("{{ 'a' * 10**11 }}")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_messages_are_brought_to_one_form() -> None:
    messages: list[dict[str, Any]] = [
        {
            "role": "system",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "1", "unknown": 1},
    ]
    assert normalize(messages, "gguf") == [
        {"role": "system", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "1"},
    ]


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        (None, "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
    ],
)
def test_bad_messages_name_their_place(messages: Any, field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        normalize(messages, "gguf")
    assert caught.value.data["field"] == field


def test_images_are_a_capability_that_is_not_there() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    with pytest.raises(Unsupported) as caught:
        normalize([{"role": "user", "content": parts}], "gguf")
    assert caught.value.data == {"capability": "vision", "format": "gguf"}


def test_special_strings_are_looked_up_only_where_they_may_be() -> None:
    asked: list[str] = []

    def strings() -> list[str]:
        asked.append("looked up")
        return ["<|end|>"]

    template = ChatTemplate(
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        strings,
        {},
        "gguf",
        lambda t: "<" in t,
    )
    assert template.render([{"role": "user", "content": "plain"}]) == [Segment("plain", True)]
    assert not asked
    found = template.render([{"role": "user", "content": "a<|end|>"}])
    assert found == [Segment("a", True), Segment("<|end|>", False)]
    assert asked == ["looked up"]
