"""The echo engine: says what it was told.

It needs no library and behaves as real engines do: it loads in steps, generates one token per
step for several requests at a time, honours limits, stop strings and cancels, and on demand fails,
crashes or hangs. A model is a JSON file `NAME.echo`:

    {"context_length": 4096,      tokens of one request
     "parallel": 1,               requests at a time, unless load_options say otherwise
     "reply": "…",                what it says instead of an echo
     "token_delay_s": 0,          seconds that a decode step takes
     "load_s": 0, "load_steps": 1,
     "fail": "…",                 the load fails with this reason
     "crash_on": "load",          the process kills itself; "generate" at any request, another
                                  text at a prompt that holds it …
     "crash_signal": "ABRT",      … with this signal
     "hang_on": "load",           or "generate": it stands still without using the processor
     "notes": [ "…" ],            sentences that it is loaded with
     "capabilities": [ "…" ],     of completion, chat (the default), embedding and reranking
     "weights_bytes": 0}          pretended; for the estimate only

A token is a word with the white space before it, so that the text is kept to the byte. Its id is
the number that its bytes make, which is why any text can be got back from its tokens.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hybridd.backends.api import LoadedFacts, LoadSpec, Output, Report, WorkRequest
from hybridd.backends.cpu import usable_cores
from hybridd.backends.engine.embedding import EncoderQueue
from hybridd.backends.engine.messages import normalize
from hybridd.backends.engine.options import GenerationOptions
from hybridd.backends.engine.output import logprobs
from hybridd.backends.engine.output.generation import Generation, check_prompt, refuse_context_shift
from hybridd.core.kinds import Mode, of_mode
from hybridd.wire.errors import HybriddError, InvalidParams, LoadFailed, ModelInvalid, Unsupported

from ..inspect import DEFAULT_CAPABILITIES
from .encoder import EchoEncoder

_log = logging.getLogger(__name__)
_MAX_FILE_BYTES = 64 * 1024
_CONTEXT_LENGTH = 4096
_ENCODED = of_mode(Mode.ENCODE)
# A longer word is several tokens: an id has to stay a number that every JSON reader takes.
_PIECES = re.compile(rb"\s{0,16}\S{1,48}|\s{1,64}")
# A delay is slept in slices of this, so that a cancel need not wait for its end.
_SLICE_S = 0.005


def pieces(text: str) -> list[bytes]:
    """Cut text into tokens' bytes; joined they are the text again."""
    return _PIECES.findall(text.encode("utf-8", "replace"))


def to_id(piece: bytes) -> int:
    """A token's id: its bytes as a number, behind a 1 that keeps leading zeros."""
    return int.from_bytes(b"\x01" + piece, "big")


