"""What a template of Hugging Face models has imported, and what its workers need not import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support_models import DEMO_HUGGINGFACE

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

ENGINE = "hybridd.backends.huggingface.engine.any_engine"
LOADED = f"""
import sys
from hybridd.backends.huggingface.engine.any_engine import AnyEngine
from pathlib import Path
had_trio = "trio" in sys.modules
before = set(sys.modules)
from tests.support_models import ask, ignore_progress, spec_for
engine = AnyEngine()
engine.load(spec_for(Path({str(DEMO_HUGGINGFACE)!r}), "huggingface"), ignore_progress)
assert ask(engine, prompt="hello", options={{"temperature": 0, "max_tokens": 8}}).tokens
engine.close()
print(had_trio, *(set(sys.modules) - before))
"""


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_a_worker_has_no_trio_and_others_may_have_it() -> None:
    code = (
        f"import sys, {ENGINE}\nprint('trio' in sys.modules)\nimport trio; trio.run(trio.sleep, 0)"
    )
    assert run(code).split() == ["False"]


def test_a_process_that_has_trio_keeps_it() -> None:
    assert run(f"import sys, trio\nimport {ENGINE}\nprint(sys.modules['trio'] is trio)") == "True\n"


def test_a_load_and_an_answer_import_nothing_of_torch() -> None:
    """Each worker would import it anew; the template has it for all."""
    had_trio, *loaded = run(LOADED).split()
    assert had_trio == "False"
    assert "transformers.models.llama.modeling_llama" not in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("torch", "sympy")]
