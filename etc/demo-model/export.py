# ruff: noqa: TID253 - a script: the heavy libraries are what it is for
"""Writes the trained demo model in both formats, with the same weights.

Every weight is rounded to F16 once; both files then hold exactly those numbers. The one
difference is their layout: llama.cpp rotates neighbouring elements of a head where transformers
rotates its two halves, so the rows of q and k change their order in the GGUF file. Norm weights
are widened to F32 there, as llama.cpp wants them, which changes no number.
"""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from network import (
    CONTEXT_LENGTH,
    FEED_FORWARD,
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    IM_END,
    KV_HEADS,
    LAYERS,
    NORM_EPSILON,
    ROPE_THETA,
    SPECIAL,
)
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

HF_DIRECTORY = "demo-hf"
GGUF_FILE = Path("demo-gguf") / "hybridd-demo-F16.gguf"

FILE_TYPE_MOSTLY_F16 = 1

# transformers' names of a layer's tensors and the GGUF's.
LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def export(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes `out/demo-hf/` and `out/demo-gguf/hybridd-demo-F16.gguf`, replacing what is there."""
    disable_progress_bar()
    network.half()
    write_huggingface(network, tokenizer, out / HF_DIRECTORY)
    write_gguf(network, tokenizer, out / GGUF_FILE)


def write_huggingface(
    network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> None:
    """Writes the model as a directory that transformers loads."""
    shutil.rmtree(directory, ignore_errors=True)
    # Greedy: so small a model knows one good answer, and a sample is only ever a worse one.
    network.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=network.config.bos_token_id,
        eos_token_id=network.config.eos_token_id,
        pad_token_id=network.config.pad_token_id,
    )
    network.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    # The class's name in transformers 5 is not known to transformers 4; this one is to both.
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Weights are written for their owner alone, but package data is for everyone.
    for path in directory.iterdir():
        path.chmod(0o644)


def write_gguf(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Writes the model as one file that llama.cpp loads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    _write_general(writer, sum(p.numel() for p in network.parameters()))
    _write_architecture(writer, network.config.vocab_size)
    _write_tokenizer(writer, tokenizer)
    for name, array in gguf_tensors(network):
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(network: LlamaForCausalLM) -> list[tuple[str, npt.NDArray[np.generic]]]:
    """The tensors by their GGUF names, matrices in F16 and vectors in F32."""
    state = network.state_dict()
    tensors: list[tuple[str, npt.NDArray[np.generic]]] = [
        ("token_embd.weight", state["model.embed_tokens.weight"].numpy()),
        ("output_norm.weight", state["model.norm.weight"].numpy().astype(np.float32)),
    ]
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}
    for layer in range(LAYERS):
        for source, target in LAYER_TENSORS.items():
            array = state[f"model.layers.{layer}.{source}.weight"].numpy()
            if target in heads:
                array = permute(array, heads[target])
            if array.ndim == 1:
                array = array.astype(np.float32)
            tensors.append((f"blk.{layer}.{target}.weight", array))
    return tensors


def permute(rows: npt.NDArray[np.generic], heads: int) -> npt.NDArray[np.generic]:
    """Turns each head's rows from two halves into neighbouring pairs."""
    half = rows.shape[0] // heads // 2
    pairs = rows.reshape(heads, 2, half, rows.shape[1]).swapaxes(1, 2)
    return np.ascontiguousarray(pairs).reshape(rows.shape)


def _write_general(writer: gguf.GGUFWriter, parameters: int) -> None:
    writer.add_type("model")
    writer.add_name("hybridd demo")
    writer.add_basename("hybridd-demo")
    writer.add_description("A very small chat model that answers questions about using hybridd.")
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_file_type(FILE_TYPE_MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_sampling_temp(0.0)


def _write_architecture(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_rope_freq_base(ROPE_THETA)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(tokens.index(str(tokenizer.bos_token)))
    writer.add_eos_token_id(tokens.index(IM_END))
    writer.add_pad_token_id(tokens.index(str(tokenizer.pad_token)))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(str(tokenizer.chat_template))
