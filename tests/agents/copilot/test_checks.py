"""A number in an answer is in the facts that its sentence cites, or the sentence is doubted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.copilot.checks import doubts, sentences
from agents.facts import fact

FACTS = {
    x.id: x
    for x in (
        fact("loss", 4.92735, "nats per token", 2),
        fact("loss", 5.80599, "nats per token", 1),
        fact("bytes_up_all", 1234567, "bytes", None),
        fact("lr", 1e-4, "per step", 2),
        fact("reported", 3, "clients", 2),
        *(fact("steps", n, "steps", n) for n in range(9)),
    )
}
NAMES = ("c1", "c17", "r1")

GOOD = [
    "The loss is 4.927 [loss@2].",
    "The loss is 4.9 now. [loss@2]",
    "It fell by 0.879 [loss@1, loss@2].",
    "It fell by −0.879 [loss@1, loss@2].",
    "In round 3 it was 4.92735 (loss@2).",
    "Client c17 and c1 are as in r1.",
    "1,234,570 bytes [bytes_up_all].",
    "1.23457e+06 bytes [bytes_up_all].",
    "The rate is 1e-4 [lr@2], or 0.0001 [lr@2].",
    "No number at all [see above].",
]
BAD = [
    "The loss is 4.927.",  # cites nothing
    "The loss is 4.928 [loss@2].",
    "The loss is 4.927 [loss@1].",
    "The loss is 4.927 [loss@9].",
    "The loss is 4.927. It is low [loss@2].",  # cited in another sentence
    "It fell by 18 percent [loss@1, loss@2].",
    "It is 7x faster [loss@2].",
    "It is x7 faster [loss@2].",
    "It takes 7ms [loss@2].",
    "It is 1E5 [loss@2].",
    "It is ７ [loss@2].",  # full width
    "It is ½ [loss@2].",
    "It is 10² [loss@2].",
    "It has 3,5 [reported@2].",
    "Client c18 is odd.",  # nobody is called so
    "1. The loss is low [loss@2].",
    "8 steps [steps@0, steps@1, steps@2, steps@3, steps@4, steps@5, steps@8].",  # too many cited
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_facts_say_is_let_through(text):
    assert doubts(text, FACTS, NAMES) == ()


@pytest.mark.parametrize("text", BAD)
def test_what_they_do_not_say_is_doubted(text):
    assert doubts(text, FACTS, NAMES)


def test_only_the_sentence_in_question_is_doubted():
    text = "The loss is 4.927 [loss@2]. There are 7 clients. [reported@2]\nAll is well."
    assert sentences(text)[1:] == ["There are 7 clients. [reported@2]", "All is well."]
    (doubt,) = doubts(text, FACTS, NAMES)
    assert doubt.sentence == "There are 7 clients. [reported@2]"


@given(st.floats(0.01, 1e6), st.integers(0, 5))
def test_every_other_number_is_doubted(number, places):
    written = f"{number:.{places}f}"
    near = any(float(f"{x:.{places}f}") == float(written) for x in (4.92735, 3.0))
    assert bool(doubts(f"It is {written} [loss@2].", FACTS, NAMES)) != near
