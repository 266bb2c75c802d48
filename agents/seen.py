"""What was seen when a round was decided, made again from the records before it.

The journal keeps an observation's hash and not the observation.  Light: nothing here imports torch,
so that whoever reads a run can look over the pilot's shoulder.
"""

from collections.abc import Mapping, Sequence

from agents.facts import Fact, Observation, observe
from agents.knobs import bounds_now, configured
from agents.resting import resting
from agents.rollback import narrowed, standing
from agents.selection import SelectionBounds
from agents.spec import PilotSpec
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.history import History, history_of
from federation.runs.journal import Entry
from federation.runs.records import AskedRecord, DecisionRecord, ResumeRecord, RoundRecord
from federation.runs.run import Run

Limits = Mapping[str, tuple[float, float]]


def seen(
    history: History,
    config: Config,
    spec: PilotSpec,
    outer: Limits,
    round: int,
    selection: SelectionBounds | None = None,
    told: dict[int, tuple[Fact, ...]] | None = None,
) -> Observation:
    """Say what is known before a round.

    Args:
        history: the records of the run; what came later than the round does not count.
        config: of the run.
        spec: its pilot.
        outer: outer limits of the open knobs.
        round: from 0.
        selection: how far the choice of clients goes; None: it is not the pilot's.
        told: facts of rounds that were made before, see :func:`agents.facts.observe`.
    """
    values = values_before(history, config, round)
    return observe(
        history,
        bounds_now(limits_before(history, config, outer, values), values, spec.trust),
        values,
        budget_before(history, spec, round),
        round=round,
        rounds=config.rounds + history.extra_rounds,
        seed=config.seed,
        smallest=spec.smallest,
        selection=selection,
        may_stop=may_stop(history, config, spec, round),
        resting=resting(history, round),
        told=told,
    )


def may_stop(history: History, config: Config, spec: PilotSpec, round: int) -> bool:
    """Tell whether the run may end after a round, which is not its last."""
    if spec.stop is None or history.extra_rounds:  # whoever asked for more is not overruled
        return False
    return 2 * spec.stop <= round + 1 < config.rounds


def seen_again(run: Run, round: int) -> Observation:
    """Make the observation of a round of a run again.

    Args:
        run: a fine-tuning run with a pilot.
        round: from 0; it was decided, and the rounds before it were played.

    Raises:
        ConfigError: if the run has no pilot, or its records do not reach so far.
    """
    config = Config.from_table(run.config, f"{run.path}/config.json")
    spec = PilotSpec.of_run(config)
    if spec is None:
        raise ConfigError(f"{run.path} has no pilot, so nobody was shown anything")
    then = history_of(before(run.entries, round))
    if any(n not in then.rounds or n not in then.decisions for n in range(round)):
        raise ConfigError(f"{run.path}: not every round before round {round + 1} is recorded")
    most = spec.bounds.get("cohort_size", (1.0, 1.0))[1]  # was checked when the run began
    bounds = selection_shown(run.history.decisions.get(round))
    return seen(then, config, spec, spec.outer(config, int(most)), round, bounds)


def selection_shown(decision: DecisionRecord | None) -> SelectionBounds | None:
    """Return how far the choice of clients went, as its record keeps it."""
    found = decision and decision.details.get("selection_bounds")
    return SelectionBounds.model_validate(found) if found else None


def before(entries: Sequence[Entry], round: int) -> Sequence[Entry]:
    """Return what a journal held when a round was decided for the last time, or asked about."""
    here = [i for i, x in enumerate(entries) if is_decision(x, round)]
    end = here[-1] if here else len(entries)
    for i in range(end - 1, -1, -1):
        record = entries[i].record
        if isinstance(record, RoundRecord | ResumeRecord):
            break
        if isinstance(record, AskedRecord) and record.round == round:
            end = i
    return entries[:end]


def is_decision(entry: Entry, round: int) -> bool:
    """Tell whether a line is the decision of a round."""
    return isinstance(entry.record, DecisionRecord) and entry.record.round == round


def values_before(history: History, config: Config, round: int) -> dict[str, float]:
    """Return every knob's value in the round before; in the last good one if that was undone.

    Before round 0 it is as configured.
    """
    last = standing(history, round - 1)
    before = None if last is None else history.decisions.get(last)
    return configured(config) | (applied(before) if before else {})


def limits_before(
    history: History, config: Config, outer: Limits, values: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return the outer limits of the open knobs, drawn in by what diverged."""
    first = configured(config)
    tried = {n: first | applied(decision) for n, decision in history.decisions.items()}
    drawn = narrowed(outer, history, tried, first)
    return {
        name: (min(least, values[name]), max(most, values[name]))
        for name, (least, most) in drawn.items()
    }


def budget_before(history: History, spec: PilotSpec, round: int) -> dict[str, float]:
    """Return what is left before a round of what is limited."""
    rounds = range(round)
    steps = sum(history.rounds[n].client_steps for n in rounds)
    traces = [asked_for(history.decisions[n]) for n in rounds]
    spent = {
        "client_steps": (spec.max_client_steps, steps),
        "calls": (spec.max_calls, sum(trace.get("attempts", 0) for trace in traces)),
        "tokens": (spec.max_tokens, sum(trace.get("tokens", 0) for trace in traces)),
    }
    limited = {name: (most, used) for name, (most, used) in spent.items() if most is not None}
    return {name: float(most - used) for name, (most, used) in limited.items()}


def asked_for(decision: DecisionRecord) -> dict[str, float]:
    """Return what a decision has cost in calls and tokens of a language model."""
    trace = decision.details.get("trace")
    if not isinstance(trace, dict):
        return {}
    return {k: float(v) for k, v in trace.items() if isinstance(v, int | float)}


def applied(decision: DecisionRecord) -> dict[str, float]:
    """Return the knobs' values that a decision applied."""
    values = decision.details.get("applied")
    return {k: float(str(v)) for k, v in values.items()} if isinstance(values, dict) else {}
