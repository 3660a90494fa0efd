"""The fuzz targets over their kept corpus and some thousand seeded mutations of it; the long run is `make fuzz`."""

import random

import pytest
from tests.fuzz.__main__ import NAMES
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import INPUT_BYTES_MAX, TARGETS, corpus

SEED = 6
MUTATIONS = 3000


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_holds(name):
    """Every kept input, among them everything that ever was a finding, is still taken or refused as it must be."""
    inputs = corpus(name)
    assert inputs
    for data in inputs:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_corpus_hold(name):
    """Thousands of changed inputs, the same in every run, find nothing."""
    chance, inputs = random.Random(SEED), corpus(name)
    for number in range(MUTATIONS):
        data = mutated(chance, inputs, INPUT_BYTES_MAX)
        try:
            TARGETS[name](data)
        except Exception as fault:
            fault.add_note(f"input {number} of seed {SEED}: {data!r}")
            raise


def test_every_target_is_run_by_the_command():
    """The command line, which may not import the targets, names all of them."""
    assert list(TARGETS) == list(NAMES)
