"""The tables of the GGUF format: tensor types, file types, architectures that are no chat models.

From ggml's `ggml.h` (`enum ggml_type`, `enum ggml_ftype`) and llama.cpp's `llama.h`
(`enum llama_ftype`); the tests compare them with the `gguf` package.
"""

from __future__ import annotations

from typing import NamedTuple


class TensorType(NamedTuple):
    """How a tensor's elements are packed: `block` elements take `bytes` bytes."""

    name: str
    block: int
    bytes: int


TENSOR_TYPES: dict[int, TensorType] = {
    number: TensorType(name, block, size)
    for number, name, block, size in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 40),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
    )
}

# general.file_type -> the tag that file names use.
FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
}

# Set on top of a file type that a converter guessed from the tensors.
FILE_TYPE_GUESSED = 1024

# Encoders: their output is a vector, they generate nothing.
ENCODERS = frozenset(
    {
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
        "t5encoder",
        "llama-embed",
    }
)

# Architectures with a tokenizer that write no text by themselves -> what they are. llama.cpp has
# programs of their own for the first (`llm_arch_is_diffusion`) and the last.
_DIFFUSION = "a diffusion language model: it does not write a text token by token"
_DRAFTS = "a part that drafts for one certain model: it is none by itself"
_SPEECH = "a speech synthesizer: it writes no text"
NO_GENERATORS: dict[str, str] = {
    "dream": _DIFFUSION,
    "llada": _DIFFUSION,
    "llada-moe": _DIFFUSION,
    "rnd1": _DIFFUSION,
    "t5": "an encoder-decoder: those run as Hugging Face directories",
    "eagle3": _DRAFTS,
    "dflash": _DRAFTS,
    "gemma4-assistant": _DRAFTS,
    "qwen3tts": _SPEECH,
    "pockettts": _SPEECH,
}

# What the key of the tokenizer's kind says where there is none, as in WavTokenizer's files.
NO_TOKENIZER = ("none", "no_vocab")

# What llama.cpp calls recurrent or hybrid: some layers at least keep a state in place of the past.
# Of a newer one that is not here llama.cpp says so once it is loaded.
RECURRENT = frozenset(
    {
        "mamba",
        "mamba2",
        "rwkv6",
        "rwkv6qwen2",
        "rwkv7",
        "arwkv7",
        "jamba",
        "falcon-h1",
        "plamo2",
        "granitehybrid",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "qwen3next",
        "qwen35",
        "qwen35moe",
        "kimi-linear",
    }
)

# llama.cpp's `enum llama_pooling_type`.
POOLING_NAMES = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
