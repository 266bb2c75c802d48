"""Made-up rows for organisations that hold little, decided by rule before the first round.

Of the clients nothing is known but how many rows each trains on, and what an organisation says of
itself: its domain, and how it writes.  The built-in templates make rows of that domain in its usual
mix; no text is read.  A gate of short runs of the same federation admits the set or not, judged on
the validation split: the test split judges the run and decides nothing.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from agents.filling import DECISION, Filling
from agents.spec import SyntheticSpec
from agents.synthesis.make import Say
from agents.synthesis.profile import Profile
from agents.synthesis.publish import publish
from federation.config import ORGANISATIONS, Config
from federation.data.organisations import Organisation, organisations
from federation.errors import ConfigError
from federation.experiment import default_cache
from federation.runs import storage

POLICY = "fill-up@1"
ROWS = "rows.jsonl"


def filled(
    config: Config, spec: SyntheticSpec, folder: Path, cache: Path | None, say: Say
) -> Config:
    """Decide on made-up rows, and write the decision down.

    Args:
        config: the run, resolved.
        spec: who is given how many.
        folder: of rows, card and decision; what an interrupted start left there goes.
        cache: folder for tokenised data; the user's cache folder if omitted.
        say: is told of progress.

    Returns:
        The run, training on the rows if they were admitted.

    Raises:
        ConfigError: if its data is not that of the built-in organisations.
    """
    check(config)
    sizes = train_sizes(config, cache or default_cache())
    mean = sum(sizes.values()) / len(sizes)
    asked = lacking(sizes, spec.fill * mean)
    found = Filling(policy=POLICY, population=len(sizes), mean=mean, asked=asked)
    with storage.explained(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if asked:
        found = judged(found, config, spec, folder / ROWS, cache or default_cache(), say)
    storage.atomic_write(folder / DECISION, found.model_dump_json(indent=2).encode())
    if not found.admitted:
        return config
    data = config.data.model_copy(update={"extra": str((folder / ROWS).absolute())})
    return config.model_copy(update={"data": data})


def check(config: Config) -> None:
    """Refuse data that the templates cannot add to.

    Raises:
        ConfigError: saying what to do instead.
    """
    clients = config.data.clients
    if config.data.source != ORGANISATIONS or (clients.by, clients.key) != ("key", "client"):
        raise ConfigError(
            "pilot.synthetic: the built-in templates know the built-in organisations alone; make"
            " rows of your own with `fedpilot synthesize --gate` and name them in data.extra"
        )
    if config.data.extra is not None:
        raise ConfigError("pilot.synthetic makes the rows of data.extra itself; drop one of them")


def train_sizes(config: Config, cache: Path) -> dict[str, int]:
    """Return how many rows each client trains on."""
    from federation.data.dataset import load_data
    from federation.training.base import load_tokenizer

    train = load_data(config, load_tokenizer(config.model.base), Path.cwd(), cache).splits.train
    return dict(zip(train.names, train.sizes.tolist(), strict=True))


def lacking(sizes: Mapping[str, int], wanted: float) -> dict[str, int]:
    """Return how many rows each client lacks; those that lack none are left out."""
    return {name: missing for name, n in sizes.items() if (missing := int(wanted) - n) > 0}


def judged(
    found: Filling, config: Config, spec: SyntheticSpec, rows: Path, cache: Path, say: Say
) -> Filling:
    """Make rows, measure them, and pass them through the gate."""
    profile = profile_of(config, found.asked, spec)
    short = gate_of(config, spec)
    card = publish(profile, rows, seed=config.data_seed, cache=cache, gate=short, say=say)
    gate = card["gate"]
    ends = {key: gate[key] for key in ("admitted", "gain", "low", "high")}
    made = {"made": card["rows"], "pairs": len(gate["seeds"]), "rounds": spec.rounds}
    return found.model_copy(update=ends | made)


def profile_of(config: Config, asked: Mapping[str, int], spec: SyntheticSpec) -> Profile:
    """Ask for rows as organisations describe themselves."""
    data = config.data
    who: dict[str, Organisation] = {
        one.id: one for one in organisations(config.data_seed, data.count, total=data.examples)
    }
    clients = {
        name: {"domain": who[name].domain, "style": who[name].style.name, "size": size}
        for name, size in asked.items()
    }
    gate = {"seeds": spec.pairs, "split": "validation"}
    return Profile.from_table({"clients": clients, "gate": gate}, "pilot.synthetic")


def gate_of(config: Config, spec: SyntheticSpec) -> Config:
    """Return the gate's run: that of the configuration, but short."""
    work = config.work.model_copy(update={"steps": spec.steps or config.work.steps})
    metrics = {"metrics": ("nll",), "max_examples": spec.examples}
    evaluation = config.evaluation.model_copy(update=metrics)
    update = {"rounds": spec.rounds, "work": work, "evaluation": evaluation}
    return config.model_copy(update=update)
