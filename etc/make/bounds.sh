#!/bin/sh
# Installs what the engines' tests need into VENV: `newest` or `oldest` (see bounds.py). Reads
# TORCH_PIP_ARGS, more arguments for torch's pip, and TORCH, another torch than these say.
set -eu

which=$1
python=$VENV/bin/python
pip="$python -m pip --disable-pip-version-check install --quiet"
[ "$which" = newest ] && pip="$pip --upgrade"

"$python" -m pip install --quiet --upgrade pip
# shellcheck disable=SC2086 # words are meant
$pip ${TORCH_PIP_ARGS:-} ${TORCH:-$("$python" etc/make/bounds.py "$which" torch)}
# What another package asks of torch is met: it stays as it is.
torch=$("$python" -c 'from importlib.metadata import version; print(version("torch"))')
# shellcheck disable=SC2046,SC2086
PYTHONWARNINGS=ignore $pip "torch==$torch" $("$python" etc/make/bounds.py "$which")
PYTHONWARNINGS=ignore $pip --no-deps --config-settings editable_mode=compat -e .
"$python" -m pip --disable-pip-version-check list | grep -iE '^(torch|transformers|peft|bitsandbytes|accelerate|safetensors|llama_cpp_python|pillow) '
