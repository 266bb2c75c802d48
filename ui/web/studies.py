"""Studies as a page shows them: how far one is, what is proved, and its report in one file."""

import io
import math
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agents.study.budget import arms as arms_of
from agents.study.ledger import JOURNAL, RUNS, Study, read_spec
from agents.study.metric import MetricSpec
from agents.study.pairs import folder, improvements
from agents.study.spec import SEARCHED
from agents.study.statistics import Judgement
from agents.study.stopping import in_flight, told
from federation.errors import ConfigError, FedpilotError
from federation.runs import storage
from federation.runs.folder import JOURNAL as RUN_JOURNAL
from federation.runs.folder import is_run
from federation.runs.run import Run
from ui.web.charts.intervals import Row
from ui.web.figures import measured, progress
from ui.web.language import METRICS
from ui.web.naming import NAMES, Naming

REPORT = "report.md"


class Stage(NamedTuple):
    """A part of a study and how far it is.

    Attributes:
        name: what is done.
        state: "done", "now" or "later".
        said: in a few words.
    """

    name: str
    state: str
    said: str


def status(study: Study) -> str:
    """Return how a study stands: one of running, finished, stopped."""
    if storage.is_locked(study.path):
        return "running"
    return "finished" if study.told.verdict else "stopped"


def stages(study: Study) -> list[Stage]:
    """Say how far every part of a study is, in the order in which they come."""
    told, spec = study.told, study.spec
    known = [("noise floor", told.floor is not None, floor_said(study))]
    if spec.search:
        said = f"{len(told.tried)} of {spec.search.trials} trials"
        known.append(("search", told.search_ended is not None, said))
    if spec.agent and spec.agent.arms:
        said = f"{len(told.advice.arms)} arms taken" if told.advice else "not asked yet"
        known.append(("proposals", told.advice is not None, said))
    known.append(("pairs", told.stopped is not None, pairs_said(study)))
    known.append(("verdict", told.verdict is not None, "test figures, read once"))
    first = next((i for i, (_, done, _) in enumerate(known) if not done), len(known))
    return [
        Stage(name, "done" if done else "now" if i == first else "later", said)
        for i, (name, done, said) in enumerate(known)
    ]


def floor_said(study: Study) -> str:
    """Say how much the control differs from itself, or how many of its runs are there."""
    floor = study.told.floor
    if floor is not None:
        return f"{floor.floor:.4g} {study.spec.metric.unit}"
    done = len(study.told.figures(study.spec.control))
    return f"{done} of {2 * study.spec.noise_pairs} runs of the control"


def pairs_said(study: Study) -> str:
    """Say how many pairs the arms have."""
    told, spec = study.told, study.spec
    if told.stopped:
        return told.stopped.why
    counts = [len(x) for x in improvements(study, validation(study)).values()]
    return f"{min(counts, default=0)} of {len(spec.seeds)} each, at most"


def validation(study: Study) -> dict[str, float]:
    """Return the validation figures of all finished runs."""
    return {x.run: x.validation for x in study.told.measured.values()}


def at(study: Study) -> str:
    """Say which run a study makes now, and how far that is; empty if there is none."""
    if (run := in_flight(study.path)) is None:
        return ""
    try:
        how = progress(Run.open(run))
    except FedpilotError:
        return run.name
    return f"{run.name}, round {min(how.done + 1, how.planned)} of {how.planned}"


def seen(path: Path) -> tuple[object, ...]:
    """Tell what there is to show of a study, cheaply; another value, another picture."""
    run = in_flight(path)
    files = [path / JOURNAL, path / REPORT, *([run / RUN_JOURNAL] if run else [])]
    return run, storage.is_locked(path), told(path) is not None, *map(size, files)


