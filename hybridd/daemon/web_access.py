"""How the HTTP gateway is reached: its token, links that bring the token once, its addresses.

Both faces read it, the gateway alone says where it listens. Checks of requests are `http/guard`'s.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hybridd.wire.errors import Unsupported

TOKEN_FILE = "http_token"
# A link is opened by a click, or by one who goes to another window first.
CODE_S = 300.0
MAX_CODES = 16

_TOKEN = re.compile(rb"[!-~]{16,512}")
_NEW_OPEN = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO in its place must not hold the daemon.
_READ_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class WebAccess:
    """See the module's text.

    Attributes:
        addresses: Where the gateway listens: "http://127.0.0.1:4114", "unix:/run/…/http.sock".
        problem: Why it does not listen where the settings say; None where nothing is wrong.
        changing: Whether it is about to listen elsewhere; `addresses` and `problem` follow.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Know the place; nothing is read or made yet.

        Args:
            directory: Where the token's file is.
            clock: Seconds that only grow.
        """
        self.addresses: list[str] = []
        self.problem: str | None = None
        self.changing = False
        self._file = directory / TOKEN_FILE
        self._clock = clock
        self._token: str | None = None
        # When each code ends, the oldest first.
        self._codes: dict[str, float] = {}

    def token(self) -> str:
        """The token; made and kept at first need.

        Raises:
            Unsupported: The file cannot be made or used, and why.
        """
        if self._token is None:
            self._token = self._read() or self._make()
        return self._token

    def renew(self) -> str:
        """A new token instead of the old one, which counts for nothing from now on.

        Raises:
            Unsupported: The file cannot be made.
        """
        self._codes.clear()
        with self._written() as temporary:
            os.replace(temporary, self._file)
        self._token = None
        return self.token()

    def new_code(self) -> str:
        """A code that is good for the token once, within `CODE_S` seconds.

        Of more than `MAX_CODES` the oldest are given up.
        """
        self._forget_old(MAX_CODES - 1)
        code = secrets.token_urlsafe(24)
        self._codes[code] = self._clock() + CODE_S
        return code

    def redeem(self, code: str) -> str | None:
        """The token, for a code that was not used yet and is not too old; else None.

        Raises:
            Unsupported: The token's file cannot be made or used.
        """
        self._forget_old(MAX_CODES)
        sent = code.encode("utf-8", "replace")
        for known in [one for one in self._codes if hmac.compare_digest(one.encode(), sent)]:
            del self._codes[known]
            return self.token()
        return None

    # ---------------------------------------------------------------- inside

    def _forget_old(self, keep: int) -> None:
        now = self._clock()
        alive = [(code, end) for code, end in self._codes.items() if end > now]
        self._codes = dict(alive[len(alive) - keep :] if len(alive) > keep else alive)

    def _read(self) -> str | None:
        """The file's token; None where there is no file."""
        try:
            fd = os.open(self._file, _READ_OPEN)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._unusable(f"cannot be opened ({exc.strerror})") from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise self._unusable("is no plain file")
            if found.st_uid != os.geteuid():
                raise self._unusable(f"belongs to another user (uid {found.st_uid})")
            if found.st_mode & 0o077:
                mode = stat.S_IMODE(found.st_mode)
                raise self._unusable(f"can be read or written by others (mode {mode:04o})")
            text = os.read(fd, 1024).strip()
        except OSError as exc:
            raise self._unusable(f"cannot be read ({exc.strerror})") from None
        finally:
            os.close(fd)
        if not _TOKEN.fullmatch(text):
            raise self._unusable("holds no token")
        return text.decode("ascii")

    def _make(self) -> str:
        with self._written() as temporary:
            try:
                # Unlike a rename it does not replace what another daemon made meanwhile.
                os.link(temporary, self._file)
            except FileExistsError:
                pass
            except OSError:
                os.replace(temporary, self._file)  # a file system without hard links
        token = self._read()
        if token is None:
            raise self._unusable("does not stay")
        return token

    @contextlib.contextmanager
    def _written(self) -> Iterator[Path]:
        """A new token in a file of its own, complete, to be put in place."""
        temporary = self._file.with_suffix(f".tmp{os.getpid()}")
        try:
            os.makedirs(self._file.parent, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # of a daemon that was killed
            fd = os.open(temporary, _NEW_OPEN, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
                file.flush()
                os.fsync(fd)
            yield temporary
        except OSError as exc:
            raise self._unusable(f"cannot be made ({exc.strerror})") from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def _unusable(self, why: str) -> Unsupported:
        return Unsupported(
            f"the HTTP token's file {self._file} {why}; make a new one with: "
            'hybridctl http token --renew (or set http.token to "none")',
            capability="http",
            reason=f"the token's file {why}",
        )
