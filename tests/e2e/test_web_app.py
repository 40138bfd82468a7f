"""A React app of another origin, in Chromium: served where its origin is allow-listed, else not."""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.e2e import browser
from tests.e2e.conftest import NET_S, RealDaemon
from tests.e2e.test_clients import CLIENTS, GGUF
from tests.e2e.test_http import tcp_url, token

NODE = CLIENTS / "node"
ESBUILD = NODE / "node_modules" / ".bin" / "esbuild"

pytestmark = [
    pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing())),
    pytest.mark.skipif(not ESBUILD.exists(), reason="npm's packages are not installed: make test"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the app, built."""
    folder = tmp_path_factory.mktemp("app")
    command = [str(ESBUILD), "react/app.jsx", "--bundle", "--jsx=automatic", "--log-level=warning"]
    command += ['--define:process.env.NODE_ENV="production"', f"--outfile={folder / 'app.js'}"]
    subprocess.run(command, cwd=NODE, check=True, timeout=NET_S)
    (folder / "index.html").write_text((NODE / "react" / "index.html").read_text())
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def origin(folder: Path) -> Iterator[str]:
    """Files on a port of the loopback: an origin of its own."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_originals_example_runs_where_it_may(
    make_daemon: Callable[..., RealDaemon], app: Path
) -> None:
    with origin(app) as allowed, origin(app) as other, browser.browser() as page:
        daemon = make_daemon(HYBRIDD_HTTP_LISTEN="127.0.0.1:0", HYBRIDD_HTTP_ALLOW_ORIGINS=allowed)
        secret = token(daemon)["Authorization"].removeprefix("Bearer ")
        query = urlencode({"base": tcp_url(daemon), "token": secret, "model": GGUF})

        page.open(f"{other}/?{query}")
        page.click("button")
        page.until(lambda: page.text("#status").startswith("failed"), "the refusal")
        with daemon.client() as client:
            assert client.loaded() == []

        page.open(f"{allowed}/?{query}")
        page.click("button")
        ended = ("done", "failed")
        page.until(lambda: page.text("#status").startswith(ended), "the answer")
        assert page.text("#status") == "done"
        with daemon.client() as client:
            said = client.chat(
                GGUF,
                [{"role": "user", "content": "Who are you?"}],
                temperature=0.0,
                max_tokens=40,
            )
        assert page.text("#answer").split() == said.text.split()
