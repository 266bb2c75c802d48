"""What a language model may say in a study: an arm before arms run, or a trial within a search.

It is asked one structured question and shown facts of finished runs on the validation split.  What
it says is bounded by the schema, checked, and written down; nothing it says reaches the test split,
the statistics or the verdict.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, create_model

from agents.facts import Observation
from agents.knobs import RECORD
from agents.policies.model import WHY, traced
from agents.proposals import Answer, Proposal
from agents.study.budget import most_client_steps
from agents.study.ledger import Ledger
from agents.study.records import Advice, Arm
from agents.study.runs import Bench
from agents.study.space import Space, Values, listed, record, values_of, within
from agents.study.spec import AgentSpec
from agents.study.statistics import FEWEST
from federation.errors import ConfigError
from llm_tools import LLMError, ask, chat_model, fill

SHOWN = 20  # trials that a model is shown


def model_of(spec: AgentSpec) -> Any:
    """Make the chat model of a study.

    Raises:
        ConfigError: if it cannot be used.
    """
    try:
        return chat_model(spec.model)
    except LLMError as error:
        raise ConfigError(f"agent.model: {error}") from None


@dataclass(frozen=True)
class TrialAdviser:
    """A policy whose rounds are trials: asks a model for the next one.

    Beside an optimizer a model may abstain, and what was tried already is no advice: the same
    values under the same seeds end as they did.

    Attributes:
        ledger: the study.
        model: whom to ask.
        alone: whether no optimizer has a proposal of its own.
    """

    ledger: Ledger
    model: Any
    alone: bool = False

    @classmethod
    def of(cls, ledger: Ledger) -> "TrialAdviser":
        """Make the adviser of a study's search.

        Raises:
            ConfigError: if its model cannot be used.
        """
        assert ledger.spec.agent is not None
        return cls(ledger, model_of(ledger.spec.agent))

    @property
    def name(self) -> str:
        """Name and version."""
        assert self.ledger.spec.agent is not None
        return f"study:llm:{self.ledger.spec.agent.model}@2"

    def decide(self, observation: Observation) -> Answer:
        """Ask once; what goes wrong is in the answer."""
        if observation.resting:
            return Answer(proposal=None, failure=observation.resting)
        spec = self.ledger.spec
        assert spec.search is not None and spec.agent is not None
        space = spec.search.space
        prompt = fill(
            "alone" if self.alone else "trial",
            metric=f"{spec.metric.name} ({spec.metric.unit})",
            direction=spec.metric.direction,
            left=str(observation.rounds_left),
            bounds=listed(space),
            trials=tried_so_far(self.ledger),
        )
        schema = trial_schema(space, self.alone)
        reply = ask(self.model, prompt, schema, deadline_s=spec.agent.deadline)
        trace = traced(reply) | {"prompt": f"{prompt.name}@{prompt.version}"}
        answer: Any = reply.value
        if answer is None:
            return Answer(proposal=None, failure=f"{reply.failure}: {reply.reason}", trace=trace)
        values = values_of(space, answer)
        if not self.alone:
            if answer.abstain:
                values = {}
            elif values in [proposed.values for proposed in self.ledger.told.proposed]:
                return Answer(
                    proposal=None, failure=f"was tried already: {shown(values)}", trace=trace
                )
        proposal = Proposal(values=values, rationale=answer.rationale, source="llm")
        return Answer(proposal=proposal, trace=trace)


def trial_schema(space: Space, alone: bool = False) -> type[BaseModel]:
    """Return the schema of a trial that a model proposes: the reason first, as it is written.

    Args:
        space: what a trial sets.
        alone: whether nobody else proposes one, so that there is nothing to abstain in favour of.
    """
    trial = record("Trial", space, rationale=WHY)
    if alone:
        return trial
    abstains = Field(description="true: the optimizer's own proposal is tried")
    return create_model("Trial", __base__=trial, abstain=(bool, abstains))


def tried_so_far(ledger: Ledger) -> str:
    """Write the trials of a search for a model, best first."""
    told, spec = ledger.told, ledger.spec
    sign = -1 if spec.metric.direction == "higher" else 1
    lines = [
        (sign * x.figure, f"{shown(told.proposed[x.trial].values)}: {x.figure:.5g}")
        for x in told.tried
        if x.figure == x.figure
    ]
    return "\n".join(line for _, line in sorted(lines)[:SHOWN]) or "none"


def shown(values: Values) -> str:
    """Write values in a line."""
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())


def advise(bench: Bench) -> None:
    """Ask the model for arms, once in the life of a study, and add those that may be added."""
    ledger, spec = bench.ledger, bench.ledger.spec.agent
    if spec is None or not spec.arms:
        return
    if ledger.told.advice is None:
        ledger.append(asked(bench, spec))
    for arm in ledger.told.advice.arms if ledger.told.advice else ():
        if arm.name not in ledger.told.arms:
            ledger.append(arm)


def asked(bench: Bench, spec: AgentSpec) -> Advice:
    """Ask the model for arms."""
    ledger = bench.ledger
    bench.watch.say(f"asking {spec.model} for arms")
    prompt = fill("arms", **question(ledger))
    schema: Any = arms_schema(ledger.spec.agent_space, spec.arms)
    reply = ask(model_of(spec), prompt, schema, deadline_s=spec.deadline)
    trace = traced(reply) | {"prompt": f"{prompt.name}@{prompt.version}"}
    proposed: Any = reply.value
    arms, refused = admitted(ledger, proposed.arms if proposed else ())
    failure = "" if proposed else f"{reply.failure}: {reply.reason}"
    return Advice(model=spec.model, arms=arms, refused=refused, failure=failure, trace=trace)


def question(ledger: Ledger) -> dict[str, str]:
    """Fill in what a model is asked."""
    spec, told = ledger.spec, ledger.told
    assert spec.agent is not None and told.floor is not None
    return {
        "question": spec.question,
        "metric": f"{spec.metric.name} ({spec.metric.unit})",
        "direction": spec.metric.direction,
        "bounds": listed(spec.agent_space),
        "facts": "\n".join(facts(ledger)),
        "floor": f"{told.floor.floor:.4g}",
        "most": str(spec.agent.arms),
    }


def facts(ledger: Ledger) -> Iterator[str]:
    """Yield what is known of finished runs: validation figures, and nothing of clients."""
    spec, told = ledger.spec, ledger.told
    control = spec.config(spec.arms[spec.control], spec.seeds[0], "control")
    now = control.work.lr, control.work.steps, control.cohort.size
    yield "control: lr {:.4g}, steps {}, cohort_size {}".format(*now)
    for seed, value in told.figures(spec.control).items():
        yield f"control under seed {seed}: {value:.5g}"
    for name, arm in told.arms.items():
        if name != spec.control:
            yield f"arm {name} is compared already: {'; '.join(arm.overrides) or 'as the base'}"
    if told.tried:
        yield f"trials of a search, best first:\n{tried_so_far(ledger)}"


def arms_schema(space: Space, most: int) -> type[BaseModel]:
    """Return the schema of an answer: at most so many arms, within their bounds."""
    arm = record("ProposedArm", space, rationale=WHY)
    kind = list[arm]  # pyright: ignore[reportInvalidTypeForm]
    limit = Field(max_length=most, description="arms; empty if none is worth a try")
    return create_model("Arms", __config__=RECORD, arms=(kind, limit))


def admitted(ledger: Ledger, proposed: Any) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Sort proposals into arms that may be added and lines that say why others may not."""
    space = ledger.spec.agent_space
    arms: list[Arm] = []
    refused: list[str] = []
    for answer in proposed:
        values = values_of(space, answer)
        own = ledger.spec.with_values(space, values)
        name = f"agent-{len(arms) + 1}"
        arm = Arm(name=name, overrides=own, source="agent", why=answer.rationale)
        problem = fault(ledger, arm, arms) if within(space, values) else "outside of the bounds"
        if problem:
            refused.append(f"{shown(values)}: {problem}")
        else:
            arms.append(arm)
    return tuple(arms), tuple(refused)


def fault(ledger: Ledger, arm: Arm, before: list[Arm]) -> str:
    """Say why an arm may not be added to those that are there; empty if it may."""
    spec, there = ledger.spec, [*ledger.told.arms.values(), *before]
    if arm.overrides in [x.overrides for x in there]:
        return "there is this arm already"
    try:
        need = sum(first_pairs(ledger, x) for x in (*there, arm))
    except ConfigError as error:
        return str(error)
    left = spec.max_client_steps - ledger.told.client_steps
    words = f"the first {FEWEST} pairs of all arms would need {need} client-steps"
    return f"{words} and {left} are left" if need > left else ""


def first_pairs(ledger: Ledger, arm: Arm) -> int:
    """Return the client-steps that an arm needs before anything can be said of it."""
    spec = ledger.spec
    config = spec.config(arm.overrides, spec.seeds[0], f"arm {arm.name}")
    there = ledger.told.figures(arm.name)
    return most_client_steps(config) * sum(seed not in there for seed in spec.seeds[:FEWEST])
