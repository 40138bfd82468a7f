"""The KV-cache manager: the slots' decisions carried out on the context.

It takes slots for requests, computes rows into their cells, makes room where cells are short, and
gives slots back. After each of its methods a slot's tokens are what the context holds of that
sequence; where a pass ends in its middle, `_settle` makes them so again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.passes import Aborted

from .context import Context, NoRoom
from .persisted import PersistedStates
from .sequence import GGUFSequence
from .slots import MIN_COPIED_TOKENS, Choice, Slot, Slots
from .state_cache import SavedState, StateCache
from .step_plan import Row

# A context shift keeps at most this part of the context of a prompt's beginning.
_KEPT_PART = 4
# Between streams a copy takes all of its source along, and as much memory again for a moment: one
# of less than this part of it costs more than computing it does.
_COPIED_PART = 16


class CacheManager:
    """See the module's text.

    Args:
        context: Owned by the engine.
        states: Of conversations that lost their slot.
        persisted: Of conversations of an earlier worker.
    """

    def __init__(self, context: Context, states: StateCache, persisted: PersistedStates) -> None:
        self._context = context
        self.slots = Slots(context.parallel)
        self.states = states
        self._persisted = persisted
        self._spoiled = False

    # ------------------------------------------------------------------ coming and going

    def take(
        self, prompt: Sequence[int], adapters: AdapterChoice = NO_ADAPTERS
    ) -> tuple[Slot, int] | None:
        """A slot for a prompt, and how many of its tokens are there; None when it has to wait."""
        if self._spoiled and not self._clear():
            return None
        choice = self.slots.choose(prompt, self._can_cut, adapters, can_copy=self._can_copy)
        if choice is None:
            return None
        least = choice.reused + MIN_COPIED_TOKENS
        saved = self.states.find(prompt, least, adapters)
        saved = self._persisted.find(prompt, saved[1] if saved else least, adapters) or saved
        if saved is not None and len(saved[0].tokens) > self._context.length:
            saved = None  # made for a larger context: nothing that gives way lets it in
        if choice.kept:
            self._keep(choice.slot)
        reused = self._bring(choice) if saved is None else self._restore(choice.slot, *saved)
        self._context.cut(choice.slot.index, reused)
        self.slots.take(choice.slot, prompt[:reused], adapters)
        return choice.slot, reused

    def give_back(self, slot: Slot) -> None:
        """A request is over: what it computed is retained, as far as that is known."""
        self._settle(slot)
        self._drop_inexact(slot)
        self.slots.release(slot)

    def persist(self) -> None:
        """Write what is retained to disk, the most recently used first. The last thing to do."""
        if self._persisted.enabled:
            self._persisted.write(self._all_states())

    def _all_states(self) -> Iterator[SavedState]:
        for slot in sorted(self.slots.all, key=lambda s: s.used, reverse=True):
            self._settle(slot)
            self._drop_inexact(slot)
            if len(slot.tokens) >= MIN_COPIED_TOKENS:
                yield self._save(slot)
        yield from reversed(self.states.states)

    @property
    def can_share(self) -> bool:
        """Whether a part of what a sequence holds is of use to another."""
        return self._context.can_cut_anywhere

    def forget(self, slot: Slot) -> None:
        """Empty a slot."""
        self._context.cut(slot.index, 0)
        del slot.tokens[:]
        slot.shared, slot.exact = 0, None

    def spoil(self, slot: Slot) -> None:
        """Empty a slot whose cells hold NaN: `not_finite`, 3.

        Forgetting them leaves the numbers where they are, also in the state that a recurrent model
        begins with, which it multiplies by zero. So `take` gives none until they are cleared.
        """
        self.forget(slot)
        self._spoiled = True

    def _clear(self) -> bool:
        """Clear the cells, once no request is at work in them."""
        if any(slot.busy for slot in self.slots.all):
            return False
        self.wipe()
        return True

    def wipe(self) -> None:
        """Empty all slots and set the cells to zero; requests at work are computed again."""
        for slot in self.slots.all:
            self.forget(slot)
        self._context.clear()
        self._spoiled = False

    def _can_cut(self, slot: Slot, length: int) -> bool:
        return self._context.can_cut(slot.index, len(slot.tokens), length)

    def _can_copy(self, slot: Slot, length: int) -> bool:
        held = len(slot.tokens)
        if not self._context.unified and length * _COPIED_PART < held:
            return False
        return self._context.can_copy(slot.index, held, length)

    def _bring(self, choice: Choice) -> int:
        """Have the choice's prefix in its slot; returns its length."""
        source, slot = choice.source, choice.slot
        if source is None:
            return choice.reused
        if self._context.unified:
            self._context.share(source.index, slot.index)
            slot.shared = choice.reused
            source.shared = max(source.shared, choice.reused)
            return choice.reused
        try:
            copied = self._context.restore(slot.index, self._context.save(source.index))
        except MemoryError:
            copied = False  # it is computed instead
        return choice.reused if copied else 0

    def _keep(self, slot: Slot) -> None:
        """Save what a slot holds, before another takes it."""
        if not self.states.wants(slot.tokens, slot.adapters):
            return
        if self._context.state_bytes(slot.index) <= self.states.budget:
            # Without memory for it the conversation is lost, and no request is.
            with contextlib.suppress(MemoryError):
                self.states.add(self._save(slot))

    def _save(self, slot: Slot) -> SavedState:
        # Its own tokens: the slot's change with the slot.
        return SavedState(slot.tokens[:], self._context.save(slot.index), slot.adapters)

    def _restore(self, slot: Slot, saved: SavedState, length: int) -> int:
        self.forget(slot)
        while not self._context.restore(slot.index, saved.data):
            if not self._context.unified:
                self.states.drop(saved)
                return 0
            # The cells are short as in a decode; those at work keep theirs.
            if not self._let_go():
                return 0
        # A sliding window may have moved past what the prompt has in common with the state.
        return length if self._context.can_cut(slot.index, len(saved.tokens), length) else 0

    # ------------------------------------------------------------------ computing

    def shift(self, sequence: GGUFSequence) -> None:
        """Have a sequence that outgrew the context lose half of what follows its beginning.

        As llama.cpp's server does it, but that the beginning is up to a quarter of the context of
        the prompt, where instructions stand.
        """
        length, slot = self._context.length, sequence.slot
        kept = min(len(sequence.prompt), max(1, length // _KEPT_PART))
        gone = max(1, (length - kept) // 2)
        complete = sequence.todo == 1
        del sequence.tokens[kept : kept + gone]
        if complete and slot.shared <= kept + gone:
            self._context.shift(slot.index, kept, gone)
            del slot.tokens[kept : kept + gone]
            slot.exact = kept
            return
        # Others have some of the cells that would move: they are computed again.
        if len(slot.tokens) > kept:
            self._context.cut(slot.index, kept)
            del slot.tokens[kept:]
        slot.exact = None

    def compute(
        self,
        rows: Sequence[Row[GGUFSequence]],
        gaps: Sequence[int],
        active: Sequence[GGUFSequence],
        abort: Callable[[], bool] | None,
    ) -> list[tuple[Row[GGUFSequence], int]]:
        """Run rows through the model.

        Where cells are short, retained prefixes go first, then the newest request is paused.

        Returns:
            The rows that were computed, each with the index of its last token in the batch.

        Raises:
            Aborted: By `abort`; what is in the cells is known again.
        """
        while True:
            indices = self._fill(rows, gaps)
            try:
                self._context.decode(abort)
                break
            except NoRoom:
                if any(row.filling for row in rows):
                    rows = [replace(row, filling=0) for row in rows]
                    continue
                if _without_drafts(rows):
                    continue
                rows = self._make_room(rows, active)
                if not rows:
                    return []
            except Aborted:
                for row in rows:
                    self._settle(row.sequence.slot)
                raise
            except RuntimeError:
                # Other passes of the step may still fill the same slots, and from where they say.
                for slot in [
                    *(r.sequence.slot for r in rows),
                    *map(self.slots.all.__getitem__, gaps),
                ]:
                    self._settle(slot)
                raise
        for row in rows:
            # The draft's tokens are in the cells, and not in the slot before `accept`.
            sequence = row.sequence
            at = len(sequence.slot.tokens)
            sequence.slot.tokens.extend(sequence.tokens[at : at + row.count])
            if row.filling:
                self._context.cut(sequence.slot_index, at + row.count)
        for number in self._filled(gaps, rows):
            self._context.cut(number, len(self.slots.all[number].tokens))
        return list(zip(rows, indices, strict=True))

    def _fill(self, rows: Sequence[Row[GGUFSequence]], gaps: Sequence[int]) -> list[int]:
        """Put rows and gaps into the batch, in the order of their sequences' numbers.

        A row of a sequence with `at` cells is tokens[at : at + count] at positions at, at + 1, …;
        behind it come its draft, whose logits are wanted, or its filling, whose are not.

        Returns:
            Of each row, the index in the batch of its last token, the draft's included.
        """
        batch = self._context.batch
        batch.clear()
        indices: list[int] = []
        missing, width = self._filled(gaps, rows), _width(rows)
        for row in rows:
            sequence = row.sequence
            at = len(sequence.slot.tokens)
            part = sequence.tokens[at : at + row.count]
            # Filling rows repeat a token of those beside them: of any other the model may make
            # NaN, and a cell keeps it when it is free again.
            while missing and missing[0] < sequence.slot_index:
                number = missing.pop(0)
                start = len(self.slots.all[number].tokens)
                batch.add(number, part[-1:] * width, start, logits=False)
            last = row.count == sequence.todo
            drafts = last and bool(sequence.draft)
            if drafts:
                part.extend(sequence.draft)
            indices.append(batch.add(sequence.slot_index, part, at, logits=last, every=drafts))
            if row.filling:
                filling = part[-1:] * row.filling
                batch.add(sequence.slot_index, filling, at + row.count, logits=False)
        return indices

    def _filled(self, gaps: Sequence[int], rows: Sequence[Row[GGUFSequence]]) -> list[int]:
        """Those of the gaps with cells to spare for as many rows as the others have."""
        if not gaps:
            return []
        most = self._context.length - _width(rows)
        return [n for n in gaps if len(self.slots.all[n].tokens) <= most]

    def _make_room(
        self, rows: Sequence[Row[GGUFSequence]], active: Sequence[GGUFSequence]
    ) -> list[Row[GGUFSequence]]:
        """Free cells; returns the rows that are still to be computed."""
        if self._let_go():
            return list(rows)
        running = [s for s in active if not s.paused]
        if len(running) < 2:
            raise RuntimeError("the cells do not suffice for one sequence")
        newest = running[-1]
        newest.paused = True
        self.forget(newest.slot)
        return [row for row in rows if row.sequence is not newest]

    def _let_go(self) -> bool:
        """Free the cells of the retained prefix that was not used for the longest time, if any."""
        retained = self.slots.least_recent()
        if retained is None:
            return False
        self._keep(retained)
        self.forget(retained)
        return True

    def accept(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Keep the first tokens of a draft that was computed, and no others."""
        slot.tokens.extend(tokens)
        self._settle(slot)

    def _drop_inexact(self, slot: Slot) -> None:
        """Keep of a slot what a later prompt may use."""
        if slot.exact is not None and len(slot.tokens) > slot.exact:
            self._context.cut(slot.index, slot.exact)
            del slot.tokens[slot.exact :]
        slot.exact = None

    def _settle(self, slot: Slot) -> None:
        """Make the cells what the slot says: a pass was not finished, or a draft was wrong."""
        held = self._context.held(slot.index)
        if held == len(slot.tokens):
            return
        if self._context.can_cut(slot.index, held, len(slot.tokens)):
            self._context.cut(slot.index, len(slot.tokens))
        else:
            self.forget(slot)


def _width(rows: Sequence[Row[GGUFSequence]]) -> int:
    """How many rows each sequence that generates has in a pass: of streams all have as many."""
    return 1 + max((len(row.sequence.draft) for row in rows), default=0)


def _without_drafts(rows: Sequence[Row[GGUFSequence]]) -> bool:
    """Take the drafts out: no request gives way to what may be wrong. Whether there were any."""
    drafting = [row.sequence for row in rows if row.sequence.draft]
    for sequence in drafting:
        sequence.draft = ()
    return bool(drafting)
