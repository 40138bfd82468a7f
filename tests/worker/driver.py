"""Plays the daemon for test_template: `python driver.py serve|stray MODEL FACTORY [hold]`.

Starts a template and a worker, prints `template worker worker's-parent worker's-session`, then
the pid of a process that holds copies of the channels open (or 0), and obeys words on its input.
With `stray` it is no subreaper, and prints what became of the worker that it could not adopt.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys

from hybridd.worker.channel import Channel


def say(*words: object) -> None:
    print(*words, flush=True)


def hold_open() -> int:
    """A child that keeps every descriptor of this process open and does not die with it."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.pause()
        os._exit(0)
    return pid


def main() -> None:
    mode, path, factory = sys.argv[1:4]
    if mode == "serve":
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "hybridd.worker.template", "--fd", str(theirs.fileno())]
    template = subprocess.Popen(
        [*command, "--daemon", str(os.getpid())], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    control = Channel(ours)
    assert control.receive()["op"] == "ready"
    near, far = socket.socketpair()
    control.send_with_descriptors({"op": "fork"}, [far.fileno(), 2])
    far.close()
    pid = control.receive()["pid"]
    worker = Channel(near)
    if mode == "stray":
        try:
            worker.receive()
        except EOFError as exc:
            say(exc)
        return
    spec = {"model": "m", "format": "echo", "path": path, "load_options": {}, "defaults": {}}
    worker.send({"op": "load", "spec": spec, "factory": factory})
    while worker.receive()["op"] != "ready":
        pass
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    say(template.pid, pid, fields[1], fields[3])
    say(hold_open() if sys.argv[4:] == ["hold"] else 0)
    for line in sys.stdin:
        if line.strip() == "stop":
            worker.send({"op": "stop"})
            say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            return
        request = {"id": 1, "kind": "generate", "prompt": "two words"}
        worker.send({"op": "start", "request": request})
        text = ""
        while (frame := worker.receive())["op"] == "deltas":
            text += frame["items"][0]["text"]
        say("echoed", text)


main()
