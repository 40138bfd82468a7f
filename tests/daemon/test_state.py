"""What lasts across restarts is the old file or the new one, and never an obstacle."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hybridd.daemon.state import MAX_BYTES, StateFile


def test_written_and_read(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "made" / "state.json")
    assert file.read() == {}
    file.write('{"a": 1}')
    assert file.read() == {"a": 1}
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.write('{"a": 2}')
    assert os.listdir(file.path.parent) == ["state.json"], "nothing is left lying about"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"a": "' + b"x" * MAX_BYTES + b'"}'],
    ids=lambda c: repr(c[:5]),
)
def test_a_broken_file_is_put_aside(tmp_path: Path, content: bytes) -> None:
    file = StateFile(tmp_path / "state.json")
    file.path.write_bytes(content)
    assert file.read() == {}
    assert (tmp_path / "state.broken").read_bytes() == content
    assert not file.path.exists()
    file.write("{}")
    assert file.read() == {}


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(tmp_path / "state.json")
    file.write('{"a": 1}')

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write('{"a": 2}')
    assert file.read() == {"a": 1}
    assert os.listdir(tmp_path) == ["state.json"]
