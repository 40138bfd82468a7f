"""A process that imports an engine's heavy libraries once and forks workers from itself.

    python -m hybridd.worker.template --fd N --daemon PID --name gguf --preload mod,mod
        [--low-priority]

It says `ready {threads}` or `failed {error}` once, then answers each `fork` frame, which brings
the descriptors of the child's channel and log, with `forked {pid}` or `refused {reason}`. It
ends when its channel closes. It never touches a GPU: a CUDA context does not survive a fork.

The child is a worker, or, where the frame has `prepare {model, factory, path}`, a template again:
it calls the factory, which readies what all workers of this one model can share, and goes on as
any template does.

Either outlives the template that forked it: it is forked twice, so that the daemon, a subreaper,
adopts and reaps it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
from typing import Any, NoReturn

from hybridd.backends.engine.failures import import_failure, load_failure, log_traceback
from hybridd.wire.errors import HybriddError

from . import logs, process
from .channel import Channel, close_all
from .loop import EXIT_ENDED, named, run_worker

_EXIT_BUG = 70  # EX_SOFTWARE: an unexpected exception; the log has it


class Template:
    """The serving half; the imports are done before it is made.

    Args:
        channel: The control channel.
        daemon: The process that adopts the workers.
    """

    def __init__(self, channel: Channel, daemon: int) -> None:
        self._channel = channel
        self._daemon = daemon

    def serve(self) -> None:
        """Answer fork requests until the channel closes."""
        while True:
            try:
                frame, descriptors = self._channel.receive_with_descriptors()
            except (EOFError, OSError, HybriddError):
                return
            try:
                reply = self._fork(descriptors, frame.get("prepare"))
            except OSError as exc:
                reply = {"op": "refused", "reason": os.strerror(exc.errno or 0)}
            finally:
                close_all(descriptors)
            try:
                self._channel.send({**reply, "n": frame.get("n")})
            except OSError:
                return

    def _fork(self, descriptors: list[int], prepare: dict[str, Any] | None) -> dict[str, Any]:
        if len(descriptors) != 2:
            return {"op": "refused", "reason": f"{len(descriptors)} descriptors came, not 2"}
        if (threads := process.thread_count()) != 1:
            # Another thread may hold a lock that no one would ever release in the child.
            return {"op": "refused", "reason": f"the template has {threads} threads"}
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.close(reading)
            self._in_middle(writing, descriptors, prepare)
        os.close(writing)
        with open(reading, "rb") as pipe:
            pid = pipe.read(32)
        os.waitpid(middle, 0)
        if not pid:
            return {"op": "refused", "reason": "the second fork failed"}
        return {"op": "forked", "pid": int(pid)}

    def _in_middle(
        self, writing: int, descriptors: list[int], prepare: dict[str, Any] | None
    ) -> NoReturn:
        middle = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                channel_fd, log_fd = descriptors
                self._in_child(middle, channel_fd, log_fd, prepare)
            os.write(writing, b"%d" % pid)
        finally:
            os._exit(EXIT_ENDED)

    def _in_child(
        self, middle: int, channel_fd: int, log_fd: int, prepare: dict[str, Any] | None
    ) -> NoReturn:
        code = _EXIT_BUG
        try:
            self._channel.close()
            process.own_session()
            process.reset_signals()
            process.log_to(log_fd)
            os.close(log_fd)
            process.raise_oom_score(self._daemon)
            code = EXIT_ENDED
            if process.wait_for_adoption(middle, self._daemon) and process.die_with(self._daemon):
                channel = Channel.from_fd(channel_fd)
                if prepare is None:
                    process.set_name("hybridd-worker")
                    gc.enable()
                    code = run_worker(channel)
                else:
                    self._as_template(channel, prepare)
        except BaseException:
            code = _EXIT_BUG
            log_traceback("the worker failed", quotes_request=True)
        finally:
            os._exit(code)

    def _as_template(self, channel: Channel, prepare: dict[str, Any]) -> None:
        """Ready what one model's workers share, then serve: the collector stays off."""
        process.set_title(f"hybridd template: {prepare['model']}")
        with contextlib.suppress(OSError):
            try:
                named(prepare["factory"])(prepare["path"])
            except Exception as exc:
                error = load_failure(exc, prepare["model"])
                channel.send({"op": "failed", "error": error.to_wire()})
                return
            gc.freeze()
            channel.send({"op": "ready", "threads": process.thread_count()})
            Template(channel, self._daemon).serve()


def preload(modules: list[str]) -> HybriddError | None:
    """Import what workers will need; the error when one of them cannot be."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as exc:
            # Not only ImportError: a library without its GPU driver raises what it likes.
            log_traceback(f"importing {name} failed")
            return import_failure(exc, None)
    return None


def main() -> None:
    """Set the process up, import, serve."""
    parser = argparse.ArgumentParser(prog="python -m hybridd.worker.template")
    parser.add_argument("--fd", type=int, required=True, help="the control channel")
    parser.add_argument("--daemon", type=int, required=True, help="the daemon's pid")
    parser.add_argument("--name", default="template", help="the backend's name, for `ps`")
    parser.add_argument("--preload", default="", help="modules, separated by commas")
    parser.add_argument("--low-priority", action="store_true", help="import at the lowest priority")
    arguments = parser.parse_args()
    process.own_session()
    process.reset_signals()
    process.log_to(2)
    logs.set_up()
    process.set_name(f"hybridd-t-{arguments.name}")
    channel = Channel.from_fd(arguments.fd)
    if not process.die_with(arguments.daemon):
        return
    # Objects of the imports are shared with every worker until something writes to them; the
    # collector would write to all of them.
    gc.disable()
    modules = [name for name in arguments.preload.split(",") if name]
    error: HybriddError | None = None

    def import_all() -> None:
        nonlocal error
        error = preload(modules)

    if arguments.low_priority:
        process.at_low_priority(import_all)
    else:
        import_all()
    gc.freeze()
    with contextlib.suppress(OSError):
        if error is not None:
            channel.send({"op": "failed", "error": error.to_wire()})
            return
        channel.send({"op": "ready", "threads": process.thread_count()})
        Template(channel, arguments.daemon).serve()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
