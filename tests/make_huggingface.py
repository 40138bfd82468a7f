"""Tiny Hugging Face models with random weights of several families, for tests of engines.

Made by transformers itself, so that they are what it loads; deterministic. They make no sense.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch  # noqa: TID253 - models of an engine that has it
import transformers  # noqa: TID253 - the same
from safetensors.torch import save_file

HIDDEN = 32
# A bar's monitor is a thread that stays.
transformers.utils.logging.disable_progress_bar()
WORDS = """
    the a an of to and in is it that he was for on are as with his they i at be this have from
    or one had by word but not what all were we when your can said there use each which she do
    how their if will up other about out many then them these so some her would make like him
    into time has look two more write go see number no way could people my than first water
    been call who oil its now find long down day did get come made may part model loaded
    answers moment whatever question query load
""".split()  # noqa: SIM905  a list of a hundred texts is a page
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _save(model: Any, path: Path, **config: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    model.config.update(config)
    model.save_pretrained(path)
    return path


def word_pieces(path: Path) -> int:
    """A tokenizer of BERT's kind; returns how many tokens it has."""
    letters = [chr(c) for c in range(0x21, 0x7F) if not chr(c).isupper()]
    vocabulary = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *WORDS]
    vocabulary = list(dict.fromkeys(vocabulary))
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizerFast(
        vocab={token: at for at, token in enumerate(vocabulary)}, model_max_length=64
    )
    tokenizer.save_pretrained(path)
    return len(vocabulary)


def byte_level(path: Path, **special: str) -> int:
    """A byte-level BPE tokenizer; `special` are `bos_token`, `eos_token`, …"""
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([" ".join(WORDS)] * 4, vocab_size=400, show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **special)
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(path)
    return len(tokenizer)


