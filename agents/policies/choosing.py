"""Rules for what a search over knobs leaves open: who is asked, and whether to go on.

Each takes a policy and adds its own decision to that policy's answer, so a search in charge of the
knobs has its clients chosen by rule, and a model that overrules it decides both.
"""

import math
from dataclasses import dataclass
from statistics import fmean

from agents.facts import Observation
from agents.proposals import Answer, Policy, Proposal
from agents.selection import Rule, Selection, SelectionBounds


@dataclass(frozen=True)
class Choosing:
    """Asks clients evenly until there is evidence for something else.

    Nobody is excluded but who diverged, or sent back no work of its own, ``lost`` times.  Where
    clients' losses differ by more than ``apart`` of their mean, those with the largest are asked
    (power-of-choice); where clients also fail to report, Oort is, which weighs their time.  When
    losses are close together again the choice becomes even again.

    Attributes:
        policy: decides the rest.
        looks: rounds that have to agree.
        apart: spread of clients' losses, relative to their mean, from which on they differ.
        close: spread below which they do not.
        lost: times that a client must have diverged, or been idle, to be excluded.
    """

    policy: Policy
    looks: int = 3
    apart: float = 0.15
    close: float = 0.05
    lost: int = 2

    @property
    def name(self) -> str:
        """Name and version, behind the policy's."""
        return f"{self.policy.name}+choosing@1"

    def decide(self, observation: Observation) -> Answer:
        """Add a choice to the policy's answer, if there is evidence for a change."""
        answer, bounds = self.policy.decide(observation), observation.selection
        if answer.proposal is None or bounds is None:
            return answer
        rule, cited, why = self.rule(observation, bounds)
        exclude, known = self.excluded(observation, bounds)
        chosen = bounds.current.model_copy(update={"rule": rule, "exclude": exclude})
        if chosen == bounds.current:
            return answer
        reasons = [why] if rule != bounds.current.rule else []
        if exclude != bounds.current.exclude:
            reasons.append("clients that keep diverging, or do no work, are not asked")
        return joined(answer, "; ".join(reasons), (*cited, *known), selection=chosen)

    def rule(
        self, observation: Observation, bounds: SelectionBounds
    ) -> tuple[Rule, tuple[str, ...], str]:
        """Return the rule to follow, the facts it rests on, and why."""
        now = bounds.current.rule
        spread, loss = observation.series("loss_spread"), observation.series("loss")
        last = [n for n in spread if loss.get(n, 0.0) > 0][-self.looks :]
        everybody = observation.values["cohort_size"] >= bounds.population
        if len(last) < self.looks or last[-1] != observation.round - 1 or everybody:
            return now, (), ""
        shares = [spread[n] / loss[n] for n in last]
        cited = (f"loss_spread@{last[-1]}", f"loss@{last[-1]}")
        if max(shares) < self.close and now != "uniform" and "uniform" in bounds.rules:
            return "uniform", cited, "clients' losses are close together"
        if min(shares) < self.apart or now not in ("uniform", "round_robin"):
            return now, (), ""
        asked, came = observation.series("cohort_size"), observation.series("reported")
        late = [n for n in last if came[n] < asked.get(n, 0.0)]
        if len(late) >= 2 and "oort" in bounds.rules:
            return "oort", (*cited, f"reported@{late[-1]}"), "clients differ, and some are late"
        if "power_of_choice" in bounds.rules:
            return "power_of_choice", cited, "clients' losses are far apart"
        return now, (), ""

    def excluded(
        self, observation: Observation, bounds: SelectionBounds
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return whom not to ask, those before included, and the facts about who is new."""
        before = bounds.current.exclude
        most = min(bounds.most_excluded, bounds.population - int(observation.values["cohort_size"]))
        found = {
            fact.name.partition("_")[2]: fact.id
            for fact in observation.facts
            if fact.name.startswith(("diverged_", "idle_")) and fact.value >= self.lost
        }
        new = [client for client in found if client not in before][: max(most - len(before), 0)]
        return (*before, *new), tuple(found[client] for client in new)


@dataclass(frozen=True)
class Stopping:
    """Ends a run that has stopped to improve: ``patience`` rounds no better than those before.

    No better means that their mean loss is not lower by more than twice its standard error.  The
    noise of a round is told apart from the trend by second differences, whose variance is six times
    that of the noise.

    Attributes:
        policy: decides the rest.
        patience: rounds, or evaluations where there is a validation loss after each.
    """

    policy: Policy
    patience: int

    @property
    def name(self) -> str:
        """Name and version, behind the policy's."""
        return f"{self.policy.name}+stopping@1"

    def decide(self, observation: Observation) -> Answer:
        """Add the end of the run to the policy's answer, if it is time."""
        answer = self.policy.decide(observation)
        if answer.proposal is None or not observation.may_stop:
            return answer
        for metric in ("validation_loss", "loss"):
            series = observation.series(metric)
            if len(series) >= 2 * self.patience:
                if not improves(list(series.values()), self.patience):
                    why = f"no gain beyond noise in {self.patience} rounds"
                    return joined(answer, why, (f"{metric}@{max(series)}",), action="stop")
                break
        return answer


def improves(values: list[float], patience: int) -> bool:
    """Tell whether the mean of the last values is lower than that of as many before, beyond noise.

    Args:
        values: losses, oldest first, ``2 * patience`` of them at least.
        patience: how many are averaged.
    """
    bends = [a - 2 * b + c for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    noise = math.sqrt(fmean(x * x for x in bends) / 6) if bends else 0.0
    gain = fmean(values[-2 * patience : -patience]) - fmean(values[-patience:])
    return gain > 2 * noise * math.sqrt(2 / patience)


def joined(answer: Answer, why: str, cited: tuple[str, ...], **decided: Selection | str) -> Answer:
    """Add a decision, and what it rests on, to an answer."""
    proposal = answer.proposal or Proposal()
    reasons = [why] if proposal.abstains else [proposal.rationale, why]
    more = {
        "evidence": tuple(dict.fromkeys((*proposal.evidence, *cited))),
        "rationale": "; ".join(reasons)[:400],
        **decided,
    }
    return answer.model_copy(update={"proposal": proposal.model_copy(update=more)})