def from_id(token: int) -> bytes:
    """The bytes of a token.

    Raises:
        InvalidParams: No id that `to_id` makes.
    """
    data = token.to_bytes((token.bit_length() + 7) // 8, "big") if token > 0 else b""
    if data[:1] != b"\x01":
        raise InvalidParams(f"{token} is no token of this model", field="tokens", reason="unknown")
    return data[1:]


class _Echo:
    """One request at work: what is still to be said."""

    def __init__(self, generation: Generation, reply: Sequence[bytes]) -> None:
        self.generation = generation
        self.reply = reply
        self.prefilled = False

    def next(self) -> Output:
        said = self.generation.completion_tokens
        options = self.generation.options
        if said >= len(self.reply) and not (options.ignore_eos and self.reply):
            return self.generation.end_of_text()
        piece = self.reply[said % len(self.reply)]
        # It is always certain.
        entry = logprobs.entry(_Words(), to_id(piece), 0.0, ()) if options.logprobs else None
        return self.generation.accept(piece, entry)


class _Words:
    """See `logprobs.Pieces`."""

    def piece(self, token: int) -> bytes:
        return from_id(token)

    def name(self, token: int) -> str:
        return ""


class EchoEngine:
    """See the module. One instance per worker; everything happens on the main thread."""

    def __init__(self) -> None:
        self._file: dict[str, Any] = {}
        self._context_length = 0
        self._parallel = 1
        self._interrupted: Callable[[int], bool] = lambda _id: False
        self._waiting: deque[WorkRequest] = deque()
        self._running: list[_Echo] = []
        self._encoding = self._make_queue([], 1)

    # ------------------------------------------------------------------ loading

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """Read the file and pretend to work; see `api.Engine`."""
        self._file = _read_file(Path(spec["path"]), spec["model"])
        options = spec["load_options"]
        if options.get("quantization") not in (None, "none"):
            raise Unsupported(
                "the echo engine has no quantization", capability="quantization", format="echo"
            )
        self._misbehave("load")
        steps = max(1, self._file.get("load_steps", 1))
        for step in range(steps):
            report("load", step, steps)
            self._sleep(self._file.get("load_s", 0.0) / steps, report, step, steps)
        report("load", steps, steps)
        if (reason := self._file.get("fail")) is not None:
            raise LoadFailed(f"{spec['model']} could not be loaded: {reason}", reason=str(reason))
        self._context_length = _number(
            options.get("context_length"), self._file.get("context_length", _CONTEXT_LENGTH)
        )
        self._parallel = _number(options.get("parallel"), self._file.get("parallel", 1))
        capabilities = list(self._file.get("capabilities", DEFAULT_CAPABILITIES))
        self._encoding = self._make_queue(capabilities, self._context_length)
        in_force = {
            "context_length": self._context_length,
            "parallel": self._parallel,
            "threads": _number(options.get("threads"), usable_cores()),
        }
        return LoadedFacts(
            engine="echo",
            context_length=self._context_length,
            parallel=self._parallel,
            load_options=in_force,
            memory={"weights_bytes": 0},
            capabilities=capabilities,
            notes=self._file.get("notes", []),
        )

    def _sleep(self, seconds: float, report: Report, step: int, steps: int) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_S))
            report("load", step, steps)

    def retire(self) -> None:
        """Nothing outlives it."""

    def close(self) -> None:
        """Nothing to free."""
        self._waiting.clear()
        self._running.clear()

    # ------------------------------------------------------------------ requests

    def set_interrupted(self, interrupted: Callable[[int], bool]) -> None:
        """See `api.Engine`; asked between the slices of a delay."""
        self._interrupted = interrupted

    def set_threads(self, count: int) -> None:
        """See `api.Engine`; there is nothing to compute with them."""
        return

    def submit(self, request: WorkRequest) -> None:
        """Queue a request; `parallel` of them run at a time, in the order they came."""
        self._waiting.append(request)

    def cancel(self, request_id: int) -> None:
        """Forget a request, waiting or running."""
        self._waiting = deque(r for r in self._waiting if r["id"] != request_id)
        self._running = [r for r in self._running if r.generation.id != request_id]
        self._encoding.cancel(request_id)

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running or self._encoding.busy)

    def step(self) -> Sequence[Output]:
        """Admit what there is room for, then bring each running request one token further."""
        outputs: list[Output] = []
        while self._waiting and len(self._running) < self._parallel:
            outputs.extend(self._admit(self._waiting.popleft()))
        outputs.extend(self._encoding.step())
        if self._running:
            self._misbehave("generate")
            self._delay(self._unwanted)
        for echo in self._running:
            if not echo.prefilled:
                echo.prefilled = True
                output = echo.generation.prefilled() or echo.next()
            else:
                output = echo.next()
            outputs.append(output)
        self._running = [echo for echo in self._running if not echo.generation.finished]
        return outputs

    def _admit(self, request: WorkRequest) -> list[Output]:
        """Answer what needs no generation at once; errors are outputs too."""
        if request["kind"] in _ENCODED:
            return self._encoding.take(request)
        try:
            result = self._result(request)
        except HybriddError as exc:
            return [Output(id=request["id"], error=exc.to_wire())]
        return [] if result is None else [Output(id=request["id"], done=result)]

    def _result(self, request: WorkRequest) -> dict[str, Any] | None:
        match request["kind"]:
            case "generate":
                self._begin(request, request["prompt"], request["prompt"])
                return None
            case "chat":
                messages = normalize(request.get("messages"), "echo")
                users = [m["content"] for m in messages if m["role"] == "user"]
                self._begin(request, _render(messages), users[-1] if users else "")
                return None
            case "apply_template":
                return {"prompt": _render(normalize(request.get("messages"), "echo"))}
            case "tokenize":
                return {"tokens": [to_id(piece) for piece in pieces(request["text"])]}
            case "detokenize":
                data = b"".join(map(from_id, request["tokens"]))
                return {"text": data.decode("utf-8", "replace")}
        raise Unsupported(
            f"the echo engine cannot {request['kind']}", capability=request["kind"], format="echo"
        )

    def _begin(self, request: WorkRequest, prompt: str, echoed: str) -> None:
        prompt_tokens = len(pieces(prompt))
        check_prompt(prompt_tokens, self._context_length)
        if (crash_on := self._file.get("crash_on")) and crash_on in prompt:
            self._misbehave(crash_on)
        options = GenerationOptions.from_wire(request.get("options"))
        refuse_context_shift(options, "echo")
        generation = Generation(request["id"], options, prompt_tokens, self._context_length)
        reply = self._file.get("reply")
        self._running.append(_Echo(generation, pieces(echoed if reply is None else reply)))

    def _make_queue(self, capabilities: Sequence[str], context_length: int) -> EncoderQueue:
        encoder = EchoEncoder(capabilities, context_length, self._delay)
        return EncoderQueue(encoder, "echo", lambda request_id: self._interrupted(request_id))

    def _unwanted(self) -> bool:
        return all(self._interrupted(echo.generation.id) for echo in self._running)

    def _delay(self, unwanted: Callable[[], bool]) -> bool:
        """Take as long as a step of the pretended model; False when it is not wanted any more."""
        until = time.monotonic() + self._file.get("token_delay_s", 0.0)
        while (left := until - time.monotonic()) > 0:
            if unwanted():
                return False
            time.sleep(min(left, _SLICE_S))
        return True

    def _misbehave(self, when: str) -> None:
        if self._file.get("crash_on") == when:
            _log.warning("echo: crashes at %s, as its file says", when)
            os.kill(os.getpid(), signal.Signals[f"SIG{self._file.get('crash_signal', 'ABRT')}"])
        if self._file.get("hang_on") == when:
            _log.warning("echo: hangs at %s, as its file says", when)
            threading.Event().wait()


def _render(messages: Sequence[dict[str, Any]]) -> str:
    """The engine's chat template: a line for each message, then the assistant's turn."""
    lines = [f"{m['role']}: {m['content']}\n" for m in messages]
    return "".join([*lines, "assistant:"])


def _number(option: object, otherwise: int) -> int:
    """A load option's number; `auto` and None leave it to the model."""
    return option if isinstance(option, int) else otherwise


def _read_file(path: Path, model: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise LoadFailed(
            f"{model} could not be read: {os.strerror(exc.errno or 0)}", reason="unreadable"
        ) from exc
    if len(data) > _MAX_FILE_BYTES:
        raise ModelInvalid(f"{model} is no echo model: its file is too big", reason="too big")
    try:
        file_facts = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as exc:
        raise ModelInvalid(f"{model} is no echo model: {exc}", reason="no JSON") from exc
    if not isinstance(file_facts, dict):
        raise ModelInvalid(f"{model} is no echo model: no JSON object", reason="no object")
    return file_facts