def _bert_config(words: int) -> Any:
    return transformers.BertConfig(
        vocab_size=words, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip


def bert(path: Path) -> Path:
    """An encoder without sentence-transformers' files."""
    torch.manual_seed(1)
    return _save(transformers.BertModel(_bert_config(word_pieces(path))), path)


def cross_encoder(path: Path, **config: Any) -> Path:
    """A BERT with a classifier of one label."""
    torch.manual_seed(2)
    made = _bert_config(word_pieces(path))
    made.num_labels = 1
    return _save(transformers.BertForSequenceClassification(made), path, **config)


def llama_config(words: int, **more: Any) -> Any:
    """A small Llama."""
    return transformers.LlamaConfig(
        vocab_size=words, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=256,
        initializer_range=0.3, bos_token_id=None, eos_token_id=0, pad_token_id=0, **more,
    )  # fmt: skip


def llama_encoder(path: Path) -> Path:
    """A decoder without a head, as embedding models made of decoders are."""
    torch.manual_seed(3)
    words = byte_level(path, eos_token="<eos>", pad_token="<pad>")
    return _save(transformers.LlamaModel(llama_config(words)), path)


def _t5_config(words: int) -> Any:
    return transformers.T5Config(
        vocab_size=words, d_model=HIDDEN, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=3.0,
    )  # fmt: skip


def t5(path: Path) -> Path:
    """An encoder-decoder with relative positions."""
    torch.manual_seed(6)
    words = byte_level(path, eos_token="<eos>", pad_token="<pad>")
    return _save(transformers.T5ForConditionalGeneration(_t5_config(words)), path)


def bart(path: Path) -> Path:
    """An encoder-decoder with learned positions, which begins with a token that it has to say."""
    torch.manual_seed(7)
    words = byte_level(path, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = transformers.BartConfig(
        vocab_size=words, d_model=HIDDEN, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=128, init_std=0.3, bos_token_id=0,
        eos_token_id=1, pad_token_id=2, decoder_start_token_id=1, forced_bos_token_id=0,
        forced_eos_token_id=None,
    )  # fmt: skip
    return _save(transformers.BartForConditionalGeneration(config), path)


def marian(path: Path) -> Path:
    """A translator, whose class is named as an encoder's."""
    torch.manual_seed(9)
    words = byte_level(path, eos_token="</s>", pad_token="<pad>")
    config = transformers.MarianConfig(
        vocab_size=words, d_model=HIDDEN, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=128, init_std=0.3, eos_token_id=0,
        pad_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    return _save(transformers.MarianMTModel(config), path)


def _half(words: int, **more: Any) -> dict[str, Any]:
    """An encoder's or a decoder's part of a configuration."""
    return {
        "vocab_size": words, "hidden_size": HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 128,
        "initializer_range": 0.3, **more,
    }  # fmt: skip


def t5gemma(path: Path) -> Path:
    """An encoder-decoder whose configuration has a part for each."""
    torch.manual_seed(10)
    words = byte_level(path, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    half = _half(words, num_key_value_heads=2, head_dim=12, sliding_window=24)
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = transformers.T5GemmaConfig(encoder=half, decoder=half, **tokens)
    return _save(transformers.T5GemmaForConditionalGeneration(config), path)


def pair(path: Path) -> Path:
    """An encoder and a decoder that were made for themselves."""
    torch.manual_seed(11)
    words = byte_level(path, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    half = _half(words)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**half),
        transformers.BertConfig(**half, is_decoder=True, add_cross_attention=True),
    )
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 0, 1, 2
    return _save(transformers.EncoderDecoderModel(config), path)


def t5_encoder(path: Path) -> Path:
    """Only the encoder of an encoder-decoder."""
    torch.manual_seed(4)
    words = byte_level(path, eos_token="<eos>", pad_token="<pad>")
    return _save(transformers.T5EncoderModel(_t5_config(words)), path)


# ---------------------------------------------------------------- sentence-transformers' files


def dense(path: Path, takes: int, gives: int) -> dict[str, Any]:
    """The weights of a Dense module, in the directory that `sentence_modules` names."""
    torch.manual_seed(5)
    weights = {"linear.weight": torch.randn(gives, takes), "linear.bias": torch.randn(gives)}
    where = path / "2_Dense"
    where.mkdir(exist_ok=True)
    save_file(weights, where / "model.safetensors")
    activation = "torch.nn.modules.activation.Tanh"
    (where / "config.json").write_text(json.dumps({"activation_function": activation}))
    return weights


def sentence_modules(
    path: Path,
    pooling: dict[str, Any],
    *,
    more: Sequence[str] = (),
    max_length: int | None = None,
    lower: bool = False,
    prompt: str | None = None,
) -> None:
    """Write modules.json and what it names; `more` are the modules behind the pooling."""
    modules = ["Transformer", "Pooling", *more]
    listed = [
        {
            "idx": n,
            "name": str(n),
            "path": f"{n}_{kind}" if n else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if max_length or lower:
        said = {"max_seq_length": max_length, "do_lower_case": lower}
        (path / "sentence_bert_config.json").write_text(json.dumps(said))
    if prompt is not None:
        said = {"prompts": {"query": prompt}, "default_prompt_name": "query"}
        (path / "config_sentence_transformers.json").write_text(json.dumps(said))


# ---------------------------------------------------------------- models that read pictures

PICTURE_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}assistant:"
)
# As several published templates are: a text that is no list of parts is lost.
PARTS_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}assistant:"
)


def llava(path: Path, template: str = PICTURE_TEMPLATE) -> Path:
    """A CLIP that sees pictures of 32 by 32 pixels in 4 patches, and a Llama that reads them."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.processing_llava import LlavaProcessor

    torch.manual_seed(8)
    words = byte_level(path, eos_token="<eos>", pad_token="<pad>", extra_special_tokens=["<image>"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    text = llama_config(words)
    text.num_hidden_layers = 3
    vision = transformers.CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        image_size=32, patch_size=16, initializer_range=0.3, projection_dim=HIDDEN,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-1,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=4,
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        # What is seen has to matter beside what is read.
        model.model.multi_modal_projector.linear_2.weight.mul_(20)
        for parameter in model.model.vision_tower.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    _save(model, path)
    sizes = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=sizes),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    processor.save_pretrained(path)
    return path


def _stirred(model: Any, *reading: str) -> Any:
    """What is seen has to matter beside what is read."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(part in name for part in reading):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


_EYES: dict[str, Any] = {
    "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip


def idefics3(path: Path) -> Path:
    """A model that sees each picture as a whole and in tiles, told apart by tokens."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    torch.manual_seed(9)
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    special += [f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)]
    byte_level(path, eos_token="<eos>", pad_token="<pad>", extra_special_tokens=special)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    config = transformers.Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), pad_token_id=0,
        vision_config={**_EYES, "initializer_range": 0.3}, scale_factor=2,
        text_config=llama_config(len(tokenizer)),
    )  # fmt: skip
    model = transformers.Idefics3ForConditionalGeneration(config)
    _save(_stirred(model, "text_model", "lm_head"), path)
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    transformers.Idefics3Processor(
        pictures, tokenizer, image_seq_len=4, chat_template=PICTURE_TEMPLATE
    ).save_pretrained(path)
    return path


def gemma3(path: Path) -> Path:
    """A model whose template writes another token than the one that stands for what is seen."""
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    torch.manual_seed(2)
    names = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    byte_level(path, eos_token="<eos>", pad_token="<pad>", extra_special_tokens=names)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    text = llama_config(len(tokenizer)).to_dict()
    text = {k: v for k, v in text.items() if k not in ("model_type", "rope_parameters")}
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3Config(
        text_config={**text, "head_dim": 8, "sliding_window": 64, "layer_types": kinds,
                     "tie_word_embeddings": False},
        vision_config={**_EYES, "vision_use_head": False, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4, image_token_index=ids["image_token"], eos_token_id=0,
        # Tied, a model of this size says its last token again for ever.
        tie_word_embeddings=False,
        boi_token_index=ids["boi_token"], eoi_token_index=ids["eoi_token"],
    )  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=3)
    _save(_stirred(model, "language_model", "lm_head"), path)
    transformers.Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        image_seq_length=4,
        chat_template=PICTURE_TEMPLATE.replace("<image>", names["boi_token"]),
    ).save_pretrained(path)
    return path


def qwen2_vl(path: Path) -> Path:
    """A model whose pictures take fewer positions than tokens. Without a processor for them."""
    torch.manual_seed(4)
    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    byte_level(path, eos_token="<eos>", pad_token="<pad>", extra_special_tokens=names)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    start, end, picture, video = tokenizer.convert_tokens_to_ids(names)
    text = llama_config(len(tokenizer)).to_dict()
    text = {k: v for k, v in text.items() if k not in ("model_type", "rope_parameters")}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 100.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": HIDDEN, "intermediate_size": 64, "num_heads": 4,
            "out_hidden_size": HIDDEN, "patch_size": 4, "spatial_merge_size": 2,
            "window_size": 16, "fullatt_block_indexes": [1],
        },
        image_token_id=picture, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    _save(_stirred(model, "language_model", "lm_head"), path)
    return path
