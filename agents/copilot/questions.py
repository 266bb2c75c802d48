"""Questions in plain words that rules answer: how did it go, which client is worst, what next.

An answer is a few calls of tools that read, and sentences made of the run's records for the person
alone.  What is no such question is told which there are.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

from pydantic import JsonValue

from agents.copilot.ground import Ground
from agents.copilot.names import printable
from federation.runs.records import EvaluationRecord

EXAMPLES = "how did it go?  what happened in round 2?  which client is worst?  what can I do next?"
UNIT = "nats per token, lower is better"
SHOWN = 3  # clients that are named
DIGITS = 9  # of a number that may be a round

GREETS = {"hi", "hello", "hey", "good", "morning", "thanks", "thank", "you"}
CLIENTS = {"client", "clients", "who", "whom", "whose", "organisation", "organisations"}
NEXT = {"next", "now", "improve", "should", "can", "advice", "suggest", "recommend"}
COURSE = {"how", "why", "what", "happened", "went", "result", "results", "status", "summary"}
COURSE |= {"round", "loss", "learnt", "learned", "better", "worse", "done", "progress"}


@dataclass(frozen=True)
class Reply:
    """What rules make of a question.

    Attributes:
        calls: of tools that read.
        text: what is said after what they return.
    """

    calls: tuple[tuple[str, dict[str, JsonValue]], ...] = ()
    text: str = ""


def reply(text: str, ground: Ground) -> Reply | None:
    """Answer a question in plain words; None if it is none that rules understand."""
    plain = ground.names.hidden(text)  # a client may be called by its name
    words = set(re.findall(r"[a-z0-9]+", plain.lower()))
    named = [name for name in ground.names.clients if name in words]
    answer = next((answer for asked, answer in TOPICS if asked(words, named)), None)
    return answer(ground, words, named) if answer else None


Words = set[str]
Topic = Callable[[Ground, Words, list[str]], Reply]


def greeted(ground: Ground, words: Words, named: list[str]) -> Reply:
    """Greet, and say what can be asked."""
    run = ground.run
    there = f"{run.path} is {run.status}, {len(run.rounds)} of {run.rounds_planned} rounds played."
    return Reply(text=f"Hello. {there} Ask, for example: {EXAMPLES}  Or write help.")


def of_clients(ground: Ground, words: Words, named: list[str]) -> Reply:
    """Say how clients fare with the run's model, and how to find out why."""
    lines = list(standings(ground, named, best="best" in words))
    history = ground.run.history
    if history.rounds:
        last = history.last_round + 1
        reported = ground.names.pseudonyms(history.rounds[last - 1].clients)
        one = next((name for name in (*named, *reported) if name in reported), "c1")
        lines += [
            f"What each client gave to round {last}, and who spoils it:"
            f" fedpilot whatif {ground.run.path} --round {last} --contributions",
            f"A round without one of them, here: whatif {last} drop={one}",
        ]
    return Reply(text="\n".join(lines))


def standings(ground: Ground, named: list[str], *, best: bool) -> Iterator[str]:
    """Yield the loss on their own tests of the clients that are named, or of the worst or best."""
    found = [x for x in ground.run.evaluations if x.split == "clients" and by_client(x)]
    after = [x for x in found if x.round is not None]
    before = next((by_client(x) for x in found if x.subject == "base"), {})
    if not after:
        yield "No model was judged on clients' own tests yet."
        return
    loss, round = by_client(after[-1]), (after[-1].round or 0) + 1
    names = {name: pseudonym for pseudonym, name in ground.names.clients.items()}
    worst = sorted(loss, key=loss.__getitem__, reverse=True)
    asked = [name for name in worst if names.get(name) in named]
    asked = asked or (worst[::-1] if best else worst)[:SHOWN]
    yield (
        f"Loss on clients' own tests after round {round} ({UNIT}): {fmean(loss.values()):.3f} in"
        f" the mean of {len(loss)}."
    )
    for name in asked:
        was = f", {before[name]:.3f} before the first round" if name in before else ""
        called = f"{names[name]} is {printable(name)}" if name in names else printable(name)
        place = worst.index(name) + 1
        yield f"  {called}: {loss[name]:.3f}{was}; number {place} of {len(worst)}, worst first"
    for name in named:
        if ground.names.clients[name] not in loss:
            yield f"  {name} is {printable(ground.names.clients[name])}: not judged"


def by_client(record: EvaluationRecord) -> dict[str, float]:
    """Return the loss of each client."""
    return record.per_client.get("nll", {})


def what_next(ground: Ground, words: Words, named: list[str]) -> Reply:
    """Say what can be done with a run."""
    path, last = ground.run.path, ground.run.history.last_round + 1
    lower = f"lr={ground.values['lr'] / 2:g}"
    lines = [f"see what it came to:      fedpilot show {path}"]
    if last:
        lines += [
            f"play a round otherwise:   whatif {last} scale_lr=0.5",
            f"propose other settings:   propose {lower}",
            f"run with other settings:  run {lower}",
            f"go on from a round:       fedpilot fork {path} --round {last} --rounds 5 --out NEW",
            f"use the model:            fedpilot export {path} --to FOLDER",
        ]
    return Reply(text="\n".join(lines))


def course(ground: Ground, words: Words, named: list[str]) -> Reply:
    """Explain the round that is asked for, or the last one and the way there."""
    last = ground.run.history.last_round + 1
    if not last:
        return Reply(text=f"No round was played yet; the run is {ground.run.status}.")
    digits = [word for word in words if word.isdecimal()]
    if any(len(word) > DIGITS for word in digits):
        return Reply(text=f"There is no such round; {last} were played.")
    if numbers := [int(word) for word in digits]:
        return Reply((("explain_round", {"round": min(numbers)}),))
    way = f"All of it: fedpilot show {ground.run.path}; every round: explain 1 to explain {last}"
    losses = [
        (x.round + 1, x.metrics["nll"])
        for x in ground.run.evaluations
        if x.split == "validation" and x.round is not None and "nll" in x.metrics
    ]
    if len(losses) > 1:
        (first, high), (newest, low) = losses[0], losses[-1]
        way = (
            f"Validation loss: {high:.3f} after round {first}, {low:.3f} after round {newest}"
            f" ({UNIT}).\n{way}"
        )
    status = f"{ground.run.status}, {last} of {ground.run.rounds_planned} rounds played"
    return Reply((("explain_round", {"round": last}),), f"The run is {status}.\n{way}")


TOPICS: tuple[tuple[Callable[[Words, list[str]], bool], Topic], ...] = (
    (lambda words, named: words <= GREETS, greeted),
    (lambda words, named: bool(named or words & CLIENTS), of_clients),
    (lambda words, named: bool(words & NEXT), what_next),
    (lambda words, named: bool(words & COURSE), course),
)
