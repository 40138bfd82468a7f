#!/usr/bin/env bash
# transformers 5.20.0 computes Gemma 2 without its attention soft cap, and says nothing, when the model
# is loaded in the default way.
#
# Gemma 2 caps its attention scores (`attn_logit_softcapping`). Without `attn_implementation` transformers
# takes "sdpa", which has no such cap: the scores go uncapped, and the logits are another model's.
# With "eager" the cap is applied. A good engineer would expect the default to compute the model, or to
# refuse. From 5.21.0 on the default is "eager" for such a model, and its numbers are right.
#
# Seen with transformers 5.20.0, torch 2.13.0, on a tiny Gemma 2 with random weights and large scores:
#   the default is sdpa; largest difference of logits to eager: 0.21 of their size
# (two eager models differ by nothing). Exits 0 while this is so, 1 when it changed.
#
# hybridd loads models with a soft cap with "eager" whatever transformers would take.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.20.0
cat >"$folder/run.py" <<'PYTHON'
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma2Config

torch.manual_seed(0)
config = Gemma2Config(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    attn_logit_softcapping=5.0, query_pre_attn_scalar=1,
)
model = AutoModelForCausalLM.from_config(config).eval()
for parameter in model.parameters():
    if parameter.dim() > 1:
        parameter.data.normal_(std=0.5)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=torch.arange(16)[None]).logits[0]


def copy(**how):
    made = AutoModelForCausalLM.from_config(Gemma2Config(**config.to_diff_dict()), **how).eval()
    made.load_state_dict(model.state_dict())
    return made


default, eager, again = copy(), copy(attn_implementation="eager"), copy(attn_implementation="eager")
chosen = default.config._attn_implementation
off = ((logits(default) - logits(eager)).abs().max() / logits(eager).abs().max()).item()
same = torch.equal(logits(eager), logits(again))
print(f"transformers {transformers.__version__}: the default is {chosen}; "
      f"largest difference of logits to eager: {off:.2g} of their size; eager to eager: {'none' if same else 'some'}")
sys.exit(0 if chosen == "sdpa" and off > 0.01 and same else 1)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" && echo "as seen" || { echo "changed"; exit 1; }
