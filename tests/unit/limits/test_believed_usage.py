"""An engine's count is charged as told, also above what was held, as long as it can be true."""

from __future__ import annotations

import pytest

from router.limits.estimate import believed
from router.model import Usage
from router.openai.cost import Cost

COST = Cost(300, 100)
GRANTED = 60
CONTEXT = 1000
ABSURD = 10**14


@pytest.mark.parametrize("context", [CONTEXT, None])
@pytest.mark.parametrize("told", [Usage(3, 4), Usage(300, 100), Usage(900, 90), Usage(12, 988)])
def test_what_fits_in_the_context_is_believed(told, context):
    assert believed(told, COST, GRANTED, context) is told


def test_the_prompts_of_many_turns_with_an_engines_own_tools_are_believed():
    told = Usage(9 * 950, 100)
    assert believed(told, COST, GRANTED, CONTEXT) is told


def test_answers_of_many_choices_are_believed():
    told = Usage(900, 50 * 900)
    assert believed(told, Cost(300, 100, choices=50), GRANTED, CONTEXT) is told


def test_the_prompts_of_many_documents_are_believed():
    told = Usage(50 * 900, 0)
    assert believed(told, Cost(300, 0, frames=50), GRANTED, CONTEXT) is told


@pytest.mark.parametrize("context", [CONTEXT, None])
@pytest.mark.parametrize(
    ("told", "charged"),
    [
        (Usage(ABSURD, 4), Usage(300, 4)),
        (Usage(3, ABSURD), Usage(3, GRANTED)),
        (Usage(ABSURD, ABSURD), Usage(300, GRANTED)),
    ],
)
def test_in_place_of_a_count_that_cannot_be_stands_what_was_held_for_it(told, charged, context):
    assert believed(told, COST, GRANTED, context) == charged
