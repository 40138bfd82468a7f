"""A draft model at work: it follows the sequences that generate, and says how they may go on.

It has a context of its own with as many sequences as the model's, by the same numbers. What it
holds of one is cut back to what it has in common with the sequence's tokens, and what is missing is
computed: so wrong drafts, context shifts and slots that change hands are all the same to it, and
the engine need not tell it. It falls behind sequences that draft nothing, and catches up by a
micro-batch a step. Whatever goes wrong with it costs drafts, never a request.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence

import numpy as np  # noqa: TID253 - worker side, where it may be imported

from hybridd.backends.engine.failures import log_traceback
from hybridd.backends.engine.not_finite import NotFinite
from hybridd.backends.engine.passes import Aborted
from hybridd.backends.engine.prefix import common_prefix

from ...draft_facts import MAX_DRAFT, draft_rows
from ..cells.context import Context, NoRoom
from ..cells.sequence import GGUFSequence
from ..tokens.candidates import likeliest
from ..weights.model import Model
from .draft_policy import (
    CONFIDENCE,
    GPU_ROW_COST,
    ROW_COST,
    Wish,
    level,
    share,
    worth_reading,
)

# The first one's chance is reckoned among so many of the likeliest, as llama.cpp does: the others
# have next to none.
_COMPARED_TOKENS = 10
# The abort callback costs a microsecond a node; this many rows are worth it.
_ABORTABLE_ROWS = 64


class Drafter:
    """See the module's text. Owns the draft model and its context, and closes them.

    Args:
        model, context: What it drafts for.
        draft, own: The draft model and its context, of unified cells. A draft model that is the
            model itself stays the caller's.
        threads: The most that it computes with.
        on_gpu: Whether all of the model is on a GPU.

    Attributes:
        context: The draft model's own.
        held: By the sequence's number, the tokens in the draft model's cells.
    """

    def __init__(
        self,
        model: Model,
        context: Context,
        draft: Model,
        own: Context,
        threads: int,
        *,
        on_gpu: bool,
    ) -> None:
        self._vocabulary = model.vocabulary
        self._vocab_size = draft.vocabulary.vocab_size
        self._length = context.length
        self._level = not context.unified
        self._row_cost = GPU_ROW_COST if on_gpu else ROW_COST
        self._rows = draft_rows(context.parallel)
        # All sequences' drafts, and rows in the gaps between them, fit into a micro-batch, and
        # leave as much room for the prompts of the others.
        self._longest = min(MAX_DRAFT, context.micro_batch // context.parallel - 1)
        self._model = draft if draft is not model else None
        self.context = own
        self._threads = threads
        self.held = [array("i") for _ in range(own.parallel)]

    @property
    def length(self) -> int:
        """Tokens of a sequence past which nothing is drafted."""
        return self.context.length

    @property
    def weights_bytes(self) -> int:
        """Bytes of tensors that are there for the draft model alone."""
        return self._model.weights_bytes if self._model is not None else 0

    def set_threads(self, count: int) -> None:
        """Compute with at most this many threads from now on."""
        self.context.set_threads(min(count, self._threads))

    def close(self) -> None:
        """Free the draft model. Safe to call twice."""
        self.context.close()
        if self._model is not None:
            self._model.close()

    # ------------------------------------------------------------------ drafts

    def propose(
        self, sequences: Sequence[GGUFSequence], interrupted: Callable[[int], bool]
    ) -> None:
        """Set `draft` of each sequence for the pass that comes next.

        Args:
            sequences: Those that are to be brought forward.
            interrupted: Whether a request was cancelled; asked while its prompt is computed.
        """
        for sequence in sequences:
            sequence.draft, sequence.drafted, sequence.asked = (), 0, 0
        generating = [s for s in sequences if s.generating]
        wishes = [self._wish(s) for s in generating]
        if not any(wish.most for wish in wishes):
            return
        if self._level:
            longest = level(wishes, self._row_cost, self._rows)
            lengths = [min(longest, wish.most) for wish in wishes]
        else:
            lengths = share(wishes, self._row_cost, self._rows)
        chosen = [(s, n) for s, n in zip(generating, lengths, strict=True) if n]
        if not chosen:
            return
        drafts: dict[int, list[int]] = {s.slot_index: [] for s in generating}
        complete = self._draft(chosen, drafts, interrupted)
        proposed = [drafts[s.slot_index] for s in generating]
        common = self._common(wishes, proposed) if self._level else None
        for sequence, length, draft in zip(generating, lengths, proposed, strict=True):
            sequence.asked = length if sequence.slot_index in complete else 0
            sequence.drafted = len(draft)
            if common is not None and len(draft) > common:
                sequence.asked = sequence.drafted = common  # what was cut off is not looked at
            if common is not None:
                # What makes up the number will hardly be right; of another token the model may
                # make NaN, though.
                draft = [*draft[:common], *sequence.tokens[-1:] * (common - len(draft))]
            sequence.draft = draft
            if sequence.asked and not sequence.draft:
                assert sequence.pace is not None
                sequence.pace.learn(sequence.asked, 0)

    def _wish(self, sequence: GGUFSequence) -> Wish:
        pace, tokens = sequence.pace, len(sequence.tokens)
        assert pace is not None
        room = self._length - tokens
        wanted = sequence.generation.remaining_tokens - 1
        most = min(self._longest, room, self.context.length - tokens, wanted)
        if pace.resting:
            pace.wait()
            most = 0
        elif most > 0 and not worth_reading(self._missing(sequence), wanted, self._row_cost):
            most = 0
        return Wish(pace.rate, max(0, most), room)

    def _common(self, wishes: Sequence[Wish], drafts: Sequence[Sequence[int]]) -> int:
        """The one length of the drafts that were made."""
        had = [
            Wish(wish.rate, len(draft), wish.room)
            for wish, draft in zip(wishes, drafts, strict=True)
        ]
        return level(had, self._row_cost, self._rows)

    def _draft(
        self,
        chosen: Sequence[tuple[GGUFSequence, int]],
        drafts: dict[int, list[int]],
        interrupted: Callable[[int], bool],
    ) -> Collection[int]:
        """Append up to so many tokens for each of those that the draft model has caught up with.

        Returns:
            Their numbers.
        """
        sequences = [sequence for sequence, _ in chosen]
        complete: Collection[int] = ()
        try:
            rows = self._follow(sequences, interrupted)
            complete = list(rows)
            while rows:
                guessed = {}
                for sequence, length in chosen:
                    index = sequence.slot_index
                    token = self._guess(sequence, rows[index]) if index in rows else None
                    if token is not None:
                        drafts[index].append(token)
                        if len(drafts[index]) < length:
                            guessed[index] = token
                rows = self._next(guessed)
        except NoRoom:
            self._make_room(sequences)
        except Aborted:
            self._settle()
        except Exception:
            # A damaged draft model, say: these requests go on without it.
            log_traceback("a draft model failed", quotes_request=True)
            self._reset()
            for sequence in sequences:
                assert sequence.pace is not None
                sequence.pace.give_up()
        return complete

    def _guess(self, sequence: GGUFSequence, row: int) -> int | None:
        """The likeliest next token, if it is likely enough.

        An end of the text is none: the model finds it in the same row.
        """
        logits = self.context.logits(row)
        try:
            ids = likeliest(logits, _COMPARED_TOKENS)
        except NotFinite:
            raise RuntimeError("a draft model computed numbers that are not finite") from None
        best = logits[ids]
        first = int(best.argmax())
        token = int(ids[first])
        chance = 1 / np.exp(best - best[first]).sum()
        if chance < CONFIDENCE or token >= self._vocabulary.vocab_size:
            return None
        return None if self._vocabulary.ends(token) else token

    # ------------------------------------------------------------------ cells

    def _follow(
        self, sequences: Sequence[GGUFSequence], interrupted: Callable[[int], bool]
    ) -> dict[int, int]:
        """Compute what is missing of sequences, as far as a micro-batch goes.

        Returns:
            By the number of each sequence that is complete, the row of its last token.
        """
        missing = {s.slot_index: self._cut_back(s) for s in sequences}
        left = self.context.micro_batch
        batch, parts, rows = self.context.batch, {}, {}
        batch.clear()
        # Those that lack little are not kept waiting by one that lacks a whole prompt.
        for sequence in sorted(sequences, key=lambda s: missing[s.slot_index]):
            index = sequence.slot_index
            at, count = len(self.held[index]), min(missing[index], left)
            part = sequence.tokens[at : at + count]
            if not part:
                continue
            if max(part) >= self._vocab_size:
                assert sequence.pace is not None
                sequence.pace.give_up()  # the draft model has no such token
                continue
            complete = count == missing[index]
            row = batch.add(index, part, at, logits=complete)
            left -= count
            parts[index] = part
            if complete:
                rows[index] = row
        if parts:
            long = sum(map(len, parts.values())) > _ABORTABLE_ROWS
            ids = [s.id for s in sequences]
            self._decode(parts, (lambda: any(map(interrupted, ids))) if long else None)
        return rows

    def _next(self, guessed: dict[int, int]) -> dict[int, int]:
        """Compute one token more of each; returns their rows."""
        batch = self.context.batch
        batch.clear()
        rows = {
            index: batch.add(index, (token,), len(self.held[index]), logits=True)
            for index, token in guessed.items()
        }
        if guessed:
            self._decode({index: array("i", (token,)) for index, token in guessed.items()})
        return rows

    def _decode(
        self, parts: dict[int, array[int]], abort: Callable[[], bool] | None = None
    ) -> None:
        self.context.decode(abort)
        for index, part in parts.items():
            self.held[index].extend(part)

    def _missing(self, sequence: GGUFSequence) -> int:
        """How many of a sequence's tokens are to be computed; at least one."""
        tokens = sequence.tokens
        return max(1, len(tokens) - common_prefix(self.held[sequence.slot_index], tokens))

    def _cut_back(self, sequence: GGUFSequence) -> int:
        """Forget what is not of the sequence; how many of its tokens are missing, at least one."""
        index, held = sequence.slot_index, self.held[sequence.slot_index]
        length = len(sequence.tokens) - self._missing(sequence)
        if length < len(held):
            self._cut(index, length)
        return len(sequence.tokens) - len(held)

    def _cut(self, index: int, length: int) -> None:
        held = self.held[index]
        if not self.context.can_cut(index, self.context.held(index), length):
            length = 0  # a sliding window has moved on
        self.context.cut(index, length)
        del held[length:]

    def _settle(self) -> None:
        """Make the cells what `held` says, after a pass that was not finished."""
        for index, held in enumerate(self.held):
            if self.context.held(index) != len(held):
                self._cut(index, len(held))

    def _make_room(self, sequences: Sequence[GGUFSequence]) -> None:
        """Let go of those that draft nothing now; where there are none, of all but the first."""
        drafting = {s.slot_index for s in sequences}
        others = [i for i, held in enumerate(self.held) if held and i not in drafting]
        for sequence in [] if others else sequences[1:]:
            others.append(sequence.slot_index)
            assert sequence.pace is not None
            sequence.pace.rest()
        for index in others:
            self.context.cut(index, 0)
            del self.held[index][:]

    def _reset(self) -> None:
        """Forget everything, and any NaN in the cells with it."""
        self.context.clear()
        for held in self.held:
            del held[:]
