"""A few broken inputs of every kind in each run of the suite; `make fuzz` goes on by the hour."""

import random

import pytest
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS

# Files of a run are written, checked and mended for each input.
N_INPUTS = {"runs": 10, "recordings": 50}


@pytest.mark.parametrize("name", TARGETS)
def test_broken_inputs_raise_nothing_but_the_errors_that_are_promised(name):
    target, rng = TARGETS[name], random.Random(7)
    seeds = target.seeds()
    for _ in range(N_INPUTS.get(name, 400)):
        target.try_one(mutated(seeds, rng))
