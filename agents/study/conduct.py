"""A study from beginning to end: floor, search, advice, pairs, stop, and the verdict.

Every step looks at the journal for what is done already, so a study that was killed goes on where
it was.  The order is what makes a verdict honest: the noise floor before any arm; arms that were
chosen by looking at figures meet seeds on which nobody has looked; the test figures last, once.
"""

import json
import math
from copy import deepcopy
from pathlib import Path

from agents.spec import PilotSpec, build_policy
from agents.study import adviser, stopping
from agents.study.budget import check_budget, most_client_steps
from agents.study.ledger import Ledger, Study, writing
from agents.study.pairs import folder, improvements
from agents.study.records import Arm, Floor, Look, Stopped, Unsealed, Verdict
from agents.study.runs import Bench, StudyWatch, test_figure
from agents.study.search import best, check_installed, search
from agents.study.spec import SEARCHED, StudySpec, configurations
from agents.study.statistics import FEWEST, decided, judge, noise_floor
from federation.cohort.selection import check_population
from federation.config import Config
from federation.errors import ConfigError

UNCOUNTED = 1_000_000
"""Clients that there may be where nobody counted them."""


def run_study(
    spec: StudySpec, out: Path, *, cache: Path | None = None, watch: StudyWatch | None = None
) -> Study:
    """Conduct a study in a new directory.

    Args:
        spec: what is asked; relative paths of the base start from the current folder.
        out: a directory that does not exist or is empty.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.

    Raises:
        ConfigError: if the study cannot be conducted; told before anything runs where it can be.
        StoppedError: if it was told to stop, and did; it can be gone on with.
        FedpilotError: what a run raises; the study can then be gone on with.
    """
    spec = placed(spec)
    watch = watch or StudyWatch()
    check_budget(spec)
    rehearse(spec, cache, watch)
    with writing(out, spec) as ledger:
        conduct(Bench(ledger, cache, watch))
    return Study.open(out)


def resume_study(
    path: Path, *, cache: Path | None = None, watch: StudyWatch | None = None
) -> Study:
    """Go on with a study that was stopped or killed, to the verdict an undisturbed one reaches.

    Raises:
        ConfigError: if there is no study at ``path``.
        CorruptError: if its records were changed.
        LockedError: if another process writes it.
        StoppedError: if it was told to stop, and did.
    """
    with writing(path) as ledger:
        conduct(Bench(ledger, cache, watch or StudyWatch()))
    return Study.open(path)


def conduct(bench: Bench) -> None:
    """Do what is left of a study."""
    stopping.forget(bench.ledger.path)  # what somebody else was told who has been killed since
    if bench.ledger.told.verdict:
        return
    measure_floor(bench)
    search(bench)
    register(bench)
    adviser.advise(bench)
    compare(bench)
    unseal(bench.ledger)
    conclude(bench)


PATHS = (("data", "source"), ("data", "extra"), ("model", "base"), ("adapter", "start"))
"""Table and key of what a base may name by a path."""


def placed(spec: StudySpec) -> StudySpec:
    """Say in full where model and data are, so that a study can be gone on with from any folder."""
    from federation.data.dataset import resolved

    def paths(config: Config) -> dict[str, object]:
        found = {f"{x}.{key}": getattr(getattr(config, x), key, None) for x, key in PATHS}
        return {key: path for key, path in found.items() if path is not None}

    def in_full(overrides: tuple[str, ...], name: str) -> tuple[str, ...]:
        config = spec.config(overrides, spec.seeds[0], f"arm {name}")
        given, full = paths(config), paths(resolved(config, Path.cwd()))
        own = {x.partition("=")[0].strip() for x in overrides}
        added = [f"{x}={json.dumps(full[x])}" for x in full if x in own and full[x] != given[x]]
        return (*overrides, *added)

    config, base = resolved(Config.from_table(spec.base, "base"), Path.cwd()), deepcopy(spec.base)
    for table, key in PATHS:
        if key in base.get(table, {}):
            base[table][key] = getattr(getattr(config, table), key)
    arms = {name: in_full(overrides, name) for name, overrides in spec.arms.items()}
    return spec.model_copy(update={"base": base, "arms": arms})


def rehearse(spec: StudySpec, cache: Path | None, watch: StudyWatch) -> None:
    """Load model and data once and build what every arm names, before anything is trained.

    Raises:
        ConfigError: if an arm, a bound or a model cannot be used.
        DataError: if the data cannot be read or does not suffice.
    """
    from federation.experiment import set_up

    watch.say("loading model and data")
    if spec.search:
        check_installed(spec.search)
    if spec.agent:
        adviser.model_of(spec.agent)
    control = spec.config(spec.arms[spec.control], spec.seeds[0], f"arms.{spec.control}")
    check_arms(spec, len(set_up(control, None, cache).clients))


def check_arms(spec: StudySpec, population: int | None = None) -> None:
    """Build what every arm and every end of a bound names.

    Args:
        spec: the study.
        population: clients that there are; None: not counted, and as many as one likes.

    Raises:
        ConfigError: naming what cannot be built.
    """
    from federation.training.build import build_algorithm

    most = UNCOUNTED if population is None else population
    for name, config in configurations(spec, "study"):
        try:
            build_algorithm(config)
            check_population(config.cohort, most)
            pilot = PilotSpec.of(config)
            if pilot:
                for policy in (pilot.policy, *pilot.shadows):
                    build_policy(policy, len(pilot.outer(config, most)), pilot)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None