def size(file: Path) -> int:
    """Return how many bytes a file has; -1 if it is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def naming(study: Study) -> Naming:
    """Return the pseudonyms of the clients of all runs of a study, and of those it excludes."""
    runs = []
    for path in sorted((study.path / RUNS).glob("*")):
        with suppress(FedpilotError):  # a damaged run of a study is named by "fedpilot verify"
            runs.append(Run.open(path))
    excluded = {name for config in arms_of(study.spec).values() for name in config.cohort.exclude}
    return Naming.hidden(runs, excluded)


def judged(study: Study) -> tuple[dict[str, Judgement], dict[str, float]]:
    """Return the newest judgement of every arm, and the figures that it is of.

    The verdict, of the test split; before it the newest look, of the validation split.
    """
    told = study.told
    if told.verdict is not None and told.unsealed is not None:
        return told.verdict.found, told.unsealed.test
    return (told.looks[-1].found if told.looks else {}), validation(study)


def figure_text(metric: MetricSpec) -> str:
    """Return what people call a figure, with its unit."""
    name = METRICS.get(metric.name, metric.name)
    return name if metric.unit in name else f"{name}, {metric.unit}"


def rows(study: Study) -> list[Row]:
    """Return the improvement of every arm over the control for a picture."""
    found, figures = judged(study)
    single = improvements(study, figures)
    return [
        Row(
            name,
            one.mean,
            one.low,
            one.high,
            one.verdict,
            one.why,
            tuple(x for x in single.get(name, ()) if math.isfinite(x)),
        )
        for name, one in found.items()
        if one.mean is not None
    ]


def arms(study: Study) -> list[dict[str, str]]:
    """Return a row for every arm: what it changes, who wants it, what is proved."""
    told, spec = study.told, study.spec
    found, _ = judged(study)
    registered = {name: ", ".join(own) or "the base as it is" for name, own in spec.arms.items()}
    entered = {name: ", ".join(arm.overrides) for name, arm in told.arms.items()}
    if spec.search and SEARCHED not in entered:
        registered[SEARCHED] = "what the search finds"
    changes = registered | {k: v for k, v in entered.items() if v}
    return [
        {
            "arm": name + (" (control)" if name == spec.control else ""),
            "changes": what,
            "by": told.arms[name].source if name in told.arms else "registered",
            "verdict": "–" if name not in found else found[name].verdict,
            "improvement": improvement(found.get(name)),
            "pairs": "–" if name not in found else str(found[name].pairs),
            "why": "" if name not in found else found[name].why,
        }
        for name, what in changes.items()
    ]


def improvement(one: Judgement | None) -> str:
    """Write a mean improvement and its interval."""
    if one is None or one.mean is None:
        return "–"
    if one.low is None or one.high is None:
        return f"{one.mean:+.4f}"
    return f"{one.mean:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def curves(study: Study) -> list[tuple[str, str, int, float]]:
    """Return arm, run, rounds done and validation figure of the runs of pairs."""
    found = []
    for name in study.told.arms or study.spec.arms:
        for seed in study.spec.seeds:
            path = study.path / RUNS / folder(name, seed)
            if not is_run(path):
                continue
            try:
                points = measured(Run.open(path), study.spec.metric.name, "validation")
            except FedpilotError:
                continue  # a damaged run of a study is named by "fedpilot verify"
            found += [(name, path.name, r, value) for r, value in points.items()]
    return found


def report(path: Path, naming: Naming = NAMES) -> bytes:
    """Pack the report of a study, with its pictures, into one file.

    Args:
        path: of the study.
        naming: of its clients; where arms are called by them, pictures are left out.

    Raises:
        ConfigError: if it has no report yet.
        StorageError: if it cannot be read.
    """
    if not (path / REPORT).is_file():
        raise ConfigError(f"{path.name} has no report yet; it is written when the study ends")
    packed = io.BytesIO()
    with storage.explained(path), zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        text = (path / REPORT).read_text(encoding="utf-8")
        archive.writestr(f"{path.name}/{REPORT}", naming.text(text))
        names = read_spec(path).arms
        for file in sorted(path.glob("*.png")) if all(naming.text(x) == x for x in names) else ():
            archive.write(file, f"{path.name}/{file.name}")
    return packed.getvalue()
