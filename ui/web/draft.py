"""An experiment that is being written: its form, its table, and what is wrong with it.

What is asked of the command line's own code is asked here too: a table becomes a configuration by
:meth:`Config.from_table` and nothing else.
"""

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from agents.knobs import KNOBS
from agents.spec import ASKING, HUMAN, POLICIES, PilotSpec
from federation.cohort.selection import check_population
from federation.config import ORGANISATIONS, Config
from federation.data.dataset import owner_field, with_defaults
from federation.data.partition import USES
from federation.data.templates import parse_templates
from federation.errors import ConfigError, FedpilotError
from federation.pretraining.recipe import recipe_of
from federation.runs.run import Run
from ui.web.forms import LARGEST, Control, Table, controls, got, put, table_of

DEMO = Path(__file__).parents[1] / "demo.toml"
PARTS = {
    "pilot.selection": (
        "It also chooses which clients are asked",
        "It turns the rule by which clients are chosen; a share of every cohort stays drawn by"
        " chance.",
    ),
    "pilot.synthetic": (
        "It also makes up rows for the rounds to begin from",
        "Of what the built-in organisations say of themselves, before the first round, and used"
        " only if trials show that their answers help.",
    ),
}
"""Tables of a pilot that say something by being there -> what switches them on, and its help."""
ORGANISATIONS_ONLY = ("data.count", "data.examples")
ESSENTIAL = (
    "rounds",
    "model.base",
    "adapter.kind",
    "data.source",
    "data.clients.by",
    "algorithm.name",
    "work.lr",
    "work.steps",
    "cohort.size",
    "pilot.policy",
)
"""Keys that are written even where they are as by default: who reads the file wants to know."""


class Section(NamedTuple):
    """A part of the form.

    Attributes:
        title: of its tab.
        icon: a Material symbol.
        tables: whose keys it shows; empty: those of the outermost one.
        common: keys that are shown first; the others are folded away.
    """

    title: str
    icon: str
    tables: tuple[str, ...]
    common: tuple[str, ...]


SECTIONS = {
    "data": Section(
        "Data",
        ":material/database:",
        ("data",),
        ("data.count", "data.examples", "data.max_tokens"),
    ),
    "model": Section(
        "Model",
        ":material/deployed_code:",
        ("model", "adapter"),
        ("model.base", "adapter.kind", "adapter.rank", "adapter.alpha", "adapter.targets"),
    ),
    "training": Section(
        "Training",
        ":material/fitness_center:",
        ("", "algorithm", "work", "schedule"),
        ("rounds", "algorithm.name", "work.lr", "work.steps", "work.batch_size", "schedule.kind"),
    ),
    "clients": Section(
        "Cohort",
        ":material/groups:",
        ("cohort", "devices", "upload"),
        (
            "cohort.size",
            "cohort.rule",
            "upload.clip",
            "upload.noise",
            "upload.top_k",
            "upload.bits",
        ),
    ),
    "measure": Section(
        "Measure",
        ":material/straighten:",
        ("evaluation", "engine"),
        ("evaluation.every", "evaluation.metrics", "evaluation.baselines", "engine.keep_updates"),
    ),
    "pilot": Section(
        "Pilot",
        ":material/explore:",
        ("pilot",),
        ("pilot.policy", "pilot.model", "pilot.bounds", "pilot.trust"),
    ),
}
"""Parts of the form, in their order; a key that is declared anew finds its place by its table."""


@dataclass(frozen=True)
class Draft:
    """What a form is filled with.

    Attributes:
        table: nested tables, as in a file.
        origin: where it is from, for people.
        name: of the run that it is to be; empty: as is suggested.
    """

    table: Table
    origin: str
    name: str = ""


@cache
def configuration() -> tuple[Control, ...]:
    """Return the controls of everything but an algorithm's settings."""
    core = controls(Config.model_json_schema(), elsewhere={"pilot"})
    pilot = controls(PilotSpec.model_json_schema(), "pilot.")
    return tuple(suited(control) for control in [*core, *pilot])


def suited(control: Control) -> Control:
    """Add what a schema does not say: of use with which other keys, and which names there are."""
    table, _, name = control.key.rpartition(".")
    if table == "data.clients":
        kinds = frozenset(by for by, names in USES.items() if name in names)
        return replace(control, when=("data.clients.by", kinds)) if kinds else control
    if control.key in ("pilot.policy", "pilot.shadows"):
        asking = (*ASKING, HUMAN) if control.key == "pilot.policy" else ()
        there = (*POLICIES, *asking)
        return replace(control, options=there)
    if control.key == "pilot.bounds":
        return replace(control, options=tuple(KNOBS))
    return control


def settings_of(schema: Mapping[str, Any]) -> list[Control]:
    """Return the controls of an algorithm's own settings."""
    return controls(schema, "algorithm.")


def section_of(control: Control) -> str:
    """Return the part of the form that shows a key."""
    outermost = control.table.partition(".")[0]
    return next((name for name, s in SECTIONS.items() if outermost in s.tables), "training")


