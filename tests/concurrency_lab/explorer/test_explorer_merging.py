"""Equal states are stored once. That must change neither an outcome nor a number."""

import sys

import pytest
import random_programs
from explorer_programs import PROGRAMS

from concurrency_lab.explorer import ExplorationError, explore

LONG = {"semaphore_for_two", "uses_account", "inner_function"}


def compare(functions, setup, granularity="line", max_states=50_000, most=2500, **options):
    """The two explorations, after a comparison; None if the program is too large."""
    merged = explore(
        *functions, setup=setup, granularity=granularity, max_states=max_states, **options
    )
    if not merged.complete or merged.schedules > most:
        return None
    plain = explore(*functions, setup=setup, granularity=granularity, merge=False, **options)
    assert sorted(map(repr, merged.outcomes)) == sorted(map(repr, plain.outcomes))
    assert (merged.schedules, merged.failing) == (plain.schedules, plain.failing)
    assert merged.states <= plain.states
    return merged, plain


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - LONG))
def test_merging_keeps_every_outcome_and_number(name):
    functions, setup = PROGRAMS[name]
    assert compare(functions, setup) is not None, "make the program smaller"


@pytest.mark.parametrize(
    "name",
    [
        "returned_in_with", "sum_with_call", "comprehension", "loop_over_old", "passes_gate",
        "generator_by_hand", "conditional_argument", "chained_comparison", "recursion_hidden",
        "nonlocal_counter", "walrus", "uses_returned", "handed_over",
    ],
)  # fmt: skip
@pytest.mark.parametrize("granularity", ["bytecode", "interpreter"])
def test_merging_between_instructions(name, granularity):
    name = {"returned_in_with": "uses_returned_twice"}.get(name, name)
    functions, setup = PROGRAMS[name]
    compare(functions, setup, granularity, max_states=700, most=600)


def test_merging_saves_work():
    """The programs would prove nothing if nothing were merged."""
    functions, setup = PROGRAMS["rlock_in_part"]
    merged, plain = compare(functions, setup)
    assert merged.states < plain.states / 2


def test_random_programs():
    """A few hundred small programs; run this file with two seeds to try more."""
    compared = merged_states = all_states = 0
    for seed in range(120):
        functions, setup = random_programs.make(seed)
        try:
            both = compare(functions, setup, max_states=60, most=150, max_steps=60)
        except AssertionError as error:
            raise AssertionError(random_programs.source(seed)[0]) from error
        if both is not None:
            compared += 1
            merged_states += both[0].states
            all_states += both[1].states
    assert compared > 40
    assert merged_states < all_states / 2


def test_random_programs_are_the_same_for_the_same_seed():
    assert random_programs.source(3) == random_programs.source(3)
    assert len({random_programs.source(seed) for seed in range(20)}) == 20


def test_what_cannot_be_looked_into_turns_merging_off():
    functions, setup = PROGRAMS["generator_by_hand"]
    result = explore(*functions, setup=setup)
    assert result.complete
    assert result.limits == ("equal states were not merged: cannot look into a generator",)


def main(begin, end, granularity):
    seen = 0
    for seed in range(begin, end):
        functions, setup = random_programs.make(seed)
        try:
            seen += compare(functions, setup, granularity, 150, 400, max_steps=60) is not None
        except (AssertionError, ExplorationError) as error:
            print(f"seed {seed}: {error}")
    print(f"{seen} of {end - begin} compared")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:] or ["line"])
