"""Tools that act: each call passes a guard and needs a person's approval.

None touches a run that is there.  Proposals are configuration files for ``fedpilot run``; new runs
and made-up data get directories of their own.  Clip and noise are no arguments of anything here,
and where a run protects its clients with noise, what would spend more of their privacy is refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from agents.copilot.files import free, write_config
from agents.copilot.ground import ARGS, Found, Ground, Tool
from agents.copilot.tools import end_of, named
from agents.facts import UNITS, Fact, Observation, fact, observe
from agents.guard import client_steps, faults
from agents.knobs import KNOBS, bounds_now
from agents.proposals import Proposal
from federation.config import Config
from federation.runs.run import Run

Pseudonym = Annotated[str, Field(pattern="^c[0-9]{1,7}$")]
Why = Annotated[str, Field(max_length=400)]
FACTOR = 10.0  # how far a value may be from the run's own where the run sets no bounds
MOST_ROUNDS = 1000
Domain = Literal[
    "hospital", "bank", "law", "airline", "shop", "city", "insurer", "university", "hotel", "power",
    "telecom", "courier", "railway", "pharmacy", "landlord",
]  # fmt: skip


class Values(BaseModel):
    """What may be set; 0 leaves a value as the run has it."""

    model_config = ARGS

    lr: float = Field(default=0.0, ge=0, le=10, description="client learning rate; 0: as it is")
    steps: int = Field(default=0, ge=0, le=100_000, description="local steps; 0: as they are")
    cohort_size: int = Field(default=0, ge=0, le=1_000_000, description="clients a round; 0: as is")

    @property
    def given(self) -> dict[str, float]:
        """Knob -> value, of those that are set."""
        values = {name: float(getattr(self, name)) for name in Values.model_fields}
        return {name: value for name, value in values.items() if value}


class ProposeArgs(Values):
    """Hyperparameters for the next run."""

    evidence: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        default=(), max_length=5, description="ids of the facts it rests on"
    )
    why: Why = Field(default="", description="in a sentence")


class SelectArgs(BaseModel):
    """Whom the next run asks."""

    model_config = ARGS

    exclude: tuple[Pseudonym, ...] = Field(
        default=(), max_length=20, description="clients that are never asked, as c3"
    )
    rule: Literal["as it is", "uniform", "round_robin", "power_of_choice", "oort"] = Field(
        default="as it is", description="how the others are chosen"
    )
    why: Why = Field(default="", description="in a sentence")


class RunArgs(Values):
    """A new run like this one, but for what is set."""

    rounds: int = Field(default=0, ge=0, le=MOST_ROUNDS, description="0: as many as this run plans")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="of the same federation; 0: as this run"
    )


class MadeUpClient(BaseModel):
    """A client that is made up."""

    model_config = ARGS

    domain: Domain = Field(description="what its text is about")
    size: int = Field(ge=1, le=2000, description="rows")
    style: Literal["formal", "plain", "terse", "chatty", "hasty"] = Field(
        default="plain", description="how it is written"
    )


class SyntheticArgs(BaseModel):
    """Clients whose data is made up by the built-in templates; no private text is read."""

    model_config = ARGS

    clients: tuple[MadeUpClient, ...] = Field(min_length=1, max_length=20, description="who")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of all that is drawn")


# --- The guard ---------------------------------------------------------------------------------


def bounds_of(ground: Ground) -> dict[str, tuple[float, float]]:
    """Return how far values may go: the pilot's bounds, or a factor around the run's own."""
    if ground.config.pilot:
        return ground.spec.outer(ground.config, max(len(ground.names.clients), 1))
    return {
        name: (max(1.0, value / FACTOR) if KNOBS[name].whole else value / FACTOR, value * FACTOR)
        for name, value in ground.values.items()
    }


def seen(ground: Ground, budget: Mapping[str, float], rounds: int) -> Observation:
    """Say what a proposal is judged by: bounds, the facts of this chat, what is left."""
    values = ground.values
    whole = observe(
        ground.run.history,
        bounds_now(bounds_of(ground), values, trust=1e9),
        values,
        budget,
        round=0,
        rounds=rounds,
        seed=ground.config.seed,
        smallest=ground.spec.smallest,
    )
    return whole.model_copy(update={"facts": tuple(ground.facts.values())})


def faults_of_values(
    ground: Ground,
    values: dict[str, float],
    evidence: tuple[str, ...],
    budget: int | None,
    rounds: int,
) -> Iterator[str]:
    """Let the guard of the pilot judge values for a run of so many rounds."""
    proposal = Proposal(values=values, evidence=evidence, source="human")
    limited = {} if budget is None else {"client_steps": float(budget)}
    yield from faults(proposal, seen(ground, limited, rounds))
    if "cohort_size" in values and ground.config.upload.noise is not None:
        yield "cohort_size decides how well upload.noise protects; it may not be changed here"


def faults_of_proposal(ground: Ground, args: ProposeArgs) -> Iterator[str]:
    """Yield why hyperparameters may not be proposed."""
    if not args.given:
        yield "nothing is proposed: give lr, steps or cohort_size"
    limit = ground.spec.max_client_steps
    yield from faults_of_values(ground, args.given, args.evidence, limit, ground.config.rounds)


def faults_of_selection(ground: Ground, args: SelectArgs) -> Iterator[str]:
    """Yield why clients may not be selected so: privacy, then fairness."""
    known, config = ground.names.clients, ground.config
    if not args.exclude and args.rule == "as it is":
        yield "nothing is proposed: give exclude or rule"
    if config.upload.noise is not None:
        yield "this run protects its clients with noise, which chosen cohorts would weaken"
    for name in args.exclude:
        if name not in known:
            yield f"there is no client {name}; there are c1 to c{len(known)}"
    if 2 * len(set(args.exclude)) > len(known):
        yield f"more than half of the {len(known)} known clients may not be excluded"
    if len(known) - len(set(args.exclude)) < config.cohort.size:
        yield f"fewer clients would be left than the {config.cohort.size} that a round asks"


def faults_of_run(ground: Ground, args: RunArgs) -> Iterator[str]:
    """Yield why a run may not be started."""
    if ground.config.upload.noise is not None:
        yield "this run protects its clients with noise, and another one spends their privacy again"
    rounds = args.rounds or ground.config.rounds
    need = client_steps(ground.values | args.given, rounds)
    if not args.given and need > ground.left:
        yield f"{need:g} client-steps would be needed and {ground.left} are left"
    yield from faults_of_values(ground, args.given, (), ground.left, rounds)


# --- What is done ------------------------------------------------------------------------------


def changes_of(values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Turn knobs into tables of a configuration."""
    keys = {"lr": ("work", "lr"), "steps": ("work", "steps"), "cohort_size": ("cohort", "size")}
    tables: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        table, key = keys[name]
        tables.setdefault(table, {})[key] = int(value) if KNOBS[name].whole else value
    return tables


