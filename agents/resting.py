"""When a language model is not asked: its server has failed again and again in the same way.

A server that refuses, hangs or knows no such key or model would cost every round a deadline.  After
:data:`PATIENCE` such failures in a row it is asked in the second round after the last one, then in
the fourth, the eighth, and so on up to every :data:`LONGEST`-th, until it answers or fails in
another way.  What a model itself spoils is no such failure: the next question is another one.

All of it follows from the decisions before a round, so that a resumed run rests as an undisturbed
one does.  The trials of a study's search are such rounds too.
"""

from collections.abc import Iterator, Mapping
from itertools import takewhile

from pydantic import JsonValue

from federation.runs.history import History
from llm_tools import OF_SERVER

PATIENCE = 4
LONGEST = 16


def resting(history: History, round: int) -> str:
    """Say why no language model is asked before a round; nothing if one may be.

    Args:
        history: the records of the run; those of a fork's parent do not count, which may have
            asked another model.
        round: from 0.
    """
    first = 0 if history.fork is None else history.fork.round + 1
    return rest({n: history.decisions[n].details.get("trace") for n in range(first, round)}, round)


def rest(traces: Mapping[int, JsonValue], round: int, unit: str = "round") -> str:
    """Say why no language model is asked; nothing if one may be.

    Args:
        traces: round, or trial, before this one -> what came of deciding it.
        round: this one, from 0.
        unit: what it is.
    """
    asked = questions(traces)
    last, how = next(asked, (round, ""))
    failures = 1 + sum(1 for _ in takewhile(lambda question: question[1] == how, asked))
    if how not in OF_SERVER or failures < PATIENCE:
        return ""
    until = last + min(2 ** (failures - PATIENCE + 1), LONGEST)
    if round >= until:
        return ""
    return f"rested after {failures} failures in a row ({how}), until {unit} {until + 1}"


def questions(traces: Mapping[int, JsonValue]) -> Iterator[tuple[int, str]]:
    """Yield the rounds in which a model was asked, newest first, and how it failed, if it did."""
    for n, trace in sorted(traces.items(), reverse=True):
        if isinstance(trace, dict) and "attempts" in trace:
            yield n, str(trace.get("failure", ""))
