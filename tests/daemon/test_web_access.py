"""The HTTP token's file, and the codes that bring the token once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hybridd.daemon import web_access
from hybridd.daemon.web_access import CODE_S, MAX_CODES, WebAccess
from hybridd.wire.errors import Unsupported


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> WebAccess:
    return WebAccess(tmp_path / "state", clock=clock)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "http_token"


def test_the_token_is_made_at_first_need_and_stays(access: WebAccess, file: Path) -> None:
    access.new_code()
    assert not file.parent.exists()
    token = access.token()
    assert len(token) >= 40
    assert file.read_text() == f"{token}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == ["http_token"], "nothing is left lying about"
    assert access.token() == token
    assert WebAccess(file.parent).token() == token


def test_a_new_one_replaces_it(access: WebAccess, file: Path) -> None:
    old = access.token()
    code = access.new_code()
    token = access.renew()
    assert token != old
    assert (access.token(), file.read_text()) == (token, f"{token}\n")
    assert access.redeem(code) is None, "links of before count for nothing"
    assert os.listdir(file.parent) == ["http_token"]


def test_a_token_of_the_users_own_is_taken(access: WebAccess, file: Path) -> None:
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text("my-own-token-0123456789")
    assert access.token() == "my-own-token-0123456789"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_use_is_refused(access: WebAccess, file: Path, mode: int) -> None:
    access.token()
    file.chmod(mode)
    with pytest.raises(Unsupported, match=f"by others .mode {mode:04o}.*http token --renew") as no:
        WebAccess(file.parent).token()
    assert no.value.data["capability"] == "http"
    assert WebAccess(file.parent).renew() == file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_of_another_user_is_refused(
    access: WebAccess, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access.token()
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(Unsupported, match="belongs to another user"):
        WebAccess(file.parent).token()


@pytest.mark.parametrize("content", [b"", b"short", b"a b c d e f g h i j k", b"\xff" * 40])
def test_a_file_without_a_token_is_refused(access: WebAccess, file: Path, content: bytes) -> None:
    access.token()
    file.write_bytes(content)
    with pytest.raises(Unsupported, match="holds no token"):
        WebAccess(file.parent).token()


def test_what_is_no_file_is_neither_followed_nor_waited_for(access: WebAccess, file: Path) -> None:
    file.parent.mkdir()
    other = file.with_name("other")
    other.touch(0o600)
    other.write_text("x" * 40)
    file.symlink_to(other)
    with pytest.raises(Unsupported, match="cannot be opened"):
        access.token()
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(Unsupported, match="no plain file"):
        access.token()
    token = access.renew()
    assert file.read_text().strip() == token
    assert other.read_text() == "x" * 40


def test_a_symlink_in_the_way_of_the_new_file_is_not_written_through(
    access: WebAccess, file: Path
) -> None:
    file.parent.mkdir()
    other = file.with_name("other")
    other.write_text("untouched")
    file.with_suffix(f".tmp{os.getpid()}").symlink_to(other)
    access.token()
    assert other.read_text() == "untouched"


def test_two_daemons_that_start_at_once_have_one_token(
    access: WebAccess, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def later(source: Path, target: Path) -> None:
        target.touch(0o600)
        target.write_text("the-token-of-the-other-daemon")
        link(source, target)

    monkeypatch.setattr(os, "link", later)
    assert access.token() == "the-token-of-the-other-daemon"
    assert os.listdir(file.parent) == ["http_token"]


def test_a_file_system_without_hard_links(
    access: WebAccess, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert access.token() == file.read_text().strip()


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    access = WebAccess(tmp_path / "state")
    for ask in (access.token, access.renew):
        with pytest.raises(Unsupported, match="cannot be"):
            ask()


def test_a_code_is_good_once(access: WebAccess) -> None:
    code = access.new_code()
    assert len(code) >= 32
    assert access.redeem(code[:-1]) is None
    assert access.redeem("") is None
    assert access.redeem("ü\udcff") is None
    assert access.redeem(code) == access.token()
    assert access.redeem(code) is None


def test_a_code_is_good_for_five_minutes(access: WebAccess, clock: Clock) -> None:
    codes = [access.new_code(), access.new_code()]
    assert CODE_S == 300
    clock.now += CODE_S - 0.001
    assert access.redeem(codes[0]) == access.token()
    clock.now += 0.001
    assert access.redeem(codes[1]) is None


def test_sixteen_codes_at_once(access: WebAccess) -> None:
    codes = [access.new_code() for _ in range(MAX_CODES + 1)]
    assert MAX_CODES == 16
    assert len(set(codes)) == len(codes)
    assert access.redeem(codes[0]) is None
    assert [access.redeem(code) for code in codes[1:]] == [access.token()] * MAX_CODES


def test_nothing_is_listened_on_at_first(access: WebAccess) -> None:
    assert (access.addresses, access.problem, access.changing) == ([], None, False)
    assert web_access.TOKEN_FILE == "http_token"
