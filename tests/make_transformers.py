"""Models of transformers' architectures with random weights, for tests and benchmarks.

    python -m tests.make_transformers FAMILY DIRECTORY [NAME=VALUE ...]

Needs torch and transformers. The tokenizer is the demo model's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "hybridd" / "demo" / "demo-hf"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

_TINY: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    # Large weights: with the usual small ones all logits are nearly the same.
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
# What each family has that the others have not.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": 24}),
    "gemma2": ("Gemma2", {"sliding_window": 24, "layer_types": _SLIDING}),
    "gemma3": ("Gemma3Text", {"sliding_window": 24, "layer_types": _SLIDING}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": (
        "GptOss",
        {"sliding_window": 24, "layer_types": _SLIDING, "num_local_experts": 4},
    ),
    "gpt_neox": ("GPTNeoX", {"rotary_pct": 0.5}),
    "llama_dynamic": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
    ),
    "mamba": ("Mamba", {"state_size": 8}),
    "bamba": (
        "Bamba",
        {
            "mamba_n_heads": 8,
            "mamba_d_head": 12,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "attn_layer_indices": [1],
        },
    ),
    "minimax": (
        "MiniMax",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        },
    ),
    "openai_gpt": ("OpenAIGPT", {"n_positions": 512}),
    # Its positions begin at three.
    "roberta": ("Roberta", {"is_decoder": True, "pad_token_id": 2}),
    # It keeps its recurrent state in its own layers.
    "recurrent_gemma": ("RecurrentGemma", {"lru_width": 48, "attention_window_size": 24}),
    "rwkv": ("Rwkv", {"attention_hidden_size": 48, "context_length": 512, "rescale_every": 1}),
}


def make(family: str, path: Path, seed: int = 0, **values: Any) -> Path:
    """Write a model of a family into the directory `path`; `values` go into its configuration."""
    import torch
    import transformers

    untyped: Any = transformers
    name, own = FAMILIES[family]
    config = getattr(untyped, f"{name}Config")(**{**_TINY, **own, **values})
    if family == "gpt_oss":
        config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    torch.manual_seed(seed)
    model = untyped.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(str(path))
    for file in _TOKENIZER_FILES:
        if (DEMO / file).exists():
            shutil.copy(DEMO / file, path / file)
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


if __name__ == "__main__":
    family_, directory, *pairs = sys.argv[1:]
    split = (pair.partition("=") for pair in pairs)
    print(make(family_, Path(directory), **{key: _number(value) for key, _, value in split}))
