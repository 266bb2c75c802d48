"""What happened in a round, in sentences whose every number is checked against the record.

What caused a change is called a hypothesis, unless a what-if in the journal has tested it.
Sentences on what-ifs tell no client's name, and no change of fewer clients than may be told of.
"""

import math
from collections.abc import Iterator, Mapping
from statistics import fmean

from agents.canary import told
from agents.claims import NUMBER, Claim, unsupported
from agents.facts import Fact, fact, facts_of_made_up, facts_of_round, facts_of_undoing
from agents.knobs import KNOBS
from agents.made_up import MadeUp, of_details
from federation.errors import ConfigError
from federation.kindred import spoilers
from federation.runs.records import (
    Canary,
    DecisionRecord,
    RollbackRecord,
    RoundRecord,
    WhatIfRecord,
)
from federation.runs.run import History
from federation.specs import lower_first

MOST_WORDS = 280  # characters of a reason that an explanation repeats

Explained = tuple[list[Claim], dict[str, Fact]]
"""Claims, and the facts they cite by id."""


def explained(history: History, round: int, smallest: int = 1) -> Explained:
    """Say by rule what happened in a round.

    Args:
        history: what the records of a run mean together.
        round: a committed round.
        smallest: figures over fewer clients are left out.

    Raises:
        ConfigError: if the round was not played.
    """
    if round not in history.rounds:
        last = history.last_round
        there = f"rounds 1 to {last + 1} were played" if last >= 0 else "no round was played yet"
        raise ConfigError(f"there is no round {round + 1} to explain: {there}")
    return of_record(history, history.rounds[round], history.decisions.get(round), smallest)


def of_record(
    history: History, record: RoundRecord, decision: DecisionRecord | None, smallest: int
) -> Explained:
    """Say by rule what happened in a round, whose record need not be committed yet."""
    before = history.rounds.get(record.round - 1)
    known = [(before, history.decisions.get(record.round - 1))] if before else []
    facts = {
        fact.id: fact
        for round, decided in [*known, (record, decision)]
        for fact in facts_of_round(
            round, decided, [x for x in history.evaluations if x.round == round.round], smallest
        )
    }
    if before:
        both = of_both(before, record)
        facts[both.id] = both
    facts |= {fact.id: fact for fact in facts_of_tests(history, record.round, smallest)}
    made_up = decision and of_details(decision.details)
    if decision and made_up:
        facts |= {fact.id: fact for fact in facts_of_made_up(decision, smallest)}
    for n in (record.round - 1, record.round):
        facts |= {fact.id: fact for fact in facts_of_undoing(history, n, smallest)}
    claims = list(of_made_up(facts, record.round, made_up))
    claims += of_undoing(facts, history.rollbacks.get(record.round))
    claims += claims_of(facts, record.round, decision, tests_of(history, record.round))
    claims += of_choice(history.decisions.get(record.round - 1), decision)
    wrong = [problem for claim in claims for problem in unsupported(claim, facts)]
    if wrong:
        raise AssertionError(f"an explanation states what the record does not say: {wrong}")
    return claims, facts


def of_both(before: RoundRecord, record: RoundRecord) -> Fact:
    """Count the clients of a round that trained in the round before as well."""
    return fact("of_both", len({*before.clients} & {*record.clients}), "clients", record.round)


Tests = dict[str, WhatIfRecord]
"""What was changed, such as ``drop`` or ``clip_steps`` -> the latest what-if of it."""


def tests_of(history: History, round: int) -> Tests:
    """Return the what-ifs that change a round first."""
    return {"_".join(sorted(x.change)): x for x in history.whatifs if x.round == round and x.change}