def changed(config: Config, tables: Mapping[str, dict[str, Any]], **rest: Any) -> Config:
    """Return a configuration with other values, validated as a whole."""
    whole = config.model_dump(mode="json")
    for table, values in tables.items():
        whole[table] |= values
    return Config.from_table(whole | rest, "the proposal")


def as_facts(prefix: str, values: Mapping[str, float]) -> list[Fact]:
    """Turn knobs' values into facts, so that an answer may name them."""
    return [fact(f"{prefix}_{k}", v, UNITS[k], None) for k, v in values.items()]


def propose(ground: Ground, args: ProposeArgs) -> Found:
    """Write a configuration with other hyperparameters beside the run."""
    config = changed(ground.config, changes_of(args.given))
    cited = f"; rests on {', '.join(args.evidence)}" if args.evidence else ""
    was = ", ".join(f"{k} {ground.values[k]:g} -> {v:g}" for k, v in args.given.items())
    file = write_config(ground.run.path, config, f"{was}{cited}", args.why)
    facts = as_facts("was", {k: ground.values[k] for k in args.given})
    facts += as_facts("proposed", args.given)
    text = "The proposal was written as a configuration; the run was not changed."
    return Found(tuple(facts), text, how_to_run(file))


def select(ground: Ground, args: SelectArgs) -> Found:
    """Write a configuration with another selection beside the run."""
    names = [ground.names.clients[name] for name in dict.fromkeys(args.exclude)]
    cohort: dict[str, Any] = {"exclude": sorted({*ground.config.cohort.exclude, *names})}
    if args.rule != "as it is":
        cohort["rule"] = args.rule
    config = changed(ground.config, {"cohort": cohort})
    what = f"rule {config.cohort.rule}; never asked: {', '.join(args.exclude) or 'nobody more'}"
    file = write_config(ground.run.path, config, what, args.why)
    facts = (fact("excluded", len(names), "clients", None),)
    text = "The selection was written as a configuration; the run was not changed."
    return Found(facts, text, how_to_run(file))


