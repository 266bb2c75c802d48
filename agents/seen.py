"""What was seen when a round was decided, made again from the records before it.

The journal keeps an observation's hash and not the observation.  Light: nothing here imports torch,
so that whoever reads a run can look over the pilot's shoulder.
"""

from collections.abc import Mapping, Sequence

from agents.facts import Observation, observe
from agents.knobs import bounds_now, configured
from agents.spec import PilotSpec
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.history import History, history_of
from federation.runs.journal import Entry
from federation.runs.records import AskedRecord, DecisionRecord, ResumeRecord, RoundRecord
from federation.runs.run import Run

Limits = Mapping[str, tuple[float, float]]


def seen(
    history: History, config: Config, spec: PilotSpec, outer: Limits, round: int
) -> Observation:
    """Say what is known before a round.

    Args:
        history: the records of the run; what came later than the round does not count.
        config: of the run.
        spec: its pilot.
        outer: outer limits of the open knobs.
        round: from 0.
    """
    values = values_before(history, config, round)
    return observe(
        history,
        bounds_now(outer, values, spec.trust),
        values,
        budget_before(history, spec, round),
        round=round,
        rounds=config.rounds + history.extra_rounds,
        seed=config.seed,
        smallest=spec.smallest,
    )


def seen_again(run: Run, round: int) -> Observation:
    """Make the observation of a round of a run again.

    Args:
        run: a fine-tuning run with a pilot.
        round: from 0; it was decided, and the rounds before it were played.

    Raises:
        ConfigError: if the run has no pilot, or its records do not reach so far.
    """
    config = Config.from_table(run.config, f"{run.path}/config.json")
    spec = PilotSpec.of(config)
    if spec is None:
        raise ConfigError(f"{run.path} has no pilot, so nobody was shown anything")
    then = history_of(before(run.entries, round))
    if any(n not in then.rounds or n not in then.decisions for n in range(round)):
        raise ConfigError(f"{run.path}: not every round before round {round + 1} is recorded")
    most = spec.bounds.get("cohort_size", (1.0, 1.0))[1]  # was checked when the run began
    return seen(then, config, spec, spec.outer(config, int(most)), round)


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
    """Return every knob's value in the round before, as configured before round 0."""
    before = history.decisions.get(round - 1)
    return configured(config) | (applied(before) if before else {})


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
