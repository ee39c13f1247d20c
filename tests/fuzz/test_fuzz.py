"""A minute of broken inputs in each run of the suite; `make fuzz` goes on by the hour."""

import random
import time

import pytest
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS

# HDF5 loops for ever over some damaged files, which `make fuzz` ends and this cannot: the first
# few are known to come back.
N_INPUTS = {"runs": 10, "recordings": 50}
SECONDS = 60.0 / (len(TARGETS) - len(N_INPUTS))


@pytest.mark.parametrize("name", TARGETS)
def test_broken_inputs_raise_nothing_but_the_errors_that_are_promised(name):
    target, rng = TARGETS[name], random.Random(7)
    seeds, n_tried, end_s = target.seeds(), 0, time.monotonic() + SECONDS
    while n_tried < N_INPUTS[name] if name in N_INPUTS else time.monotonic() < end_s:
        target.try_one(mutated(seeds, rng))
        n_tried += 1
