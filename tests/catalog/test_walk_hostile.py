"""What should not lie in directories of models: passed over or reported, never raised."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridd.backends.bounded import MAX_DEPTH
from hybridd.catalog.inspections import Inspections
from hybridd.catalog.stores import local
from hybridd.catalog.walk import MAX_PROBLEMS, Listing, scan
from tests.make_models import gguf_header, llama_metadata, llama_tensors, write_gguf, write_hf
from tests.make_stores import BACKENDS, catalog, hub_snapshot, ollama_model, reasons, source

REPOSITORY = Path(__file__).parents[2]


def listing(path: Path, stop: Callable[[], bool] = lambda: False) -> Listing:
    return scan([source(path, "s", local.candidates)], BACKENDS, stop)


def test_what_is_no_regular_file_is_reported_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").symlink_to("/dev/zero")
    (tmp_path / "c.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d.gguf").symlink_to(tmp_path / "d.gguf")
    (tmp_path / "e.gguf").mkdir()
    os.mkfifo(tmp_path / "config.json")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "f.gguf"))
        found = listing(tmp_path)
    assert found.candidates == []
    assert [problem.rpartition("/")[2] for problem in found.problems] == [
        "a.gguf: a FIFO, no regular file",
        "b.gguf: a device, no regular file",
        "c.gguf: a symlink to nothing",
        "d.gguf: Too many levels of symbolic links",
        "f.gguf: a socket, no regular file",
    ]


def test_parts_of_a_directory_that_are_no_files(tmp_path: Path) -> None:
    model = write_hf(tmp_path / "m")
    for name in ("generation_config.json", "chat_template.jinja", "README.md"):
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)
    said = reasons(source(tmp_path, "s"))
    assert said == {"m": "'chat_template.jinja' is no regular file"}
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    assert reasons(source(tmp_path, "s")) == {}


def test_sparse_terabytes(tmp_path: Path) -> None:
    header, data = gguf_header(llama_metadata(), llama_tensors())
    with (tmp_path / "big.gguf").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data + 2**42)
    (tmp_path / "empty").mkdir()
    for name in ("zeros.gguf", "empty/config.json", "empty/model.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**42)
    said = reasons(source(tmp_path, "s"))
    assert said["big:Q4_K_M"] == ""
    assert said["zeros"] == "truncated: the file is empty or starts with zeros"
    assert "at most" in said["empty"]


def test_loops_of_symlinks(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a/b/x.gguf")
    (tmp_path / "a/b/up").symlink_to("../..")
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    found = listing(tmp_path)
    assert [candidate.stem for candidate in found.candidates] == ["x"]
    assert len(found.problems) == 2


@pytest.mark.parametrize("make", ["tree", "hub", "ollama"])
def test_deletion_during_the_scan(tmp_path: Path, make: str) -> None:
    """Whatever is deleted at whichever moment, nothing is raised and nothing is invented."""
    for number in range(4):
        path = write_gguf(tmp_path / f"w{number}.gguf", llama_metadata(general__name=str(number)))
        if make == "tree":
            path.rename(write_hf(tmp_path / f"root/d{number}") / "x.gguf")
        elif make == "ollama":
            ollama_model(tmp_path / "root", f"m{number}:1", weights=path, template="t")
            path.unlink()
        else:
            path.unlink()
            hub_snapshot(tmp_path / "root", f"p/n{number}", write_hf(tmp_path / "t"), "a" * 40)
    root = tmp_path / "root"
    doomed = sorted((p for p in root.rglob("*") if not p.is_dir()), reverse=True)

    def stop() -> bool:
        for path in doomed[:3]:
            path.unlink()
        del doomed[:3]
        return False

    asked = listing(root, stop)
    assert asked.problems == []
    assert asked.finished
    # What the walk saw and is gone when it is read is not listed; a part that is gone is said.
    records, _, _ = catalog([source(root, "s", local.candidates)])
    assert all(record.reason != "" for record in records.values())


def test_a_model_that_is_deleted_between_walk_and_inspection(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf")
    write_hf(tmp_path / "m")
    found = listing(tmp_path)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        path.unlink()
    done = Inspections().inspect(found.candidates, BACKENDS)
    assert [made.facts for made in done] == [None, None]


def test_names_of_255_bytes_all_the_way_down(tmp_path: Path) -> None:
    name = "n" * 250
    directory = tmp_path / (name + "12345") / (name + "67890")
    write_gguf(directory / f"{name}.gguf")
    raw = os.fsdecode(b"\xff" * 255)
    write_hf(tmp_path / raw / raw)
    records, found, _ = catalog([source(tmp_path, "s")])
    assert found.problems == []
    assert sorted(records) == sorted(
        [f"{name}12345/{name}67890:Q4_K_M", f"{'%FF' * 255}/{'%FF' * 255}"]
    )


def test_deep_trees_end(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(200):
        path = path / "d"
    path.mkdir(parents=True)
    assert listing(tmp_path).problems == []
    assert MAX_DEPTH < 200


def test_problems_are_bounded(tmp_path: Path) -> None:
    for number in range(MAX_PROBLEMS + 50):
        os.mkfifo(tmp_path / f"{number}.gguf")
    assert len(listing(tmp_path).problems) == MAX_PROBLEMS


_UNDER_ANOTHER_USER = """
import json, os, sys
from pathlib import Path
from hybridd.catalog.stores import hub, local, ollama
from tests.make_stores import catalog, source
"codecs are imported at their first use".encode("utf-8-sig")
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
base = Path(sys.argv[1])
sources = [
    source(base / 'local', 'local', local.candidates),
    source(base / 'hub', 'hub', hub.candidates),
    source(base / 'ollama', 'ollama', ollama.candidates),
    source(base / 'closed', 'closed', local.candidates),
]
records, listing, _ = catalog(sources)
print(json.dumps([
    {key: record.reason for key, record in records.items()},
    [os.path.relpath(problem, base) for problem in listing.problems],
]))
"""


def test_what_may_not_be_read(tmp_path: Path) -> None:
    """In a process without privileges, since root reads everything."""
    mine, hub, ollama = tmp_path / "local", tmp_path / "hub", tmp_path / "ollama"
    write_gguf(mine / "open.gguf")
    write_gguf(mine / "shut.gguf").chmod(0)
    write_gguf(mine / "inner/x.gguf")
    write_hf(mine / "model")
    (mine / "model/model.safetensors").chmod(0)
    hub_snapshot(hub, "p/n", write_hf(tmp_path / "t"), "a" * 40)
    ollama_model(ollama, "m:1", weights=write_gguf(tmp_path / "w.gguf"))
    ollama_model(ollama, "m:2", system="x").chmod(0)
    (tmp_path / "closed").mkdir()
    shut = [mine / "inner", hub / "models--p--n/snapshots", tmp_path / "closed"]
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    for path in shut:
        path.chmod(0)
    try:
        made = subprocess.run(
            [sys.executable, "-c", _UNDER_ANOTHER_USER, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    finally:
        for path in shut:
            path.chmod(0o755)
    assert made.returncode == 0, made.stderr
    records, problems = json.loads(made.stdout)
    assert records == {
        "open:Q4_K_M": None,
        "shut": "cannot be read: Permission denied",
        "model": "cannot be read: Permission denied",
        "m:1": None,
        "m:2": "cannot be read: Permission denied",
    }
    assert problems == [
        "local/inner: Permission denied",
        "hub/models--p--n/snapshots: Permission denied",
        "closed: Permission denied",
    ]
