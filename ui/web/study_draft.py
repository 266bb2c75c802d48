"""A study that is being written: its form, its table, what it costs and what is wrong with it.

What is asked of the command line's own code is asked here too: a table becomes a study by
:func:`agents.study.spec.from_table` and nothing else.  Knows nothing of drawing.
"""

import copy
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from agents.knobs import KNOBS
from agents.spec import PilotSpec
from agents.study.budget import all_runs, at_least, at_most, check_budget, dearest
from agents.study.budget import most_client_steps as most_steps
from agents.study.metric import METRICS
from agents.study.spec import StudySpec, from_table
from federation.config import Config, read_toml
from federation.errors import ConfigError
from federation.runs.run import Run
from ui.web import draft
from ui.web.budget import seconds_per_example
from ui.web.draft import Draft, configuration, draft_of_run, explicit, without_none
from ui.web.forms import Control, Table, chosen, controls, got, put, table_of
from ui.web.study_arms import apart, slug

THE_STUDY = "the study"
EXAMPLE = Path(__file__).parents[2] / "examples" / "study.toml"
CONTROL = "plain"
OTHERS = 5  # arms beside the control that a form offers
MOST_TEXT = 200_000  # characters of a TOML that is pasted or uploaded
SEEDS = 5  # pairs of a new study
PAIRS = StudySpec.model_json_schema()["properties"]["seeds"]
"""What is declared of the seeds: how few and how many there may be."""
TRIALS = 8  # of a new search
SHOWN_ELSEWHERE = ("base", "arms", "seeds", "control", "metric.direction")
KEPT = ("question", "noise_pairs", "metric.name", "search.method", "search.trials", "search.bounds")
"""Keys that are written even where they are as by default."""
OF_BASE = ("rounds", "data.seed", "data.split.validation", "data.split.test")
"""Keys of the base that a study hangs on; the others are its run's."""
ALL = "all it needs"  # what a budget is that was left open


@cache
def questions() -> tuple[Control, ...]:
    """Return the controls of a study: what is asked, of how many pairs, search and agent."""
    return tuple(map(suited, controls(StudySpec.model_json_schema(), elsewhere=SHOWN_ELSEWHERE)))


def suited(control: Control) -> Control:
    """Add what a schema does not say."""
    match control.key:
        case "metric.name":
            meaning = "the figure by which an arm is better or worse"
            return replace(
                control, kind="choice", default="nll", options=tuple(METRICS), meaning=meaning
            )
        case "max_client_steps" | "search.max_client_steps":
            return replace(control, optional=True, nothing=ALL)
        case "search.trials":
            return replace(control, default=TRIALS)
        case "search.bounds" | "agent.bounds":
            return replace(control, options=tuple(KNOBS))
    return control


def seeds(count: int, known: Sequence[int]) -> list[int]:
    """Return so many seeds: those that are known first, then the next ones that are not."""
    first = max(known, default=-1) + 1
    return [*known, *range(first, first + max(0, count - len(known)))][:count]


# --- What a form is filled with ------------------------------------------------------------------


def template(base: Table) -> Table:
    """Return a study around a base, with an arm to begin with."""
    lr = min(2 * float(got(base, "work.lr", 1e-3)), 10.0)
    return around(
        "Does twice the client learning rate help?",
        base,
        {CONTROL: [], "double-lr": [f"work.lr={lr:g}"]},
    )


def around(question: str, base: Table, arms: Mapping[str, list[str]]) -> Table:
    """Return a study with arms."""
    measured = got(base, "evaluation.metrics", ["nll"])
    metric = next(name for name, known in METRICS.items() if known.needs in measured)
    return {
        "question": question,
        "control": CONTROL,
        "seeds": list(range(SEEDS)),
        "metric": {"name": metric},
        "arms": dict(arms),
        "base": base,
    }


def first_draft() -> Draft:
    """Return what a new form is filled with where no run is named."""
    if EXAMPLE.is_file():
        return draft_of_file(EXAMPLE, "the example")
    return Draft(template(shortened(draft.first_draft().table)), "the demo")