def facts_of_tests(history: History, round: int, smallest: int) -> Iterator[Fact]:
    """Yield what what-ifs of a round came to.

    Args:
        history: what the records of a run mean together.
        round: the round.
        smallest: figures that tell of fewer clients are left out.
    """
    for name, test in tests_of(history, round).items():
        changed = test.change.get("drop") or test.change.get("reweight")
        clients = len(changed) if isinstance(changed, list | dict) else 0
        ends = {
            f"whatif_{name}_was": fmean(test.was),
            f"whatif_{name}": fmean(test.would_be),
            f"whatif_{name}_low": test.effect.low,
            f"whatif_{name}_high": test.effect.high,
        }
        if changed and clients < smallest:
            continue
        for figure, value in ends.items():
            if value is not None and math.isfinite(value):
                yield fact(figure, value, "nats per token", round, clients)
    shares = [x for x in history.contributions if x.round == round]
    effects = [effect.mean for effect in shares[-1].effects.values()] if shares else []
    if effects and smallest <= 1 and all(map(math.isfinite, effects)):
        yield fact("contribution_least", min(effects), "nats per token", round, 1)
        yield fact("contribution_most", max(effects), "nats per token", round, 1)
    if shares and shares[-1].own and smallest <= 1:
        yield fact("spoilers", len(spoilers(shares[-1])), "clients", round, 1)


def claims_of(
    facts: Mapping[str, Fact], round: int, decision: DecisionRecord | None, tests: Tests
) -> Iterator[Claim]:
    """Yield what there is to say, the most telling first."""
    for name, words in (("loss", "training loss"), ("validation_loss", "validation loss")):
        yield from of_loss(facts, round, name, words)
    yield from of_start(facts, round)
    yield from of_clients(facts, round)
    yield from of_idle(facts, round)
    undone = {name for name in ("lr", "steps") if undoes(facts, round, name, tests)}
    yield from of_decision(facts, round, decision, undone)
    yield from of_canary(facts, round, decision and decision.canary)
    for name, test in tests.items():
        if name not in {UNDOES[knob] for knob in undone}:
            yield from of_test(facts, round, name, worded_change(test))
    yield from of_contributions(facts, round)


def of_idle(facts: Mapping[str, Fact], round: int) -> Iterator[Claim]:
    """Say that some reports held no work."""
    if idle := facts.get(f"idle@{round}"):
        text = f"Reports of {idle.value:.0f} clients held no work of their own: nothing, noise, or"
        yield Claim(kind="risk", text=f"{text} what the model did before.", cites=(idle.id,))


def of_made_up(facts: Mapping[str, Fact], round: int, found: MadeUp | None) -> Iterator[Claim]:
    """Say whether a run uses made-up rows, and what the gate measured."""
    names = ("made_up_rows", "made_up_clients", "gate_gain", "gate_low", "gate_high")
    rows, clients, *gate = (facts.get(f"{name}@{round}") for name in names)
    if found is None or rows is None or clients is None:
        return
    steps, known = facts.get(f"made_up_steps@{round}"), [end for end in gate if end]
    why = "a trial diverged"
    if known:
        why = f"their gain in trials was {known[0].value:.4f} nats per token of validation"
    if len(known) > 1:
        why += f", {known[1].value:.4f} to {known[2].value:.4f}"
    how = f" as a warm start of {steps.value:.0f} steps" if steps else ""
    verdict = f"{'' if found.admitted else 'not '}admitted by {found.source}{how}"
    what = f"{rows.value:.0f} rows were made up for {clients.value:.0f} clients"
    cites = (fact.id for fact in (rows, clients, steps, *known) if fact)
    yield Claim(kind="decision", text=f"{what}, and {verdict}: {why}.", cites=tuple(cites))


def of_undoing(facts: Mapping[str, Fact], back: RollbackRecord | None) -> Iterator[Claim]:
    """Say that a round was undone, why, and what holds again."""
    if back is None:
        return
    parts = (facts.get(f"{name}@{back.round}") for name in ("undone_loss", "undone_limit"))
    restored, (loss, limit) = facts[f"restored@{back.round}"], parts
    cites, why = [restored.id], worded(back.reason)
    if loss and limit and loss.value > limit.value:
        cites += [loss.id, limit.id]
        why = (
            f"its training loss of {loss.value:.4g} nats per token is above {limit.value:.4g}, the"
            " most that is allowed"
        )
    text = f"Round {back.round + 1} was undone: {why}. {holding(restored)} holds again."
    yield Claim(kind="risk", text=text, cites=tuple(cites))


def of_start(facts: Mapping[str, Fact], round: int) -> Iterator[Claim]:
    """Say from where a round began if the one before it was undone."""
    if restored := facts.get(f"restored@{round - 1}"):
        text = f"It began where {lower_first(holding(restored))} holds: round {round} was undone."
        yield Claim(kind="change", text=text, cites=(restored.id,))


