"""The conversation loop of `hybridctl chat`.

Ctrl-C stops the answer that is being written and returns to the prompt; at the prompt it ends
the conversation, as Ctrl-D and `/bye` do.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from hybridd.wire.errors import HybriddError

from . import exit_codes
from .answer import print_stream, timings
from .failures import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hybridctl.sdk.blocking import Client
    from hybridctl.sdk.blocking_streams import ChatStream

_PROMPT = ">>> "
_HELP = """\
/clear  forget the conversation
/bye    end (also Ctrl-D)
Ctrl-C  stop the answer; at the prompt: end
A line that ends with a backslash goes on in the next."""


class Chat:
    """One conversation.

    Args:
        client: Where it goes; the caller's to close.
        model: The full id.
        system: The system message, if any.
        options: Keywords of `Client.chat`.
        verbose: Print timings after each answer.
        as_json: Print JSON lines instead of words.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        system: str | None,
        options: dict[str, Any],
        verbose: bool = False,
        as_json: bool = False,
    ) -> None:
        self._client = client
        self._model = model
        self._beginning = [] if system is None else [{"role": "system", "content": system}]
        self._messages: list[dict[str, Any]] = list(self._beginning)
        self._options = options
        self._verbose = verbose
        self._as_json = as_json

    def run(self) -> int:
        """Talk until the user ends it. Returns the exit code."""
        # Both ends: a script that feeds lines wants answers, not prompts.
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        if interactive:
            with suppress(ImportError):
                import readline  # noqa: F401  # its import gives input() editing and history
            print(f"{self._model}: /bye ends, /help helps", file=sys.stderr)
        failed = exit_codes.OK
        while True:
            try:
                said = self._read(interactive)
            except KeyboardInterrupt:
                print()
                return exit_codes.INTERRUPTED
            if said is None:
                return failed
            if said.startswith("/") and self._command(said):
                if said == "/bye":
                    return failed
            elif said.strip():
                code = self._answer(said, interactive)
                failed = exit_codes.OK if interactive else code or failed
                if code == exit_codes.INTERRUPTED and not interactive:
                    return code

    def _read(self, interactive: bool) -> str | None:
        """One message of the user; None at the end."""
        lines: list[str] = []
        try:
            while True:
                line = input((_PROMPT, "... ")[bool(lines)] if interactive else "")
                if not line.endswith("\\"):
                    return "\n".join([*lines, line])
                lines.append(line[:-1])
        except EOFError:
            if interactive:
                print()
            return "\n".join(lines) if lines else None

    def _command(self, said: str) -> bool:
        """Whether it was a command; "/usr is full" is none."""
        if said == "/clear":
            self._messages = list(self._beginning)
        elif said in ("/help", "/?"):
            print(_HELP)
        elif said != "/bye":
            if not said[1:].isalpha():
                return False
            print(f"there is no command {said}; /help shows those there are", file=sys.stderr)
        return True

    def _answer(self, said: str, interactive: bool) -> int:
        """Let the model answer; what went wrong is said and leaves the conversation as it was.

        Returns:
            An exit code, for scripts.
        """
        question = {"role": "user", "content": said}
        conversation = [*self._messages, question]
        stream: ChatStream | None = None
        try:
            with self._client.chat(
                self._model, conversation, stream=True, **self._options
            ) as stream:
                result = print_stream(stream, as_json=self._as_json)
        except KeyboardInterrupt:
            # The client has closed the connection, which cancelled the request.
            if stream is not None and stream.text:
                answer = {"role": "assistant", "content": stream.text}
                self._messages = [*conversation, answer]
            return exit_codes.INTERRUPTED
        except HybriddError as exc:
            report(exc, as_json=self._as_json)
            if exc.kind == "context_exceeded" and interactive:
                print("/clear begins a new conversation", file=sys.stderr)
            if exc.kind == "daemon_not_running":
                raise
            return exit_codes.BY_KIND.get(exc.kind, exit_codes.ERROR)
        self._messages = [*conversation, {"role": "assistant", "content": result.text}]
        if self._verbose:
            print(timings(result, None), file=sys.stderr)
        return exit_codes.OK
