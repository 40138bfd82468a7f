"""For all tests: coroutine functions run under trio, and whoever leaks fails.

A test that is a coroutine function runs in `trio.run`. When one of its fixtures is a clock
(`mock_clock`, `autojump_clock`) it runs by that clock, so that minutes pass at once and nothing
ever sleeps.
"""

from __future__ import annotations

import gc
import inspect
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio
import trio.testing

# No deadline: the machine may be busy, and a test of correctness says nothing about time.
# In CI the examples are the same each time: what a new one finds is for a developer to see.
hypothesis.settings.register_profile("hybridd", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("hybridd")

# How long a thread may take to end that was told to.
_JOIN_S = 5.0
# trio keeps threads for ten seconds of idleness; they belong to no test.
_TRIO_THREAD = "trio"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine functions in trio, by the test's own clock if it has one."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or pyfuncitem.get_closest_marker("anyio"):
        return None  # anyio's own plugin runs its tests, also under asyncio
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    clocks = [c for c in pyfuncitem.funcargs.values() if isinstance(c, trio.testing.MockClock)]

    async def main() -> None:
        await pyfuncitem.obj(**arguments)

    trio.run(main, clock=clocks[0] if clocks else None)
    return True


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """A clock that the test moves."""
    return trio.testing.MockClock()


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """A clock that jumps to the next deadline whenever every task waits."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests keeps their cache as it is, and the tests do not depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaks a process, a descriptor, a thread or a socket file."""
    own = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    before = _Belongings()
    yield
    after = _Belongings()
    leaked = after.beyond(before)
    if leaked:
        gc.collect()  # what only a reference cycle still holds was given up, if late
        after = _Belongings()
        leaked = after.beyond(before)
    if own is not None:
        leaked += _socket_files(own)
    assert not leaked, f"the test leaked {leaked}"


class _Belongings:
    """What this process has at one moment."""

    def __init__(self) -> None:
        self.descriptors = _descriptors()
        self.children = _children()
        self.threads = set(threading.enumerate())

    def beyond(self, before: _Belongings) -> list[str]:
        """What is there now and was not before."""
        found = [
            f"descriptor {fd} ({target})"
            for fd, target in self.descriptors.items()
            if before.descriptors.get(fd) != target
        ]
        found += [f"process {pid} ({_name(pid)})" for pid in self.children - before.children]
        for thread in self.threads - before.threads:
            if not thread.name.lower().startswith(_TRIO_THREAD):
                thread.join(_JOIN_S)
                if thread.is_alive():
                    found.append(f"thread {thread.name}")
        return found


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
        if not target.startswith("/dev/"):
            found[int(name)] = target
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{task}/children").read_text()
        except OSError:
            continue  # the thread ended meanwhile
        found.update(map(int, text.split()))
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _socket_files(directory: Path) -> list[str]:
    """Socket files under a test's own directory; a stale one has to be somebody's subject."""
    found: list[Any] = []
    for path in directory.rglob("*.sock"):
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                found.append(f"socket file {path.name}")
        except OSError:
            continue
    return found