def holding(restored: Fact) -> str:
    """Name the state that holds again."""
    if restored.value < 1:
        return "The state before the first round"
    return f"The state after round {restored.value:.0f}"


def of_loss(facts: Mapping[str, Fact], round: int, name: str, words: str) -> Iterator[Claim]:
    """Say how a loss moved."""
    now, before = facts.get(f"{name}@{round}"), facts.get(f"{name}@{round - 1}")
    if now is None:
        return
    text = f"Round {round + 1}: {words} {now.value:.3f} nats per token"
    if before is None:
        yield Claim(kind="change", text=text + ".", cites=(now.id,))
        return
    fall = before.value - now.value
    moved = f"{abs(fall):.3f} {'lower' if fall > 0 else 'higher'} than in the round before"
    same = abs(fall) < 0.0005
    others, who = of_others(facts, round) if name == "loss" else ("", ())
    yield Claim(
        kind="no_change" if same else "change",
        text=f"{text}, {'as in the round before' if same else moved}{others}.",
        cites=(now.id, before.id, *who),
    )


def of_others(facts: Mapping[str, Fact], round: int) -> tuple[str, tuple[str, ...]]:
    """Say who trained in only one of two rounds, if anybody did; and which facts say so."""
    names = (f"of_both@{round}", f"reported@{round}", f"reported@{round - 1}")
    both, now, then = (facts[name].value for name in names)
    if both == now == then:
        return "", ()
    who = f"clients in both: {both:.0f}, of {now:.0f} now and {then:.0f} then"
    return f"; {who if both else 'other clients trained then'}", names


def of_clients(facts: Mapping[str, Fact], round: int) -> Iterator[Claim]:
    """Say who did not report and who diverged."""
    asked, came = facts.get(f"cohort_size@{round}"), facts[f"reported@{round}"]
    if asked and came.value < asked.value:
        yield Claim(
            kind="risk",
            text=f"{asked.value - came.value:.0f} of {asked.value:.0f} clients did not report.",
            cites=(asked.id, came.id),
        )
    diverged = facts.get(f"diverged@{round}")
    if diverged and diverged.value > 0:
        yield Claim(
            kind="risk",
            text=f"{diverged.value:.0f} clients diverged; their updates were not used.",
            cites=(diverged.id,),
        )


def of_decision(
    facts: Mapping[str, Fact], round: int, decision: DecisionRecord | None, undone: set[str]
) -> Iterator[Claim]:
    """Say what was turned, by whom, and what it may have done."""
    for name, knob in KNOBS.items():
        now, before = facts.get(f"{name}@{round}"), facts.get(f"{name}@{round - 1}")
        if not now or not before or now.value == before.value or decision is None:
            continue
        yield Claim(
            kind="decision",
            text=f"{knob.meaning.capitalize()}: {before.value:.4g} to {now.value:.4g}, decided by"
            f" {decision.source}: {worded(decision.reason)}.",
            cites=(now.id, before.id),
        )
        if f"restored@{round - 1}" in facts:
            continue  # the loss moved because a round was undone, whatever was turned
        if name in undone:
            words = f"with the {knob.meaning} as in the round before"
            yield from of_test(facts, round, UNDOES[name], words)
        else:
            yield from of_effect(facts, round, knob.meaning, now.id)


def of_canary(facts: Mapping[str, Fact], round: int, canary: Canary | None) -> Iterator[Claim]:
    """Say what some clients tried before the round was decided, and what came of it."""
    if canary is not None:
        text, cites = told(canary, round, facts)
        yield Claim(kind="decision" if canary.accepted else "risk", text=text, cites=cites)