def draft_of_runs(runs: Sequence[Run]) -> Draft:
    """Return a study whose base is a run, and whose arms are what others have otherwise.

    Raises:
        ConfigError: if one is no federated fine-tuning that a form can show.
    """
    tables = [draft_of_run(run).table for run in runs]
    base, names = shortened(tables[0]), [run.path.name for run in runs]
    if len(runs) == 1:
        return Draft(template(base), f"run {names[0]}")
    arms: dict[str, list[str]] = {CONTROL: []}
    for name, table in zip(names[1:], tables[1:], strict=True):
        if found := apart(tables[0], table):
            arms[slug(name, arms)] = found
    question = f"Is {' or '.join(names[1:])} better than {names[0]}?"
    return Draft(around(question[:500], base, arms), f"runs {', '.join(names)}")


def draft_of_study(spec: StudySpec, origin: str) -> Draft:
    """Return a study as a form shows it.

    Raises:
        ConfigError: if its base is none that a form can show.
    """
    table = without_none(spec.model_dump(mode="json", exclude_unset=True))
    table["base"] = shortened(explicit(without_none(spec.base), origin))
    return Draft(table, origin)


def draft_of_file(path: Path, origin: str = "") -> Draft:
    """Read a study, or a configuration to base one on.

    Raises:
        ConfigError: if it is neither.
    """
    table = read_toml(path)
    if isinstance(table.get("base"), str):
        table["base"] = read_toml(path.parent / table["base"])
    return draft_of_table(table, origin or path.name)


def draft_of_text(text: str, origin: str) -> Draft:
    """Read a study that was pasted or uploaded, or a configuration to base one on.

    Raises:
        ConfigError: if it is neither.
    """
    if len(text) > MOST_TEXT:
        raise ConfigError(f"{origin} has more than {MOST_TEXT:,} characters; is it a study?")
    try:
        table = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is no TOML: {error}") from None
    if isinstance(table.get("base"), str):
        raise ConfigError(
            f"base = {table['base']!r} is a file beside the study, which a text has not; write its"
            " tables here as [base], [base.data], ..."
        )
    return draft_of_table(table, origin)


def draft_of_table(table: Table, origin: str) -> Draft:
    """Take a study, or a configuration to base one on, whichever a table is."""
    if {"arms", "control", "question"} & table.keys():
        return draft_of_study(from_table(table, origin), origin)
    return Draft(template(shortened(explicit(table, origin))), origin)


def shortened(table: Table) -> Table:
    """Leave out what is as by default: the same configuration in fewer lines."""
    values = {c.key: got(table, c.key, c.default) for c in configuration()}
    settings = {k: v for k, v in got(table, "algorithm", {}).items() if k != "name"}
    parts = [part for part in draft.PARTS if got(table, part) is not None]
    piloted = bool(got(table, "pilot"))
    found = draft.written(values, pilot=piloted, parts=parts, kept=settings)
    return found if meaning(found) == meaning(table) else table


def meaning(table: Table) -> tuple[Config, PilotSpec | None]:
    """Return what a configuration says, however it is written."""
    config = Config.from_table(table)
    return config.model_copy(update={"pilot": {}}), PilotSpec.of(config)


def shows(table: Mapping[str, Any]) -> bool:
    """Tell whether a table that was kept is a study that a form can be filled with."""
    arms, control = table.get("arms"), table.get("control")
    kinds = isinstance(table.get("base"), dict) and isinstance(table.get("seeds"), list)
    return kinds and isinstance(arms, dict) and control in arms


# --- What a form makes ---------------------------------------------------------------------------


def based(base: Mapping[str, Any], values: Mapping[str, object], *, piloted: bool) -> Table:
    """Return a base with those of its keys that are asked for.

    Args:
        base: as it was.
        values: of :data:`OF_BASE`.
        piloted: whether its pilot decides in every run, if it has one.
    """
    table = copy.deepcopy({k: v for k, v in base.items() if piloted or k != "pilot"})
    there = {c.key: c for c in configuration()}
    for key in OF_BASE:
        value = chosen(there[key], values.get(key))
        if value is not None and value != got(table, key, there[key].default):
            put(table, key, value)
        elif value is None and there[key].optional and got(table, key) is not None:
            parent, _, last = key.rpartition(".")
            got(table, parent).pop(last)
    return table


