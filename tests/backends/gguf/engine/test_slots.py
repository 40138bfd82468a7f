"""Which slot a prompt gets, which states are kept, which rows go together: no library needed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.gguf.engine.cells.slots import MIN_COPIED_TOKENS, Slot, Slots
from hybridd.backends.gguf.engine.cells.state_cache import SavedState, StateCache
from hybridd.backends.gguf.engine.cells.step_plan import MAX_FILLING, MAX_GAP, MIN_FRAGMENT, compose


def always(_slot: Slot, _length: int) -> bool:
    return True


def only_whole(slot: Slot, length: int) -> bool:
    return length == len(slot.tokens)


def held(slots: Slots, index: int, tokens: list[int], *, busy: bool = False) -> None:
    slots.take(slots.all[index], tokens)
    if not busy:
        slots.release(slots.all[index])


def test_the_next_turn_gets_its_conversation_and_no_other() -> None:
    slots = Slots(3)
    held(slots, 0, [1, 2, 3, 4])
    held(slots, 1, [1, 2, 9, 9, 9])
    choice = slots.choose([1, 2, 3, 4, 5, 6], always)
    assert choice is not None
    assert (choice.slot.index, choice.reused, choice.source) == (0, 4, None)


def test_one_token_is_left_to_compute() -> None:
    slots = Slots(1)
    held(slots, 0, [1, 2, 3])
    choice = slots.choose([1, 2, 3], always)
    assert choice is not None
    assert choice.reused == 2


def test_a_short_beginning_in_common_does_not_cost_a_conversation() -> None:
    slots = Slots(2)
    system = list(range(MIN_COPIED_TOKENS))
    held(slots, 0, system + [7] * 200)
    choice = slots.choose([*system, 8, 8], always)
    assert choice is not None
    assert choice.slot.index == 1
    assert choice.source is slots.all[0]
    assert choice.reused == len(system)


def test_a_prefix_of_a_running_request_is_copied() -> None:
    slots = Slots(2)
    system = list(range(MIN_COPIED_TOKENS))
    held(slots, 0, [*system, 7, 7], busy=True)
    choice = slots.choose([*system, 8], always)
    assert choice is not None
    assert (choice.slot.index, choice.source, choice.reused) == (1, slots.all[0], len(system))


def test_of_a_context_that_was_shifted_only_its_beginning_is_copied() -> None:
    slots = Slots(2)
    system = list(range(MIN_COPIED_TOKENS))
    held(slots, 0, [*system, 7, 7, 7], busy=True)
    slots.all[0].exact = len(system)
    choice = slots.choose([*system, 7, 7, 7, 8], always)
    assert choice is not None
    assert (choice.source, choice.reused) == (slots.all[0], len(system))


def test_without_a_free_slot_there_is_none() -> None:
    slots = Slots(1)
    held(slots, 0, [1], busy=True)
    assert slots.choose([1, 2], always) is None


def test_the_least_recently_used_gives_way_and_is_worth_keeping() -> None:
    slots = Slots(2)
    held(slots, 0, [1] * 50)
    held(slots, 1, [2] * 50)
    held(slots, 0, [1] * 51)
    choice = slots.choose([3] * 50, always)
    assert choice is not None
    assert (choice.slot.index, choice.reused, choice.kept) == (1, 0, True)
    assert slots.least_recent() is slots.all[1]


def test_what_cannot_be_cut_is_used_as_a_whole_or_not_at_all() -> None:
    slots = Slots(1)
    held(slots, 0, [1, 2, 3, 4])
    whole = slots.choose([1, 2, 3, 4, 5], only_whole)
    part = slots.choose([1, 2, 3, 9, 5], only_whole)
    assert whole is not None
    assert part is not None
    assert (whole.reused, part.reused) == (4, 0)


def test_an_empty_slot_beside_a_busy_one_comes_first() -> None:
    slots = Slots(4)
    held(slots, 2, [1], busy=True)
    choice = slots.choose([5, 6], always)
    assert choice is not None
    assert choice.slot.index in (1, 3)


# ---------------------------------------------------------------- states


def state(tokens: list[int], size: int = 1000) -> SavedState:
    return SavedState(array("i", tokens), bytearray(size))


def test_states_stay_within_the_budget_and_the_oldest_go_first() -> None:
    states = StateCache(3000, whole=False)
    for first in range(5):
        states.add(state([first] * 40))
        assert states.size <= states.budget
    assert [s.tokens[0] for s in states.states] == [3, 4]


def test_a_state_that_was_used_stays_longer() -> None:
    states = StateCache(2400, whole=False)
    states.add(state([1] * 40))
    states.add(state([2] * 40))
    found = states.find([1] * 60, 0)
    assert found is not None
    assert found[1] == 40
    states.add(state([3] * 40))
    assert [s.tokens[0] for s in states.states] == [1, 3]


def test_a_longer_state_makes_its_beginning_needless() -> None:
    states = StateCache(10_000, whole=False)
    states.add(state([1] * 40))
    assert not states.wants(array("i", [1] * 39))
    states.add(state([1] * 80))
    assert len(states) == 1


def test_states_that_are_whole_are_not_used_in_part() -> None:
    states = StateCache(10_000, whole=True)
    states.add(state([1] * 40))
    assert states.find([1] * 39 + [2] * 10, 0) is None
    found = states.find([1] * 41, 0)
    assert found is not None
    assert found[1] == 40


def test_a_state_that_a_window_moved_in_is_used_as_a_whole() -> None:
    states = StateCache(10_000, whole=False, window=50)
    states.add(state([1] * 40))
    assert states.find([1] * 39 + [2] * 10, 0) is not None
    states.add(state([1] * 80))
    assert len(states) == 2, "the longer one does not serve as the shorter one"
    found = states.find([1] * 70 + [2] * 10, 0)
    assert found is not None
    assert found[1] == 40
    found = states.find([1] * 90, 0)
    assert found is not None
    assert found[1] == 80
    found = states.find([1] * 80, 0)
    assert found is not None
    assert found[1] == 79, "one token at least is computed"
    assert states.wants(array("i", [1] * 60))
    assert not states.wants(array("i", [1] * 80))


def test_without_a_budget_nothing_is_kept() -> None:
    states = StateCache(0, whole=False)
    assert not states.wants(array("i", [1] * 100))


# ---------------------------------------------------------------- passes


@dataclass
class Work:
    slot_index: int
    todo: int
    generating: bool
    adapters: AdapterChoice = NO_ADAPTERS
    draft: Sequence[int] = ()
    done: int = 0

    @property
    def length(self) -> int:
        return self.done + self.todo


WORKS = st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1, max_size=8).map(
    lambda made: [Work(i, 1 if gen else todo, gen) for i, (gen, todo) in enumerate(made)]
)


def test_drafts_take_rows_that_prompts_would_have() -> None:
    works = [Work(0, 1, True, draft=(1, 2, 3)), Work(1, 1, True, draft=(4,)), Work(2, 50, False)]
    (only,) = compose(works, 16, unified=True)
    assert [row.count for row in only.rows] == [1, 1, 16 - 4 - 2]


@given(WORKS, st.integers(8, 64), st.booleans(), st.sampled_from([0, 30, 100]))
def test_a_step_keeps_to_the_micro_batch_and_serves_everyone_who_generates(
    works: list[Work], micro_batch: int, unified: bool, fill_to: int
) -> None:
    passes = compose(works, micro_batch, unified=unified, fill_to=fill_to)
    rows = sorted(
        (row for each in passes for row in each.rows), key=lambda row: row.sequence.slot_index
    )
    assert sum(row.count for row in rows) <= micro_batch
    for each in passes:
        assert sum(row.count + row.filling for row in each.rows) <= micro_batch
        if not unified:
            assert len({row.count + row.filling for row in each.rows}) == 1
            numbers = [*(row.sequence.slot_index for row in each.rows), *each.gaps]
            together = max(numbers) - min(numbers) == len(numbers) - 1
            assert together or each.rows[0].sequence.generating
    assert all(row.count + row.filling <= fill_to for row in rows if row.filling)
    assert all(0 < row.count <= row.sequence.todo for row in rows)
    served = [row.sequence.slot_index for row in rows]
    assert len(served) == len(set(served))
    assert {w.slot_index for w in works if w.generating} <= set(served)
    if unified:
        assert len(passes) == 1
    # Prompts in the order they came: only the last may be incomplete, none is passed over.
    prompts = [row for row in rows if not row.sequence.generating]
    waiting = [w for w in works if not w.generating]
    assert [row.sequence for row in prompts] == waiting[: len(prompts)]
    assert all(row.count == row.sequence.todo for row in prompts[:-1])
    if len(prompts) < len(waiting):
        left = micro_batch - sum(row.count for row in rows)
        assert left == 0 or (prompts and not unified and left < MIN_FRAGMENT)


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [
        ([0, 1, 2], []),
        ([0, 2], [1]),
        ([0, 1 + MAX_GAP], list(range(1, 1 + MAX_GAP))),
        ([0, 2 + MAX_GAP], []),
        ([5, 1, 3], [2, 4]),
    ],
)
def test_small_gaps_between_streams_are_filled(numbers: list[int], gaps: list[int]) -> None:
    works = [Work(number, 1, True) for number in numbers]
    (only,) = compose(works, 16, unified=False, fill_to=64)
    assert only.gaps == gaps
    assert [row.sequence.slot_index for row in only.rows] == sorted(numbers)


def test_no_gap_is_filled_where_it_would_leave_a_trace() -> None:
    works = [Work(0, 1, True), Work(2, 1, True)]
    (only,) = compose(works, 16, unified=False)
    assert not only.gaps


Shape = list[list[tuple[int, int]]]


@pytest.mark.parametrize(
    ("todo", "expected"),
    [
        ([20, 20, 20], [[(20, 0), (20, 0), (20, 0)]]),
        ([20, 22, 19], [[(20, 2), (22, 0), (19, 3)]]),
        # To fill the first two would take more rows than a pass is worth.
        ([5, 21, 20], [[(5, 0)], [(21, 0), (20, 1)]]),
        ([20, 20 + MAX_FILLING], [[(20, MAX_FILLING), (20 + MAX_FILLING, 0)]]),
        ([20, 21 + MAX_FILLING], [[(20, 0)], [(21 + MAX_FILLING, 0)]]),
        # What a longer third costs the first two counts as well.
        ([20, 24, 29], [[(20, 4), (24, 0)], [(29, 0)]]),
    ],
)
def test_prompts_of_neighbours_go_together_where_filling_them_is_cheap(
    todo: list[int], expected: Shape
) -> None:
    works = [Work(i, count, False) for i, count in enumerate(todo)]
    passes = compose(works, 128, unified=False, fill_to=512)
    assert [[(row.count, row.filling) for row in each.rows] for each in passes] == expected


@pytest.mark.parametrize(
    ("works", "micro_batch", "fill_to"),
    [
        pytest.param([Work(0, 20, False), Work(2, 20, False)], 128, 512, id="no neighbours"),
        pytest.param([Work(0, 20, False), Work(1, 21, False)], 128, 0, id="it leaves a trace"),
        pytest.param([Work(0, 31, False), Work(1, 32, False)], 63, 512, id="the micro-batch"),
        pytest.param(
            [Work(0, 20, False, done=491), Work(1, 22, False)], 128, 512, id="the context's end"
        ),
    ],
)
def test_prompts_go_alone_where_they_cannot_be_filled(
    works: list[Work], micro_batch: int, fill_to: int
) -> None:
    passes = compose(works, micro_batch, unified=False, fill_to=fill_to)
    assert [[row.filling for row in each.rows] for each in passes] == [[0], [0]]


ONE: AdapterChoice = (("one", 1.0),)


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("in_force", [NO_ADAPTERS, ONE])
def test_no_pass_mixes_adapters_and_everyone_gets_on(
    unified: bool, in_force: AdapterChoice
) -> None:
    works = [
        Work(0, 1, True),
        Work(1, 1, True, ONE),
        Work(2, 1, True),
        Work(3, 9, False, ONE),
        Work(4, 9, False),
    ]
    passes = compose(works, 32, unified=unified, in_force=in_force)
    for each in passes:
        assert {row.sequence.adapters for row in each.rows} == {each.adapters}
    assert passes[0].adapters == in_force

    changes = sum(a.adapters != b.adapters for a, b in pairwise(passes))
    assert changes == 1
    assert sorted(row.sequence.slot_index for p in passes for row in p.rows) == [0, 1, 2, 3, 4]


def test_cells_of_other_adapters_are_no_prefix() -> None:
    slots = Slots(2)
    slots.take(slots.all[0], [1] * 50, ONE)
    slots.release(slots.all[0])
    without = slots.choose([1] * 50, always)
    alike = slots.choose([1] * 50, always, ONE)
    assert without is not None
    assert alike is not None
    assert (without.reused, without.source) == (0, None)
    assert (alike.slot.index, alike.reused) == (0, 49)


def test_states_of_other_adapters_are_not_found_and_not_replaced() -> None:
    states = StateCache(10_000, whole=False)
    states.add(SavedState(array("i", [1] * 40), bytearray(100), ONE))
    assert states.find([1] * 60, 0) is None
    assert states.wants(array("i", [1] * 40))
    states.add(state([1] * 80))
    assert len(states) == 2
    assert states.find([1] * 60, 0, ONE) is not None