def measure_floor(bench: Bench) -> None:
    """Compare the control with itself under other seeds; the smallest difference worth a verdict.

    Raises:
        ConfigError: if the control does not train.
    """
    ledger, spec = bench.ledger, bench.ledger.spec
    if ledger.told.floor:
        return
    found = {}
    for pair in zip(spec.seeds, spec.other_seeds, strict=False):
        for seed in pair:
            run = bench.measure(spec.control, spec.arms[spec.control], seed)
            found[seed] = run.validation
            if not math.isfinite(run.validation):
                raise ConfigError(
                    f"the control diverged under seed {seed}, so there is nothing to compare with;"
                    " lower work.lr of the base, and start a new study"
                )
    floor = noise_floor(list(found.values()), len(spec.seeds), spec.alpha)
    bench.watch.say(f"noise floor of {spec.metric.name}: {floor:.4g}")
    ledger.append(Floor(figures=found, planned=len(spec.seeds), floor=floor))


def register(bench: Bench) -> None:
    """Enter the arms into the comparison: the control first, what a search found last."""
    ledger, spec = bench.ledger, bench.ledger.spec
    ordered = [spec.control, *(name for name in spec.arms if name != spec.control)]
    for name in ordered:
        if name not in ledger.told.arms:
            ledger.append(Arm(name=name, overrides=spec.arms[name], source="registered"))
    values = best(bench) if spec.search else None
    if spec.search and values is not None and SEARCHED not in ledger.told.arms:
        own = spec.with_values(spec.search.space, values)
        why = f"the best of {len(ledger.told.tried)} trials"
        ledger.append(Arm(name=SEARCHED, overrides=own, source="search", why=why))


def compare(bench: Bench) -> None:
    """Run pair after pair until every arm is decided, or seeds or client-steps are spent."""
    ledger, spec = bench.ledger, bench.ledger.spec
    if ledger.told.stopped:
        return
    open = [name for name in ledger.told.arms if name != spec.control]
    for pairs, seed in enumerate(spec.seeds, start=1):
        if not open:
            ledger.append(Stopped(why="every arm is decided on the validation split"))
            return
        missing = [n for n in (spec.control, *open) if folder(n, seed) not in ledger.told.measured]
        if not affordable(ledger, missing, seed):
            ledger.append(Stopped(why="the next pairs would exceed max_client_steps"))
            return
        for name in missing:
            bench.measure(name, ledger.told.arms[name].overrides, seed)
        open = look(bench, pairs, open)
    why = "every arm is decided on the validation split" if not open else "all seeds are played"
    ledger.append(Stopped(why=why))


def affordable(ledger: Ledger, names: list[str], seed: int) -> bool:
    """Tell whether runs fit into what is left of the budget, at their dearest."""
    arms = ((name, ledger.told.arms[name].overrides) for name in names)
    need = sum(most_client_steps(ledger.spec.config(own, seed, f"arm {n}")) for n, own in arms)
    return ledger.told.client_steps + need <= ledger.spec.max_client_steps


def look(bench: Bench, pairs: int, open: list[str]) -> list[str]:
    """Say which arms need more pairs, by the validation split; looked once at each number."""
    ledger, spec = bench.ledger, bench.ledger.spec
    if pairs < FEWEST:
        return open
    known = next((x for x in ledger.told.looks if x.pairs == pairs), None)
    if known is None:
        assert ledger.told.floor is not None
        floor = ledger.told.floor.floor
        validation = {x.run: x.validation for x in ledger.told.measured.values()}
        found = judge(
            improvements(ledger, validation),
            floor=floor,
            alpha=spec.alpha,
            planned=len(spec.seeds),
        )
        left = tuple(name for name in open if not decided(found[name], floor))
        known = Look(pairs=pairs, found=found, open=left)
        undecided = f"{len(left)} of {len(found)} arms undecided, tested further"
        bench.watch.say(f"after {pairs} pairs: {undecided}")
        ledger.append(known)
    return list(known.open)


def unseal(ledger: Ledger) -> None:
    """Read the test figures of the pairs: the only time, after the last run."""
    told, spec = ledger.told, ledger.spec
    if told.unsealed:
        return
    test = {
        x.run: test_figure(ledger, x, told.arms[x.arm].overrides)
        for x in told.measured.values()
        if x.arm in told.arms and x.seed in spec.seeds
    }
    ledger.append(Unsealed(test=test))


def conclude(bench: Bench) -> None:
    """Give every arm its verdict, by the test figures and the floor that stood before."""
    ledger, spec = bench.ledger, bench.ledger.spec
    told = ledger.told
    assert told.unsealed is not None and told.floor is not None
    found = judge(
        improvements(ledger, told.unsealed.test),
        floor=told.floor.floor,
        alpha=spec.alpha,
        planned=len(spec.seeds),
    )
    for name, judged in found.items():
        bench.watch.say(f"{name}: {judged.verdict}")
    ledger.append(Verdict(found=found))
