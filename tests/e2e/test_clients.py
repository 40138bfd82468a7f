"""Real clients against the real daemon with both demo models: scripts of tests/clients.

Each runs in an environment of its own with versions of its own: `make .venv-clients` installs the
Python ones, `npm ci` in tests/clients/node the others. `make test` has both; so has
`make test-clients`, which adds those that are large.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import NET_S, RealDaemon, check_end
from tests.e2e.test_http import tcp_url, token

CLIENTS = Path(__file__).parent.parent / "clients"
PYTHON = Path(os.environ.get("CLIENTS_VENV", ".venv-clients")).absolute() / "bin" / "python"
NODE = shutil.which("node")
GGUF, HF, EMBEDDER, RANKER = "hybridd/demo-gguf", "hybridd/demo-hf", "embedder", "ranker"
# What each of the large scripts imports; tests/clients/python/large.lock has their versions.
LARGE = {
    "use_litellm.py": ["litellm"],
    "use_langchain.py": ["langchain_openai", "langchain_ollama"],
}


def scripts(language: str, pattern: str) -> list[str]:
    """Names of the scripts in a folder."""
    return sorted(path.name for path in (CLIENTS / language).glob(pattern))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients: a daemon on TCP with its token."""
    daemon = RealDaemon(
        tmp_path_factory.mktemp("clients"),
        HYBRIDD_HTTP_LISTEN="127.0.0.1:0",
        HYBRIDD_HTTP_MODEL_MAP=f"claude-*={GGUF}",
    )
    (daemon.models / f"{EMBEDDER}.echo").write_text('{"capabilities": ["embedding"]}')
    (daemon.models / f"{RANKER}.echo").write_text('{"capabilities": ["reranking"]}')
    daemon.start()
    with daemon.client() as client:
        client.rescan()
    url = tcp_url(daemon)
    secret = token(daemon)["Authorization"].removeprefix("Bearer ")
    yield {
        "PATH": os.environ["PATH"],
        "HOME": str(daemon.directory),
        "GGUF": GGUF,
        "HF": HF,
        "EMBEDDER": EMBEDDER,
        "RANKER": RANKER,
        "URL": url,
        "TOKEN": secret,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": secret,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": secret,
        "OLLAMA_HOST": url,
        "HTTP_SOCKET": daemon.http_socket,
    }
    check_end(daemon)


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a client's script; what it says is shown when it fails."""
    made = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=NET_S, check=False
    )
    assert made.returncode == 0, f"{made.stdout}\n{made.stderr}"


@pytest.mark.parametrize("script", scripts("python", "use_*.py"))
def test_python(served: dict[str, str], script: str) -> None:
    if not PYTHON.exists():
        pytest.skip("the clients are not installed: make .venv-clients")
    run([str(PYTHON), str(CLIENTS / "python" / script)], served)


def importable(modules: list[str]) -> bool:
    """Whether the clients' environment has all of them."""
    code = (
        "import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, sys.argv[1:]))"
    )
    return subprocess.run([str(PYTHON), "-c", code, *modules], check=False).returncode == 0


@pytest.mark.parametrize("script", scripts("python/large", "use_*.py"))
def test_large(served: dict[str, str], script: str) -> None:
    if not PYTHON.exists() or not importable(LARGE[script]):
        pytest.skip("the large clients are not installed: make test-clients")
    run([str(PYTHON), str(CLIENTS / "python" / "large" / script)], served)


@pytest.mark.parametrize("script", scripts("node", "use_*.mjs"))
def test_node(served: dict[str, str], script: str) -> None:
    if NODE is None or not (CLIENTS / "node" / "node_modules").exists():
        pytest.skip("the clients are not installed: apt install nodejs npm, make .venv-clients")
    run([NODE, str(CLIENTS / "node" / script)], served)


@pytest.mark.parametrize("script", scripts("shell", "use_*.sh"))
def test_shell(served: dict[str, str], script: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt install curl")
    run(["sh", "-eu", str(CLIENTS / "shell" / script)], served)
