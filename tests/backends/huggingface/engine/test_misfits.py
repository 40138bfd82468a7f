"""Models of Hugging Face whose parts do not fit each other, and loads beyond what a model has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import LoadedFacts
from hybridd.wire.errors import InvalidParams
from tests.support_models import ask, collect, delta_of, ignore_progress, make_engine, spec_for

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tiny = pytest.importorskip("tests.make_huggingface")

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}


def opened(path: Path, **options: Any) -> tuple[Any, LoadedFacts]:
    engine = make_engine("huggingface")
    facts = engine.load(spec_for(path, "huggingface", **options), ignore_progress)
    return engine, facts


def generate(number: int, prompt: str, **options: Any) -> Any:
    more = {**GREEDY, **options}
    return {"id": number, "kind": "generate", "prompt": prompt, "options": more}


def add_a_token(path: Path) -> None:
    """As some fine-tunes have it: to the tokenizer, and not to the model."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(path)


def test_a_token_that_the_model_does_not_have_fails_its_request_alone(tmp_path: Path) -> None:
    words = tiny.byte_level(tmp_path / "m", eos_token="<eos>")
    model = transformers.LlamaForCausalLM(tiny.llama_config(words))
    path = tiny._save(model, tmp_path / "m")
    add_a_token(path)
    engine, _ = opened(path, parallel=2)
    alone = ask(engine, prompt="the model", options=GREEDY)
    engine.submit(generate(1, "the model"))
    engine.submit(generate(2, "what <tool>"))
    assert collect(engine, 1).text == alone.text
    error = ask(engine, prompt="what <tool>", options=GREEDY).error
    assert error["data"]["reason"] == "a token that the model does not have"


def test_a_text_with_a_token_that_the_encoder_does_not_have_fails_alone(tmp_path: Path) -> None:
    path = tiny.bert(tmp_path / "m")
    add_a_token(path)
    engine, _ = opened(path)
    for number, text in ((1, "the model"), (2, "what <tool>")):
        request: Any = {"id": number, "kind": "embed", "input": [text]}
        engine.submit(request)
    assert collect(engine, 1).result["dimensions"] == tiny.HIDDEN
    error = ask(engine, "embed", input=["what <tool>"]).error
    assert error["data"]["kind"] == "invalid_params"


