"""The package in docs/writing-a-format.md, installed as anybody would install it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridctl import Client
from tests.e2e.conftest import RealDaemon

GUIDE = Path(__file__).parents[2] / "docs" / "writing-a-format.md"
_BLOCK = re.compile(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TALE = "abcdefghijklmnopqrstuvwxyz. " * 40


def install(directory: Path) -> None:
    """Put the guide's files where Python finds them, with what pip would note of the package."""
    files = dict(_BLOCK.findall(GUIDE.read_text()))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    stem = project["name"].replace("-", "_")
    information = directory / f"{stem}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(points))


@pytest.fixture
def daemon(tmp_path: Path, make_daemon: Callable[..., RealDaemon]) -> RealDaemon:
    site = tmp_path / "site"
    install(site)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return make_daemon(PYTHONPATH=path, HYBRIDD_CATALOG_DEMO="false")


def ids(client: Client) -> list[str]:
    client.rescan()
    return [model.id for model in client.list()]


def test_the_example_is_served(daemon: RealDaemon) -> None:
    (daemon.models / "tale.ngram").write_text(TALE)
    (daemon.models / "nothing.ngram").write_text("")
    with daemon.client() as client:
        assert ids(client) == ["tale"]
        (invalid,) = [model for model in client.list(all=True) if model.status == "invalid"]
        assert invalid.reason == "it is empty"
        answer = client.generate("tale", "lmn", max_tokens=5)
        assert (answer.text, answer.finish_reason) == ("opqrs", "length")
        assert answer.usage.prompt_tokens == 3
        answer = client.generate("tale", "lmn", stop=["st"])
        assert (answer.text, answer.finish_reason) == ("opqr", "stop")
        # What the shared half of every engine brings along.
        assert client.tokenize("tale", "cat") == [99, 97, 116]
        (loaded,) = client.loaded()
        assert (loaded.format, loaded.parallel) == ("ngram", 4)


def test_it_has_a_switch_and_a_version_of_its_own(daemon: RealDaemon) -> None:
    (daemon.models / "tale.ngram").write_text(TALE)
    with daemon.client() as client:
        (format_,) = [entry for entry in client.info().formats if entry["name"] == "ngram"]
        assert format_ == {
            "name": "ngram", "available": True, "engine": "hybridd-ngram", "version": "1.2",
        }  # fmt: skip
        assert ids(client) == ["tale"]
        assert "n-gram models" in client.config_get("formats.ngram")["formats.ngram"].description
        assert daemon.ctl("config", "set", "formats.ngram", "false").returncode == 0
        assert ids(client) == []
        (format_,) = [entry for entry in client.info().formats if entry["name"] == "ngram"]
        assert not format_["available"]
        assert "it is off" in daemon.ctl("status").stdout
        assert daemon.ctl("config", "unset", "formats.ngram").returncode == 0
        assert ids(client) == ["tale"]