def of_choice(before: DecisionRecord | None, decision: DecisionRecord | None) -> Iterator[Claim]:
    """Say that clients are chosen in another way, or that a round was decided to be the last."""
    if decision is None:
        return
    cites = (f"cohort_size@{decision.round}",)
    who = f"decided by {decision.source}: {worded(decision.reason)}."
    then, now = (
        table if record and isinstance(table := record.details.get("selection"), dict) else {}
        for record in (before, decision)
    )
    if then and now and then["rule"] != now["rule"]:
        text = f"Clients: chosen by {now['rule']} instead of {then['rule']}, {who}"
        yield Claim(kind="decision", text=text, cites=cites)
    if then and now and then["exclude"] != now["exclude"]:
        text = f"Clients: others than before are excluded, {who}"
        yield Claim(kind="decision", text=text, cites=cites)
    if decision.last:
        yield Claim(kind="decision", text=f"The run ends after this round, {who}", cites=cites)


def of_effect(facts: Mapping[str, Fact], round: int, meaning: str, cited: str) -> Iterator[Claim]:
    """Name a change that came together with a turn; whether it is the cause was not tested."""
    now, before = facts.get(f"loss@{round}"), facts.get(f"loss@{round - 1}")
    if now and before:
        way = "fell" if now.value < before.value else "rose"
        yield Claim(
            kind="hypothesis",
            text=f"Hypothesis, not tested: the training loss {way} because of the new {meaning}.",
            cites=(now.id, before.id, cited),
        )


UNDOES = {"lr": "scale_lr", "steps": "steps"}
"""Knob -> the change of a what-if that can turn it back."""


def undoes(facts: Mapping[str, Fact], round: int, knob: str, tests: Tests) -> bool:
    """Tell whether a what-if of a round turned a knob back to where it was in the round before."""
    now, before = facts.get(f"{knob}@{round}"), facts.get(f"{knob}@{round - 1}")
    test = tests.get(UNDOES[knob])
    if not (now and before and test) or test.rounds > 1 or now.value == before.value:
        return False
    value = float(str(test.change[UNDOES[knob]]))
    turned = value * now.value if knob == "lr" else value
    return math.isclose(turned, before.value, rel_tol=1e-3)


def of_test(facts: Mapping[str, Fact], round: int, name: str, words: str) -> Iterator[Claim]:
    """Say what a what-if found, if it may be told; an interval around zero shows no effect."""
    parts = ("_was", "", "_low", "_high")
    was, would_be, low, high = (facts.get(f"whatif_{name}{part}@{round}") for part in parts)
    if was is None or would_be is None:
        return
    cites = [was.id, would_be.id]
    text = (
        f"Tested: {words}, the test loss would have been {would_be.value:.4f} instead of"
        f" {was.value:.4f} nats per token"
    )
    if low and high:
        cites += [low.id, high.id]
        text += f", a difference between {low.value:.4f} and {high.value:.4f}"
        text += "" if low.value > 0 or high.value < 0 else ": no effect is shown"
    yield Claim(kind="tested", text=f"{text}.", cites=tuple(cites))


def worded_change(test: WhatIfRecord) -> str:
    """Say what was otherwise in a what-if, without a client's name."""
    words = {
        "drop": "without some of the clients",
        "reweight": "with other weights of the clients",
        "algorithm": f"with {str(test.change.get('algorithm')).partition(':')[0]} as algorithm",
        "clip": "with updates clipped",
        "scale_lr": "with another client learning rate",
        "steps": "with other steps of the clients",
    }
    often = " for some rounds" if test.rounds > 1 else ""
    return " and ".join(words[name] for name in test.change) + often


def of_contributions(facts: Mapping[str, Fact], round: int) -> Iterator[Claim]:
    """Say how much the model would have changed without a client."""
    least, most = (facts.get(f"contribution_{end}@{round}") for end in ("least", "most"))
    if least and most:
        yield Claim(
            kind="tested",
            text="Tested: without one client or another, the test loss would have changed by"
            f" {least.value:.4f} to {most.value:.4f}.",
            cites=(least.id, most.id),
        )
    bad = facts.get(f"spoilers@{round}")
    if bad and bad.value > 0:
        yield Claim(
            kind="risk",
            text=f"Tested: reports of {bad.value:.0f} clients spoil others' rows like their own,"
            " far beyond those of the rest.",
            cites=(bad.id,),
        )


def worded(reason: str) -> str:
    """Keep a reason's words and leave out its numbers, which belong to no fact of this round."""
    return NUMBER.sub("some", reason)[:MOST_WORDS] or "no reason given"