def how_to_run(file: Path) -> str:
    """Say where a proposal lies and what to do with it."""
    return f"{file}\nfedpilot run {file}"


def experiment(ground: Ground, args: RunArgs) -> Found:
    """Run an experiment beside this run, by rule and without baselines."""
    from agents.experiment import run_experiment

    rest: dict[str, Any] = {"rounds": args.rounds or ground.config.rounds, "pilot": {}}
    again = ground.config.under(args.seed) if args.seed else ground.config
    evaluation = {"baselines": []}
    config = changed(again, changes_of(args.given) | {"evaluation": evaluation}, **rest)
    own = ground.run.path.absolute()
    out = free(own.parent, f"{own.name}-chat-")
    with ground.watching(config.rounds) as watch:
        run = run_experiment(config, out, cache=ground.cache, watch=watch)
    return came_to(ground, run)


def came_to(ground: Ground, run: Run) -> Found:
    """Say what a new run came to, beside the one of the chat."""
    config = Config.from_table(run.config, f"{run.path}/config.json")
    smallest = ground.spec.smallest
    facts = [*end_of(ground.run.history, ground.config, smallest).values()]
    new = end_of(run.history, config, smallest)
    steps = sum(x.client_steps for x in run.history.rounds.values())
    text = "The run is finished. Facts that begin with new_ are of it, the others of this run."
    return Found(
        (*facts, *(named(fact, "new") for fact in new.values())),
        text,
        f"{run.path}\nfedpilot show {run.path}",
        steps,
    )


def make_up(ground: Ground, args: SyntheticArgs) -> Found:
    """Make up data by the built-in templates, into a folder beside the run."""
    from agents.synthesis.profile import Profile
    from agents.synthesis.publish import Files, publish
    from federation.experiment import default_cache

    clients = {
        f"{client.domain}-{number}": client.model_dump(mode="json")
        for number, client in enumerate(args.clients, 1)
    }
    profile = Profile.from_table({"clients": clients}, "the clients")
    out = free(ground.run.path / "synthetic", "set-", ".jsonl")
    card = publish(profile, out, seed=args.seed, cache=ground.cache or default_cache())
    wanted = sum(client.size for client in args.clients)
    facts = (
        fact("rows_wanted", wanted, "rows", None),
        fact("rows_made", card["rows"], "rows", None),
        fact("clients_made_up", len(clients), "clients", None),
    )
    text = "The data was made up by templates; no gate judged whether it helps."
    return Found(facts, text, f"{Files(out).rows}\ncard: {Files(out).readable}")


# --- What a person should know -----------------------------------------------------------------


def notes_of_values(ground: Ground, args: Values) -> Iterator[str]:
    """Say what the run has now."""
    for name, value in args.given.items():
        yield f"{KNOBS[name].meaning}: {ground.values[name]:g} -> {value:g}"


def notes_of_selection(ground: Ground, args: SelectArgs) -> Iterator[str]:
    """Say who is meant."""
    yield from ground.names.told(args.exclude)


def notes_of_run(ground: Ground, args: RunArgs) -> Iterator[str]:
    """Say what it costs."""
    yield from notes_of_values(ground, args)
    need = client_steps(ground.values | args.given, args.rounds or ground.config.rounds)
    yield f"{need:g} client-steps of {ground.left} that are left"


def notes_of_data(ground: Ground, args: SyntheticArgs) -> Iterator[str]:
    """Say how much it is."""
    rows = sum(client.size for client in args.clients)
    yield f"{rows} rows of {len(args.clients)} invented clients, into {ground.run.path}/synthetic"


ACTING = (
    Tool(
        "propose_hyperparameters",
        "Write other hyperparameters as a configuration for a new run; changes no run.",
        ProposeArgs,
        propose,
        acts=True,
        faults=faults_of_proposal,
        notes=notes_of_values,
    ),
    Tool(
        "select_clients",
        "Write another selection of clients as a configuration for a new run; changes no run.",
        SelectArgs,
        select,
        acts=True,
        faults=faults_of_selection,
        notes=notes_of_selection,
    ),
    Tool(
        "run_experiment",
        "Train a new run like this one but for what is set, and say what it came to.",
        RunArgs,
        experiment,
        acts=True,
        faults=faults_of_run,
        notes=notes_of_run,
    ),
    Tool(
        "generate_synthetic_data",
        "Make up data for invented clients by built-in templates; reads no private text.",
        SyntheticArgs,
        make_up,
        acts=True,
        notes=notes_of_data,
    ),
)
