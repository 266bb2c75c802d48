"""Tools that read: facts of rounds, explanations, comparisons.  Free, and deaf to what they read.

Rounds are counted from 1 in arguments and texts, as people do, and from 0 in ids of facts.  The
test set judges and never steers: its figures are for people, in ``fedpilot show``.
"""

from collections.abc import Iterator

from pydantic import BaseModel, Field

from agents.copilot.ground import ARGS, Found, Ground, Tool, Unusable
from agents.explain import explained
from agents.facts import UNITS, Fact, fact, facts_of_round
from agents.knobs import configured
from agents.spec import PilotSpec
from federation.config import Config
from federation.runs.run import History, Run


class FactsArgs(BaseModel):
    """Which facts."""

    model_config = ARGS

    round: int = Field(default=0, ge=0, description="round, from 1; 0: the last one played")
    before: int = Field(default=2, ge=0, le=20, description="rounds before it that are told too")


class RoundArgs(BaseModel):
    """Which round."""

    model_config = ARGS

    round: int = Field(ge=1, description="round, from 1")


class CompareArgs(BaseModel):
    """Which other run."""

    model_config = ARGS

    run: str = Field(
        default="", max_length=200, description="r1, r2, ...; empty: list the runs there are"
    )


def get_facts(ground: Ground, args: FactsArgs) -> Found:
    """Tell what is known of some rounds and of the run."""
    history, smallest = ground.run.history, ground.spec.smallest
    last = args.round - 1 if args.round else history.last_round
    facts = list(of_run(history, ground.config))
    if last < 0:
        return Found(tuple(facts), "No round was played yet.")
    there(history, last)
    rounds = range(max(0, last - args.before), last + 1)
    for n in rounds:
        after = [x for x in history.evaluations if x.round == n]
        facts += facts_of_round(history.rounds[n], history.decisions.get(n), after, smallest)
    text = "\n".join(cohort(ground, n) for n in rounds)
    return Found(tuple(facts), f"{text}\nStatus of the run: {ground.run.status}.")


def there(history: History, round: int) -> None:
    """Insist on a round that was played.

    Raises:
        Unusable: saying which there are.
    """
    if round not in history.rounds:
        last = history.last_round
        there = f"rounds 1 to {last + 1} were played" if last >= 0 else "no round was played yet"
        raise Unusable(f"there is no round {round + 1}: {there}")


def cohort(ground: Ground, round: int) -> str:
    """Say who was asked and who did not report, by pseudonym."""
    record, decision = ground.run.history.rounds[round], ground.run.history.decisions.get(round)
    lost = tuple(record.missing)
    asked = decision.clients if decision else (*record.clients, *lost)
    names = ", ".join(ground.names.pseudonyms(asked)) or "nobody"
    missing = f"; did not report: {', '.join(ground.names.pseudonyms(lost))}" if lost else ""
    return f"Round {round + 1} asked {names}{missing}."


def of_run(history: History, config: Config) -> Iterator[Fact]:
    """Yield what is known of a run as a whole."""
    rounds = history.rounds.values()
    yield fact("rounds_played", len(rounds), "rounds", None)
    yield fact("rounds_planned", config.rounds, "rounds", None)
    yield fact("client_steps", sum(x.client_steps for x in rounds), "client-steps", None)
    yield fact("bytes_up_all", sum(x.bytes_up for x in rounds), "bytes", None)


def explain_round(ground: Ground, args: RoundArgs) -> Found:
    """Tell in checked sentences what happened in a round."""
    there(ground.run.history, args.round - 1)
    claims, facts = explained(ground.run.history, args.round - 1, ground.spec.smallest)
    cited = [name for claim in claims for name in claim.cites]
    lines = [f"{claim.text} [{', '.join(claim.cites)}]" for claim in claims]
    return Found(tuple(facts[name] for name in dict.fromkeys(cited)), "\n".join(lines))


def compare_runs(ground: Ground, args: CompareArgs) -> Found:
    """Put this run beside another, or list what there is."""
    if not args.run:
        names = [f"{name} is {path.name}" for name, path in ground.names.runs.items()]
        there = ", ".join(ground.names.runs) or "none"
        return Found(text=f"Other runs beside this one: {there}.", note="\n".join(names))
    name = ground.names.hidden(args.run)
    if name not in ground.names.runs:
        there = ", ".join(ground.names.runs) or "none"
        raise Unusable(f"there is no such run beside this one; there are: {there}")
    other = Run.open(ground.names.runs[name])
    config = Config.from_table(other.config, f"{other.path}/config.json")
    smallest = max(ground.spec.smallest, (PilotSpec.of_run(config) or PilotSpec()).smallest)
    own = end_of(ground.run.history, ground.config, smallest)
    others = end_of(other.history, config, smallest)
    facts = [*own.values(), *(named(fact, name) for fact in others.values())]
    lacking = [x for x in ("validation_loss", "loss") if not (x in own and x in others)]
    words = [f"{name}_... are facts of {name}, the others of this run; each at its end."]
    words += [f"Not known of both: {x}." for x in lacking]
    return Found(tuple(facts), " ".join(words), f"{name} is {other.path}")


def end_of(history: History, config: Config, smallest: int) -> dict[str, Fact]:
    """Return by name what a run came to in the end, and with what."""
    found = {fact.name: fact for fact in of_run(history, config)}
    for name, value in configured(config).items():
        known = fact(f"configured_{name}", value, UNITS[name], None)
        found[known.name] = known
    for n, record in history.rounds.items():
        after = [x for x in history.evaluations if x.round == n]
        for known in facts_of_round(record, None, after, smallest):
            if known.name in ("loss", "validation_loss"):
                found[known.name] = known
    return found


def named(fact: Fact, run: str) -> Fact:
    """Call a fact of another run after that run."""
    return fact.model_copy(update={"id": f"{run}_{fact.id}", "name": f"{run}_{fact.name}"})


READING = (
    Tool(
        "get_facts",
        "What is known of a round, of those before it, and of the run as a whole.",
        FactsArgs,
        get_facts,
    ),
    Tool(
        "explain_round", "What happened in a round, in checked sentences.", RoundArgs, explain_round
    ),
    Tool(
        "compare_runs",
        "This run beside another one: figures at the end of each. Without a run: which there are.",
        CompareArgs,
        compare_runs,
    ),
)