def section_named(error: str) -> str:
    """Return the part of the form that an error is about; the first where it names none."""
    words = re.findall(r"[a-z_]+", error)
    for word in words:
        for name, section in SECTIONS.items():
            if word in section.tables or (word in ("rounds", "seed") and "" in section.tables):
                return name
    return "data"


def written(
    values: Mapping[str, object],
    settings: Iterable[Control] = (),
    *,
    pilot: bool,
    parts: Collection[str] = (),
    kept: Mapping[str, object] | None = None,
) -> Table:
    """Return the table of a form's values.

    Args:
        values: dotted key -> value.
        settings: controls of the algorithm's own settings.
        pilot: whether there is one.
        parts: those of :data:`PARTS` that are switched on.
        kept: settings of the algorithm that the form has no control for, as they were loaded.
    """
    there = [part for part in PARTS if pilot and part in parts]
    left_out = {*PARTS, "pilot"} - ({"pilot", *there} if pilot else set())
    form = [c for c in (*configuration(), *settings) if c.table not in left_out]
    organised = values.get("data.source") == "organisations"
    form = [c for c in form if organised or c.key not in ORGANISATIONS_ONLY]
    table = table_of(form, values, ESSENTIAL)
    for part in there:
        put(table, part, got(table, part, {}))
    for name, value in (kept or {}).items():
        if got(table, f"algorithm.{name}") is None:
            put(table, f"algorithm.{name}", value)
    return table


def judged(table: Mapping[str, Any], population: int | None = None) -> Config:
    """Turn a table into a configuration, and ask what can be asked of it without its data.

    Args:
        table: nested tables.
        population: clients that there are, as they were counted; None: not counted.

    Raises:
        ConfigError: in one line.
    """
    try:
        config = Config.from_table(table)
        spec = with_defaults(config.data)
        parse_templates(
            prompt=spec.prompt, response=spec.response, text=spec.text, choices=spec.choices
        )
        if spec.extra is not None:
            owner_field(spec)
        most = population or most_clients(config)
        if most is not None:
            check_population(config.cohort, most)
        if (pilot := PilotSpec.of(config)) is not None:
            pilot.outer(config, most or 1_000_000)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("configuration: ")) from None
    return config


def most_clients(config: Config) -> int | None:
    """Return how many clients there can be at most, where a number in the form says so."""
    clients = with_defaults(config.data).clients
    if "count" in USES[clients.by]:
        return clients.count
    made = config.data.source == ORGANISATIONS and clients.key == "client"
    return min(config.data.count, clients.max_clients or config.data.count) if made else None


def first_draft() -> Draft:
    """Return what a new form is filled with: the demo's experiment, without its comments."""
    return draft_of_text(DEMO.read_text(encoding="utf-8"), "the demo")


def draft_of_text(text: str, origin: str) -> Draft:
    """Read a configuration in TOML.

    Raises:
        ConfigError: if it is not TOML, or no configuration.
    """
    try:
        table = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: is not TOML: {error}") from None
    return Draft(explicit(table, origin), origin)


def draft_of_run(run: Run) -> Draft:
    """Return the experiment of a run.

    Raises:
        ConfigError: if it is no federated fine-tuning that a form can show.
    """
    name = run.path.name
    try:
        if recipe_of(run) is not None:
            raise ConfigError(f"{name} pre-trains a base model, by a recipe and not by this form")
        return Draft(explicit(without_none(run.asked), name), f"run {name}")
    except FedpilotError as error:
        raise ConfigError(f"cannot be cloned into this form: {error}") from None


def explicit(table: Mapping[str, Any], origin: str) -> Table:
    """Check a table, and say in it who holds the rows, which the built-in data leaves open.

    Raises:
        ConfigError: if it is no configuration, or one that no form can show.
    """
    config = Config.from_table(table, origin)
    PilotSpec.of(config)
    for key, seed in (("seed", config.seed), ("data.seed", config.data_seed)):
        if seed > LARGEST:
            raise ConfigError(f"{origin}: {key}: {seed} is more than a form can hold; lower it")
    found: Table = json.loads(json.dumps(table))
    clients = with_defaults(config.data).clients
    put(found, "data.clients", without_none(clients.model_dump(mode="json", exclude_unset=True)))
    return found


def without_none(table: Mapping[str, Any]) -> Table:
    """Leave out what is not set: TOML has no word for it."""
    inner = ((k, without_none(v) if isinstance(v, Mapping) else v) for k, v in table.items())
    return {k: v for k, v in inner if v is not None}


def starts(prefix: str, value_of: Callable[[str], object]) -> dict[str, tuple[float, float]]:
    """Return where the bounds of knobs start when they are switched on.

    Args:
        prefix: of their keys in a form, such as ``"pilot.bounds."``.
        value_of: given a key of the configuration, its value.
    """
    spans = {name: spread(value_of(knob.path)) for name, knob in KNOBS.items()}
    return {f"{prefix}{name}": span for name, span in spans.items() if span}


def spread(value: object) -> tuple[float, float] | None:
    """Return a range around a value: a factor of ten for rates, of two for counts."""
    if not isinstance(value, int | float) or value <= 0:
        return None
    return (max(1, value // 2), value * 2) if isinstance(value, int) else (value / 10, value * 10)
