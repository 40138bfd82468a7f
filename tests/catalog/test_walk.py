"""One look at the disk, on real directories."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hybridd.backends.registry import load_backends
from hybridd.catalog.candidate import Candidate, Root
from hybridd.catalog.walk import MAX_DEPTH, Listing, Source, scan
from tests.make_models import write_echo, write_gguf, write_gguf_shards, write_hf, write_json

BACKENDS = load_backends()


def look(*paths: Path) -> Listing:
    return scan([Source(Root(path, f"store{n}")) for n, path in enumerate(paths)], BACKENDS)


def found(path: Path, *more: Path) -> dict[str, Candidate]:
    """Candidates by their path below `path`."""
    return {os.path.relpath(c.path, path): c for c in look(path, *more).candidates}


def test_each_kind(tmp_path: Path) -> None:
    write_gguf(tmp_path / "p/r/x-Q4_K_M.gguf")
    write_gguf(tmp_path / "LOUD.GGUF")
    write_hf(tmp_path / "org/model")
    write_echo(tmp_path / "parrot.echo")
    (tmp_path / "readme.txt").write_text("nothing")
    made = found(tmp_path)
    assert {name: c.format for name, c in made.items()} == {
        "LOUD.GGUF": "gguf",
        "org/model": "huggingface",
        "p/r/x-Q4_K_M.gguf": "gguf",
        "parrot.echo": "echo",
    }
    gguf = made["p/r/x-Q4_K_M.gguf"]
    assert (gguf.folders, gguf.stem, gguf.is_file) == (("p", "r"), "x-Q4_K_M", True)
    status = gguf.path.stat()
    assert gguf.identity == ((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns),)
    model = made["org/model"]
    assert (model.folders, model.stem, model.is_file) == (("org",), "model", False)
    assert [path.name for path in model.files] == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_only_the_formats_that_are_asked_for(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf")
    write_hf(tmp_path / "model")
    listing = scan([Source(Root(tmp_path, "s"))], {"gguf": BACKENDS["gguf"]})
    assert [c.format for c in listing.candidates] == ["gguf"]
    assert scan([Source(Root(tmp_path, "s"))], {}).candidates == []


def test_shards_are_one_candidate(tmp_path: Path) -> None:
    paths = write_gguf_shards(tmp_path / "big-Q4_K_M", 3)
    (only,) = look(tmp_path).candidates
    assert (only.path, only.stem, only.files) == (paths[0], "big-Q4_K_M", tuple(paths))
    paths[0].unlink()
    (later,) = look(tmp_path).candidates
    assert later.key == only.key
    assert later.path == paths[1]


def test_gguf_beside_a_hugging_face_model(tmp_path: Path) -> None:
    write_hf(tmp_path / "both")
    write_gguf(tmp_path / "both/x.gguf")
    write_json(tmp_path / "repo/config.json", {})
    write_gguf(tmp_path / "repo/y.gguf")
    made = found(tmp_path)
    assert set(made) == {"both", "both/x.gguf", "repo/y.gguf"}
    assert "x.gguf" not in [path.name for path in made["both"].files]


def test_parts_of_a_model_are_no_models(tmp_path: Path) -> None:
    write_hf(tmp_path / "sentence")
    write_hf(tmp_path / "sentence/1_Pooling")
    assert set(found(tmp_path)) == {"sentence"}


def test_a_root_that_is_a_model_itself(tmp_path: Path) -> None:
    root = write_hf(tmp_path / "my-model")
    (only,) = look(root).candidates
    assert (only.folders, only.stem) == ((), "my-model")


@pytest.mark.parametrize(
    "name", ["x.gguf.part", "x.gguf.incomplete", "x.gguf.crdownload", "x.gguf.tmp", "x.gguf.lock"]
)
def test_unfinished_names_are_passed_over(tmp_path: Path, name: str) -> None:
    write_gguf(tmp_path / name)
    write_gguf(tmp_path / ".hidden.gguf")
    write_gguf(tmp_path / ".cache/x.gguf")
    assert look(tmp_path).candidates == []


def test_a_download_that_allocated_its_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf")
    (tmp_path / "x.gguf.aria2").touch()
    assert look(tmp_path).candidates[0].unfinished == "x.gguf.aria2"


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    (tmp_path / "folder.gguf").mkdir()
    write_gguf(tmp_path / "folder.gguf/in.gguf")
    (tmp_path / "nowhere.gguf").symlink_to(tmp_path / "none")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    (tmp_path / "null.gguf").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s.gguf"))
        assert set(found(tmp_path)) == {"folder.gguf/in.gguf"}


def test_symlinked_directories_are_followed_once(tmp_path: Path) -> None:
    write_gguf(tmp_path / "elsewhere/p/r/x.gguf")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "twice").symlink_to(tmp_path / "elsewhere/p")
    listing = look(root)
    (only,) = listing.candidates
    assert only.path == root / "link/p/r/x.gguf"
    assert only.folders == ("link", "p", "r")
    assert root / "link" in listing.linked


def test_a_model_is_named_by_where_it_really_lies(tmp_path: Path) -> None:
    write_gguf(tmp_path / "z/r/x.gguf")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (only,) = look(tmp_path).candidates
    assert only.path == tmp_path / "z/r/x.gguf"


def test_one_file_seen_several_times_is_one_model(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    path = write_gguf(first / "p/r/x.gguf")
    second.mkdir()
    os.link(path, second / "hard.gguf")
    (second / "soft.gguf").symlink_to(path)
    (only,) = look(first, second).candidates
    assert [(p.store, p.path) for p in only.locations] == [
        ("store0", path),
        ("store1", second / "hard.gguf"),
        ("store1", second / "soft.gguf"),
    ]


def test_the_hub_caches_links(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    blobs = write_hf(repo / "blobs")
    snapshot = repo / "snapshots/0123"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(list(blobs.iterdir())):
        blob = file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(blob)
    (only,) = look(tmp_path).candidates
    assert only.path == snapshot
    assert only.folders == ("models--org--name", "snapshots")


def test_roots_in_roots_and_missing_roots(tmp_path: Path) -> None:
    write_gguf(tmp_path / "in/p/r/x.gguf")
    listing = look(tmp_path / "none", tmp_path, tmp_path / "in")
    assert [c.root.store for c in listing.candidates] == ["store1"]
    assert listing.problems == []


def test_depth_is_bounded(tmp_path: Path) -> None:
    write_gguf(tmp_path.joinpath(*"d" * MAX_DEPTH, "x.gguf"))
    write_gguf(tmp_path.joinpath(*"e" * (MAX_DEPTH + 1), "y.gguf"))
    assert [c.stem for c in look(tmp_path).candidates] == ["x"]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    for raw in (b"\xff\xfe.gguf", b"a" * 250 + b".gguf", b"new\nline.gguf", "模型.gguf".encode()):
        write_gguf(tmp_path / os.fsdecode(raw))
    assert len(look(tmp_path).candidates) == 4


def test_the_order_is_that_of_roots_then_paths(tmp_path: Path) -> None:
    for name in ("b/z", "a/y", "a/x", "c"):
        write_gguf(tmp_path / f"{name}.gguf")
    order = [os.path.relpath(c.path, tmp_path) for c in look(tmp_path / "b", tmp_path).candidates]
    assert order == ["b/z.gguf", "a/x.gguf", "a/y.gguf", "c.gguf"]


def test_it_stops_when_told(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf")
    listing = scan([Source(Root(tmp_path, "s"))], BACKENDS, stop=lambda: True)
    assert not listing.finished


def test_directories_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    """Under another user, since root reads everything."""
    write_gguf(tmp_path / "open/x.gguf")
    (tmp_path / "closed").mkdir()
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hybridd.backends.registry import load_backends\n"
        "from hybridd.catalog.candidate import Root\n"
        "from hybridd.catalog.walk import Source, scan\n"
        "backends = load_backends()\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "made = scan([Source(Root(Path(sys.argv[1]), 's'))], backends)\n"
        "print([c.stem for c in made.candidates], [p.split('/')[-1] for p in made.problems])\n"
    )
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    (tmp_path / "closed").chmod(0)
    try:
        made = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert made.stdout.strip() == "['x'] ['closed: Permission denied']", made.stderr
