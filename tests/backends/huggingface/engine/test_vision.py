"""Pictures in conversations: what is said of them is what transformers says, and bad ones end."""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import Engine, LoadedFacts
from hybridd.backends.data_urls import MAX_ENCODED_BYTES, MAX_PICTURES
from tests.support_models import (
    Answer,
    ask,
    collect,
    delta_of,
    ignore_progress,
    make_engine,
    spec_for,
)

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
Image = pytest.importorskip("PIL.Image", reason="the extra vision is not installed")
tiny = pytest.importorskip("tests.make_huggingface")
engines = pytest.importorskip("hybridd.backends.huggingface.engine.generator")
solo = pytest.importorskip("hybridd.backends.huggingface.engine.forward.sequential")
vision = pytest.importorskip("hybridd.backends.huggingface.engine.forward.vision_session")
NotBatchable, PicturePrompt = engines.NotBatchable, vision.PicturePrompt

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "logprobs": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tiny.llava(tmp_path_factory.mktemp("llava") / "m")
    return made


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Any:
    torch.manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def url(picture: Any, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def part(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def opened(path: Path, **options: Any) -> tuple[Engine, LoadedFacts]:
    engine = make_engine("huggingface")
    return engine, engine.load(spec_for(path, "huggingface", **options), ignore_progress)


def ids(answer: Answer) -> list[int]:
    assert not answer.error, answer.error
    return [entry["id"] for entry in answer.logprobs]


def expected(path: Path, messages: list[dict[str, Any]], pictures: list[Any]) -> list[int]:
    """What transformers generates by itself: its processor, its template, its loop."""
    processor = transformers.AutoProcessor.from_pretrained(path)
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(path).eval()
    own = [
        {
            **message,
            "content": [
                {"type": "image"} if one["type"] == "image_url" else one
                for one in message["content"]
            ],
        }
        for message in messages
    ]
    prompt = processor.apply_chat_template(own, add_generation_prompt=True)
    inputs = processor(images=pictures or None, text=prompt, return_tensors="pt")
    made = loaded.generate(**inputs, do_sample=False, max_new_tokens=12)
    new = [int(token) for token in made[0, inputs["input_ids"].shape[1] :]]
    return new[: new.index(0)] if 0 in new else new


def test_greedy_tokens_are_those_of_transformers(model: Path) -> None:
    engine, facts = opened(model)
    assert {"vision", "chat", "completion"} <= set(facts["capabilities"])
    seen = set()
    for seed in (1, 2, 3):
        one = picture(seed)
        messages = said(text("what is it"), part(url(one)))
        tokens = ids(ask(engine, "chat", messages=messages, options=GREEDY))
        assert tokens == expected(model, messages, [one])
        seen.add(tuple(tokens))
    assert len(seen) > 1, "the picture has to matter"


def test_two_pictures_in_two_messages(model: Path) -> None:
    engine, _ = opened(model)
    one, two = picture(1), picture(2, (64, 32))
    messages = [
        *said(part(url(one)), text("one")),
        {"role": "assistant", "content": [text("it is some time")]},
        *said(text("and"), part(url(two)), text("what")),
    ]
    answer = ask(engine, "chat", messages=messages, options=GREEDY)
    assert ids(answer) == expected(model, messages, [one, two])
    swapped = [
        *said(part(url(two)), text("one")),
        messages[1],
        *said(text("and"), part(url(one)), text("what")),
    ]
    answer = ask(engine, "chat", messages=swapped, options=GREEDY)
    assert ids(answer) == expected(model, swapped, [two, one])


@pytest.mark.parametrize("family", ["idefics3", "gemma3"])
def test_other_families(tmp_path: Path, family: str) -> None:
    path = getattr(tiny, family)(tmp_path / "m")
    engine, facts = opened(path)
    assert "vision" in facts["capabilities"]
    seen = set()
    for seed in (1, 2, 3):
        one, two = picture(seed), picture(seed + 5, (64, 30))
        messages = said(text("what"), part(url(one)), text("and"), part(url(two)))
        tokens = ids(ask(engine, "chat", messages=messages, options=GREEDY))
        assert tokens == expected(path, messages, [one, two])
        seen.add(tuple(tokens))
    assert len(seen) > 1, "the pictures have to matter"


@pytest.mark.parametrize("template", ["PICTURE_TEMPLATE", "PARTS_TEMPLATE"])
def test_texts_alone(tmp_path: Path, template: str) -> None:
    path = tiny.llava(tmp_path / "m", getattr(tiny, template))
    engine, _ = opened(path)
    messages = said(text("what is the time"))
    answer = ask(engine, "chat", messages=messages, options=GREEDY)
    assert ids(answer) == expected(path, messages, [])
    plain = [{"role": "user", "content": "what is the time"}]
    assert ids(ask(engine, "chat", messages=plain, options=GREEDY)) == ids(answer)
    assert ids(ask(engine, prompt="what is", options=GREEDY))


def test_the_next_turn_of_a_text_goes_on_and_pictures_do_not_mix(model: Path) -> None:
    engine, _ = opened(model, parallel=2)
    plain = [{"role": "user", "content": "what is the time"}]
    first = ask(engine, "chat", messages=plain, options=GREEDY)
    turns = [*plain, {"role": "assistant", "content": first.text}, *plain]
    again = ask(engine, "chat", messages=turns, options=GREEDY)
    assert again.result["usage"]["cached_tokens"] >= first.result["usage"]["prompt_tokens"]
    assert ids(again) == expected(
        model, [said(text(m["content"]))[0] | {"role": m["role"]} for m in turns], []
    )
    for seed in (4, 5):
        messages = said(part(url(picture(seed))), text("what"))
        answer = ask(engine, "chat", messages=messages, options=GREEDY)
        assert answer.result["usage"]["cached_tokens"] == 0
        assert ids(answer) == expected(model, messages, [picture(seed)])


def run(engine: Engine, asked: list[list[dict[str, Any]]], cancelled: int = 0) -> list[str]:
    """Everything asked at once; one may be cancelled after two steps."""
    texts = [""] * len(asked)
    for number, messages in enumerate(asked):
        request: Any = {"id": number, "kind": "chat", "messages": messages, "options": GREEDY}
        engine.submit(request)
    for step in itertools.count():
        if not engine.busy:
            return texts
        if cancelled and step == 2:
            engine.cancel(cancelled)
        for output in engine.step():
            assert "error" not in output
            texts[output["id"]] += delta_of(output).text
    raise AssertionError


@pytest.mark.parametrize("together", [True, False])
def test_requests_beside_each_other_and_a_cancelled_one_leaves_nothing(
    model: Path, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(engines, "VisionBatchSession", not_batchable)
    engine, _ = opened(model, parallel=5)
    assert (session_of(engine).reason is None) == together
    pictures = [said(part(url(picture(seed))), text("what is")) for seed in (1, 2)]
    asked = [pictures[0], said(text("what is the time")), *pictures, said(text("it is"))]
    alone = [ask(engine, "chat", messages=m, options=GREEDY).text for m in asked]
    assert alone[0] == alone[2] != alone[3]
    texts = run(engine, asked, cancelled=2)
    assert len(texts.pop(2)) < len(alone.pop(2))
    assert texts == alone
    assert run(engine, asked[:2]) == alone[:2]


def test_a_model_without_memory_sees_the_picture_for_each_token(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "VisionBatchSession", not_batchable)
    nothing = (solo.Memory.NONE, False, False)
    monkeypatch.setattr(vision.VisionSession, "_found", lambda *_: nothing)
    engine, _ = opened(model)
    one = picture(1)
    messages = said(text("what is it"), part(url(one)))
    tokens = ids(ask(engine, "chat", messages=messages, options=GREEDY))
    assert tokens == expected(model, messages, [one])


def not_batchable(*_: Any) -> Any:
    raise NotBatchable("a test")


def session_of(engine: Any) -> Any:
    return engine._engine._session


def test_what_follows_pictures_shares_passes_with_texts(model: Path) -> None:
    engine, _ = opened(model, parallel=4)
    session, rows = session_of(engine), list[int]()
    forward = session.forward

    def counting(works: Any, abort: Any = None) -> Any:
        rows.append(len(works))
        return forward(works, abort)

    session.forward = counting
    asked = [said(part(url(picture(seed))), text("what is")) for seed in (1, 2)]
    asked += [said(text("what is the time")), said(text("it is some"))]
    for number, messages in enumerate(asked):
        options = {**GREEDY, "ignore_eos": True, "max_tokens": 5}
        request: Any = {"id": number, "kind": "chat", "messages": messages, "options": options}
        engine.submit(request)
    while engine.busy:
        assert not any("error" in output for output in engine.step())
    assert rows == [2, 1, 1, 4, 4, 4, 4]


def test_many_pictures_hold_up_nobody_for_longer_than_one(model: Path) -> None:
    engine, _ = opened(model, parallel=4, ubatch_size=16)
    session, pictures = session_of(engine), list[int]()
    forward = session.forward

    def counting(works: Any, abort: Any = None) -> Any:
        pictures.append(sum(row.whole and not row.tokens for row, _ in works))
        return forward(works, abort)

    session.forward = counting
    asked = [said(text("it is"))]
    asked += [said(part(url(picture(seed))), text("what is")) for seed in (1, 2, 3)]
    for number, messages in enumerate(asked):
        options = {**GREEDY, "ignore_eos": True, "max_tokens": 20}
        engine.submit({"id": number, "kind": "chat", "messages": messages, "options": options})
    steps: list[int] = []
    while engine.busy:
        pictures.clear()
        assert not any("error" in output for output in engine.step())
        steps.append(sum(pictures))
    assert sum(steps) == 3
    assert max(steps) == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_picture_in_a_text_that_is_longer_than_a_sliding_window(
    tmp_path: Path, first: bool
) -> None:
    path = tiny.gemma3(tmp_path / "m")
    engine, _ = opened(path, parallel=2)
    assert session_of(engine).reason is None
    long = text("it is some time and what is the time " * 11)
    for seed in (1, 2):
        one = part(url(picture(seed)))
        messages = said(one, long) if first else said(long, one)
        answer = ask(engine, "chat", messages=messages, options=GREEDY)
        assert answer.result["usage"]["prompt_tokens"] > 2 * 64
        assert ids(answer) == expected(path, messages, [picture(seed)])


def test_pictures_that_move_the_positions_of_what_follows(tmp_path: Path) -> None:
    """Tokens and inputs by hand: the processor of such models needs torchvision."""
    path = tiny.qwen2_vl(tmp_path / "m")
    engine: Any = opened(path)[0]
    engine._engine._session.close()
    session = vision.VisionBatchSession(engine._engine._loaded, 3, 3 * 256)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    begin, pad = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|image_pad|>"])
    words = tokenizer("what is the time").input_ids
    prompts: list[Any] = [words]
    for seed, (high, wide) in enumerate([(4, 8), (8, 8)]):
        torch.manual_seed(seed)
        tokens = [*words, begin, *[pad] * (high * wide // 4), *words[:2]]
        inputs = {
            "pixel_values": torch.randn(high * wide, 3 * 2 * 4 * 4),
            "image_grid_thw": torch.tensor([[1, high, wide]]),
            "mm_token_type_ids": torch.tensor([[int(token == pad) for token in tokens]]),
        }
        prompts.append(PicturePrompt(tokens, inputs))
    model = transformers.AutoModelForImageTextToText.from_pretrained(path).eval()
    wanted = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        more = getattr(prompt, "inputs", {})
        model.model.rope_deltas = None
        made = model.generate(ids, **more, do_sample=False, max_new_tokens=10, min_new_tokens=10)
        wanted.append([int(token) for token in made[0, len(prompt) :]])
    assert len(set(map(tuple, wanted))) == 3

    rows = [session.take(prompt, len(prompt) + 10) for prompt in prompts]
    assert None not in rows
    said = [
        [int(session.forward([(row, prompt)])[0].argmax())]
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    assert [row.shift for row in rows] == [0, -(8 - 4), -(16 - 4)]
    for _ in range(9):
        logits = session.forward([(row, own[-1:]) for row, own in zip(rows, said, strict=True)])
        for own, one in zip(said, logits, strict=True):
            own.append(int(one.argmax()))
    assert said == wanted


def test_a_cancel_ends_the_pass_over_a_picture(model: Path) -> None:
    engine, _ = opened(model)
    messages = said(part(url(picture(1))), text("what is"))
    asked = []

    def interrupted(_id: int) -> bool:
        asked.append(_id)
        return len(asked) == 2  # before the second layer of the part that sees

    engine.set_interrupted(interrupted)
    request: Any = {"id": 7, "kind": "chat", "messages": messages, "options": GREEDY}
    engine.submit(request)
    assert engine.step() == []
    engine.cancel(7)
    assert not engine.busy
    assert len(asked) == 2
    engine.set_interrupted(lambda _id: False)
    answer = ask(engine, "chat", messages=messages, options=GREEDY)
    assert ids(answer) == expected(model, messages, [picture(1)])


@pytest.mark.parametrize("special", [True, False])
def test_a_placeholder_in_a_users_text_is_text(tmp_path: Path, special: bool) -> None:
    path = tiny.llava(tmp_path / "m")
    if not special:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            said_by = json.loads((path / name).read_text())
            for token in said_by.get("added_tokens", []):
                token["special"] = token["special"] and token["content"] != "<image>"
            said_by.pop("extra_special_tokens", None)
            (path / name).write_text(json.dumps(said_by))
    engine, _ = opened(path)
    messages = said(text("what <image> is <image>"), part(url(picture(1))))
    answer = ask(engine, "chat", messages=messages, options=GREEDY)
    assert ids(answer)
    without = ask(engine, "chat", messages=said(text("<image>")), options=GREEDY)
    assert ids(without)
    assert ids(ask(engine, prompt="<image> what", options=GREEDY))
    tokens = ask(engine, "tokenize", text="a <image>").result["tokens"]
    placeholder = transformers.AutoTokenizer.from_pretrained(path).convert_tokens_to_ids("<image>")
    assert placeholder not in tokens
    assert ask(engine, "detokenize", tokens=tokens).result["text"] == "a <image>"


def bomb(width: int, height: int) -> str:
    """A PNG whose header says so, with little in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def tiff() -> str:
    file = io.BytesIO()
    picture(1).save(file, format="TIFF")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        (["https://example.org/a.png"], "nothing is fetched"),
        (["file:///etc/passwd"], "nothing is fetched"),
        (["/etc/passwd"], "nothing is fetched"),
        (["data:image/svg+xml;base64,PHN2Zy8+"], "PNG, JPEG, WebP or GIF"),
        (["data:image/png;base64,@@@"], "no valid base64"),
        (["data:image/png;base64,"], "no PNG, JPEG"),
        (["data:image/png;base64,aGVsbG8="], "no PNG, JPEG"),
        ([bomb(100_000, 100_000)], "too large"),
        ([bomb(5_000, 4_000)] * 2, "no PNG, JPEG"),
        ([bomb(64, 64)], "no PNG, JPEG"),
        ([tiff()], "no PNG, JPEG"),
        ([url(picture(1))] * (MAX_PICTURES + 1), "at most 16"),
        (["data:image/png;base64," + "A" * MAX_ENCODED_BYTES], "bytes of pictures"),
    ],
)  # fmt: skip
def test_bad_pictures_are_refused(model: Path, addresses: list[str], words: str) -> None:
    engine, _ = opened(model)
    answer = ask(engine, "chat", messages=said(*map(part, addresses)), options=GREEDY)
    assert answer.error["data"]["kind"] == "invalid_params"
    assert words in answer.error["message"]
    assert len(answer.error["message"]) < 400
    good = said(part(url(picture(1))), text("what"))
    assert ids(ask(engine, "chat", messages=good, options=GREEDY))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_kinds_of_pictures(model: Path, kind: str) -> None:
    engine, _ = opened(model)
    file = io.BytesIO()
    picture(1).save(file, format=kind)
    address = f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    messages = said(part(address), text("what"))
    with Image.open(io.BytesIO(file.getvalue())) as decoded:
        own = decoded.convert("RGB")
    tokens = ids(ask(engine, "chat", messages=messages, options=GREEDY))
    assert tokens == expected(model, messages, [own])


def test_without_pillow_texts_are_answered_and_the_extra_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    pictures = importlib.import_module("hybridd.backends.huggingface.engine.tokens.pictures")
    monkeypatch.setattr(pictures, "find_spec", lambda name: None if name == "PIL" else find(name))
    engine, facts = opened(model)
    assert "vision" not in facts["capabilities"]
    messages = said(part(url(picture(1))), text("what"))
    error = ask(engine, "chat", messages=messages, options=GREEDY).error
    assert error["data"] == {"kind": "unsupported", "capability": "vision", "format": "huggingface"}
    assert "hybridd[vision]" in error["message"]
    assert ids(ask(engine, "chat", messages=said(text("what")), options=GREEDY))


def test_more_tokens_than_the_context_has(model: Path) -> None:
    engine, _ = opened(model, context_length=20)
    messages = said(*[part(url(picture(1)))] * 6, text("what"))
    error = ask(engine, "chat", messages=messages, options=GREEDY).error
    assert error["data"]["kind"] == "context_exceeded"


def test_other_requests_after_a_waiting_picture(model: Path) -> None:
    engine, _ = opened(model)
    messages = said(part(url(picture(1))), text("what"))
    request: Any = {"id": 2, "kind": "chat", "messages": messages, "options": GREEDY}
    engine.submit(request)
    answer = collect(engine, 2)
    assert ids(answer) == expected(model, messages, [picture(1)])