def written(
    values: Mapping[str, object],
    *,
    arms: Mapping[str, list[str]],
    control: str,
    seeds: Sequence[int],
    base: Table,
    parts: Collection[str] = (),
) -> Table:
    """Return the table of a form's values.

    Args:
        values: dotted key -> value.
        arms: name -> overrides.
        control: name of the control.
        seeds: of the pairs.
        base: the configuration that arms override.
        parts: which of search and agent there are.
    """
    form = [c for c in questions() if c.table in ("", "metric", *parts)]
    made = table_of(form, values, KEPT)
    metric = made.get("metric", {})
    if metric.get("name") in METRICS:
        metric["direction"] = METRICS[metric["name"]].direction
    first: Table = {"question": made.pop("question", ""), "control": control, "seeds": list(seeds)}
    tables = {name: made.pop(name, {}) for name in ("metric", *parts)}
    arms = {name: list(own) for name, own in arms.items()}
    search = {k: v for k, v in tables.items() if k != "metric"}
    return {**first, **made, "metric": metric, "arms": arms, **search, "base": base}


def provisional(table: Mapping[str, Any]) -> Table:
    """Return a study that can be read although its budgets were left open."""
    found = copy.deepcopy(dict(table))
    found.setdefault("max_client_steps", 1)
    if "search" in found:
        found["search"].setdefault("max_client_steps", 1)
    return found


def budgeted(table: Table) -> Table:
    """Give a study, and its search, as much as they can take where it was left open."""
    found = provisional(table)
    try:
        spec = from_table(found, THE_STUDY)
        if spec.search and "max_client_steps" not in table["search"]:
            one = most_steps(dearest(spec, spec.search.space, "search.bounds"))
            found["search"]["max_client_steps"] = one * spec.search.trials * spec.search.seeds
            spec = from_table(found, THE_STUDY)
    except ConfigError:
        return table
    return found if "max_client_steps" in table else found | {"max_client_steps": at_most(spec)}


def judged(table: Mapping[str, Any]) -> StudySpec:
    """Turn a table into a study, and ask what can be asked of it without model and data.

    Raises:
        ConfigError: in one line.
    """
    try:
        spec = from_table(provisional(table), THE_STUDY)
        check_budget(spec)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f"{THE_STUDY}: ")) from None
    return spec


PLACES = {
    "question": "question",
    "metric": "question",
    "arms": "arms",
    "control": "arms",
    "search": "parts",
    "agent": "parts",
    **dict.fromkeys(("seeds", "noise_pairs", "alpha", "max_client_steps"), "pairs"),
}
"""First word of an error -> part of the form that it is about."""


def place_of(error: str, arms: Mapping[str, Sequence[str]]) -> str:
    """Return the part of the form that an error is about: ``arms.NAME`` of an arm with changes.

    What is wrong with an arm that changes nothing is wrong with the base.
    """
    named = re.match(r"(?:arms\.)?([a-z0-9][a-z0-9_-]*)", error)
    name = named[1] if named else ""
    if name in arms and (error.startswith("arms.") or name not in PLACES):
        return f"arms.{name}" if arms[name] else "base"
    return PLACES.get(name, "base")


class Cost(NamedTuple):
    """What a study takes.

    Attributes:
        runs: at most, trials of a search included.
        least: client-steps that a verdict needs.
        most: client-steps that it can take.
        seconds: of training, at most, at the pace of an earlier run; None: there is none.
        like: name of that run.
    """

    runs: int
    least: int
    most: int
    seconds: float | None
    like: str


def cost(spec: StudySpec, earlier: Iterable[Run]) -> Cost:
    """Say what a study takes.

    Args:
        spec: the study.
        earlier: runs of this machine, the newest first.
    """
    runs, control = all_runs(spec), spec.config(spec.arms[spec.control], spec.seeds[0], CONTROL)
    trials = spec.search.trials * spec.search.seeds if spec.search else 0
    searched = spec.search.max_client_steps if spec.search else 0
    steps = [(most_steps(config) * n, config.work.batch_size) for config, n in runs]
    steps.append((searched, control.work.batch_size))
    most = min(spec.max_client_steps, sum(n for n, _ in steps))
    pace, like = seconds_per_example(control, earlier)
    share = most / max(1, sum(n for n, _ in steps))
    examples = share * sum(n * batch for n, batch in steps)
    return Cost(
        runs=sum(n for _, n in runs) + trials,
        least=sum(at_least(spec).values()),
        most=most,
        seconds=None if pace is None else pace * examples,
        like=like,
    )