def gpt2(path: Path) -> Path:
    words = tiny.byte_level(path, eos_token="<eos>")
    config = transformers.GPT2Config(
        vocab_size=words, n_positions=32, n_embd=tiny.HIDDEN, n_layer=2, n_head=4,
        bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    return Path(tiny._save(transformers.GPT2LMHeadModel(config), path))


def test_a_context_beyond_learned_positions_is_refused(tmp_path: Path) -> None:
    path = gpt2(tmp_path / "m")
    with pytest.raises(InvalidParams, match="at most 32") as raised:
        opened(path, context_length=33)
    assert raised.value.data["field"] == "load_options.context_length"
    engine, facts = opened(path)
    assert facts["context_length"] == 32
    assert ask(engine, prompt="the", options={**GREEDY, "max_tokens": 99}).tokens == 31


def test_positions_of_the_first_gpt_are_learned(tmp_path: Path) -> None:
    words = tiny.byte_level(tmp_path / "m", eos_token="</s>")
    config = transformers.OpenAIGPTConfig(
        vocab_size=words, n_positions=32, n_embd=tiny.HIDDEN, n_layer=1, n_head=4
    )
    path = tiny._save(transformers.OpenAIGPTLMHeadModel(config), tmp_path / "m")
    with pytest.raises(InvalidParams, match="at most 32"):
        opened(path, context_length=33)


def test_a_model_without_a_memory_sees_the_whole_row_for_each_token(tmp_path: Path) -> None:
    words = tiny.byte_level(tmp_path / "m", eos_token="</s>")
    config = transformers.OpenAIGPTConfig(
        vocab_size=words, n_positions=64, n_embd=tiny.HIDDEN, n_layer=3, n_head=4,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.OpenAIGPTLMHeadModel(config).eval()
    path = tiny._save(model, tmp_path / "m")
    engine, _ = opened(path, parallel=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    for prompt in ("the model is", "the model is loaded"):
        row = tokenizer.encode(prompt, add_special_tokens=False)
        begins = len(row)
        for _ in range(12):
            with torch.inference_mode():
                row.append(int(model(torch.tensor([row])).logits[0, -1].argmax()))
        answer = ask(engine, prompt=prompt, options={**GREEDY, "max_tokens": 12, "logprobs": 1})
        assert [each["id"] for each in answer.logprobs] == row[begins:]


@pytest.mark.parametrize("context_length", [None, 4096])
def test_a_model_that_says_its_length_in_its_own_words_has_what_it_learned(
    tmp_path: Path, context_length: int | None
) -> None:
    """The daemon asks for a usual length then; it cannot know better."""
    words = tiny.byte_level(tmp_path / "m", eos_token="</s>", pad_token="<pad>")
    config = transformers.LEDConfig(
        vocab_size=words, d_model=tiny.HIDDEN, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_encoder_position_embeddings=128,
        max_decoder_position_embeddings=64, attention_window=16,
    )  # fmt: skip
    path = tiny._save(transformers.LEDForConditionalGeneration(config), tmp_path / "m")
    engine, facts = opened(path, context_length=context_length)
    assert facts["context_length"] == 64
    answer = ask(engine, prompt="the", options={**GREEDY, "max_tokens": 99})
    assert answer.result["finish_reason"] == "length"


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_all_of_the_context_of_an_encoder_decoder_can_be_used(tmp_path: Path, family: str) -> None:
    path = getattr(tiny, family)(tmp_path / "m")
    engine, facts = opened(path, context_length=128)
    assert facts["context_length"] == 128
    answer = ask(engine, prompt="the", options={**GREEDY, "max_tokens": 200})
    assert answer.result["usage"]["completion_tokens"] >= 120
    long = ask(engine, prompt=" the" * 125, options=GREEDY)
    assert long.result["usage"]["completion_tokens"] >= 1


def test_an_encoder_takes_what_it_has_positions_for(tmp_path: Path) -> None:
    path = tmp_path / "m"
    words = tiny.byte_level(path, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = transformers.RobertaConfig(
        vocab_size=words, hidden_size=tiny.HIDDEN, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    tiny._save(transformers.RobertaModel(config), path)
    engine, facts = opened(path)
    # Two of the 34 are for padding.
    assert facts["context_length"] == 32
    assert ask(engine, "embed", input=[" the" * 32]).result["usage"]["prompt_tokens"] == 32
    assert ask(engine, "embed", input=[" the" * 33]).error["data"]["kind"] == "context_exceeded"


def test_a_pass_that_fails_for_one_that_takes_its_turn_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = opened(tiny.t5(tmp_path / "m"), parallel=2)
    alone = ask(engine, prompt="the model", options=GREEDY)
    session: Any = engine._engine._session
    begin = session._begin

    def failing(row: Any, tokens: list[int]) -> Any:
        if len(tokens) > 20:
            raise RuntimeError("no kernel for this shape")
        return begin(row, tokens)

    monkeypatch.setattr(session, "_begin", failing)
    engine.submit(generate(1, "the model"))
    engine.submit(generate(2, "what is it " * 10))
    assert collect(engine, 1).text == alone.text
    error = ask(engine, prompt="what is it " * 10, options=GREEDY).error
    assert error["data"]["reason"] == "engine_error"


def test_a_prompt_that_spoils_its_cells_spoils_no_other_request(tmp_path: Path) -> None:
    words = tiny.byte_level(tmp_path / "m", eos_token="<eos>")
    path = tiny._save(transformers.LlamaForCausalLM(tiny.llama_config(words)), tmp_path / "m")
    # As many cells as two rows have to share one tensor with those of the row before them.
    engine, _ = opened(path, parallel=2, context_length=256, kv_cells=512)
    prompts = ("the model is loaded " * 3, "it is")
    before = [ask(engine, prompt=prompt, options=GREEDY).text for prompt in prompts]
    table = engine._engine._loaded.model.get_input_embeddings()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    bad = "QQ ZZ" * 4
    with torch.inference_mode():
        table.weight.data = table.weight.data.clone()
        table.weight.data[tokenizer.encode("Q")] = torch.nan
    error = ask(engine, prompt=bad, options={**GREEDY, "max_tokens": 0}).error
    assert error["data"]["reason"] == "not_finite"
    for number, prompt in enumerate(prompts, 1):
        engine.submit(generate(number, prompt))
    texts = {1: "", 2: ""}
    while engine.busy:
        for output in engine.step():
            assert "error" not in output
            texts[output["id"]] += delta_of(output).text
    assert list(texts.values()) == before
