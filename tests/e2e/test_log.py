"""What workers and templates write is in the daemon's log, under the model's id."""

from __future__ import annotations

import json

import pytest

from hybridctl import WorkerDied
from tests.make_models import write_echo

from .conftest import RealDaemon


def test_a_workers_lines_are_in_the_daemons_log(daemon: RealDaemon) -> None:
    write_echo(daemon.models / "parrot.echo", crash_on="generate")
    with daemon.client() as client:
        client.rescan()
        with pytest.raises(WorkerDied):
            client.generate("parrot", "nobody else is to read this")
    assert daemon.stop() == 0
    log = daemon.log.read_text()
    said = "hybridd.worker: parrot: echo: crashes at generate, as its file says"
    (line,) = [line for line in log.splitlines() if said in line]
    assert " WARNING " in line
    assert "hybridd.worker: parrot: Fatal Python error: Aborted" in log
    assert "nobody else" not in log


def test_the_notes_of_a_load_are_told_everywhere(daemon: RealDaemon) -> None:
    note = "requests take turns: it is a parrot"
    write_echo(daemon.models / "parrot.echo", notes=[note])
    with daemon.client() as client:
        client.rescan()
        assert client.show("parrot").notes == []
        assert f"note: {note}\n" in daemon.ctl("load", "-v", "parrot").stdout
        assert client.load("parrot").notes == [note]
    (listed,) = json.loads(daemon.ctl("ps", "--json").stdout)
    assert listed["notes"] == [note]
    assert note in daemon.ctl("show", "parrot").stdout
    assert daemon.stop() == 0
    assert daemon.log.read_text().count(f"parrot: {note}\n") == 1


def test_a_load_of_llama_cpp_is_told_at_debug(make_daemon) -> None:
    pytest.importorskip("llama_cpp", reason="needs the extra gguf")
    quiet = make_daemon()
    loud = make_daemon(HYBRIDD_LOG_LEVEL="debug")
    for daemon in (quiet, loud):
        with daemon.client() as client:
            client.load("hybridd/demo-gguf")
        assert daemon.stop() == 0
    said = "hybridd.worker: hybridd/demo-gguf: "
    report = [line for line in loud.log.read_text().splitlines() if said in line]
    assert len(report) > 50
    assert any(" DEBUG " in line and "n_ctx_train" in line for line in report)
    assert not any(
        said in line and "n_ctx_train" in line for line in quiet.log.read_text().splitlines()
    )
