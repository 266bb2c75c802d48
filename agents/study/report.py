"""What a study came to, in Markdown with pictures; made from its directory, as often as one likes.

Says nothing of its own: every figure is the journal's.  Before the verdict it reports what is there
and shows no figure of the test split, because there is none yet.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from agents.study import plots
from agents.study.ledger import RUNS, Study
from agents.study.pairs import folder, improvements
from agents.study.runs import curve
from agents.study.statistics import Judgement
from federation.runs.folder import is_run
from federation.runs.run import Run
from federation.runs.storage import atomic_write

REPORT = "report.md"
INTERVALS, CURVES, TRIALS = "intervals.png", "curves.png", "search.png"
SHOWN = 12  # trials that the report lists


def write(study: Study) -> Path:
    """Write the report and its pictures.

    Returns:
        The Markdown file.

    Raises:
        StorageError: if it cannot be written; an older one is then left as it was.
    """
    drawn = draw(study)
    path = study.path / REPORT
    atomic_write(path, ("\n".join(lines(study, drawn)) + "\n").encode())
    return path


def draw(study: Study) -> set[str]:
    """Draw what there is to draw; return the names of the pictures."""
    spec, told, drawn = study.spec, study.told, set[str]()
    metric, higher = f"{spec.metric.name}, {spec.metric.unit}", spec.metric.direction == "higher"
    if told.verdict and told.unsealed and told.floor and told.verdict.found:
        pairs = improvements(study, told.unsealed.test)
        arms = [
            plots.Compared(name, judged, [x for x in pairs[name] if math.isfinite(x)])
            for name, judged in told.verdict.found.items()
        ]
        plots.intervals(
            arms,
            floor=told.floor.floor,
            control=spec.control,
            metric=metric,
            path=study.path / INTERVALS,
        )
        drawn.add(INTERVALS)
    if found := arm_curves(study):
        path = study.path / CURVES
        plots.curves(found, control=spec.control, metric=metric, higher=higher, path=path)
        drawn.add(CURVES)
    tried = [(x.figure, told.proposed[x.trial].source) for x in told.tried]
    if any(math.isfinite(value) for value, _ in tried):
        plots.trials(tried, metric=metric, higher=higher, path=study.path / TRIALS)
        drawn.add(TRIALS)
    return drawn


def arm_curves(study: Study) -> dict[str, list[plots.Curve]]:
    """Read the validation curves of every arm, under the seeds of the pairs that all of them have.

    An arm that stopped early had other seeds than the others: means over all would compare luck.
    """
    told, spec = study.told, study.spec
    shared = [s for s in spec.seeds if all(folder(name, s) in told.measured for name in told.arms)]
    found = {
        name: [points for seed in shared if (points := curve_of(study, name, seed))]
        for name in told.arms
    }
    return {name: curves for name, curves in found.items() if curves}


def curve_of(study: Study, name: str, seed: int) -> plots.Curve:
    """Read the validation figures of a run; none where its directory was taken away."""
    path = study.path / RUNS / folder(name, seed)
    if not is_run(path):
        return []
    config = study.spec.config(study.told.arms[name].overrides, seed, name)
    return curve(Run.open(path), config, study.spec.metric.name)


def lines(study: Study, drawn: set[str]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"# {inline(study.spec.question)}"
    yield ""
    yield answer(study)
    yield ""
    if study.told.verdict and study.told.verdict.found:
        yield from verdicts(study)
    if INTERVALS in drawn:
        yield f"![Improvement of every arm over the control, with intervals]({INTERVALS})"
        yield ""
    yield from noise(study)
    if CURVES in drawn:
        yield from ("## Learning curves", "", f"![Validation figures over rounds]({CURVES})", "")
    yield from searching(study, drawn)
    yield from advice(study)
    yield from method(study)
    yield from cost(study)


def answer(study: Study) -> str:
    """Answer the question in a sentence or two."""
    told, control = study.told, study.spec.control
    if told.verdict is None:
        return "**The study is not finished.** Go on with: `fedpilot study DIR`"
    groups = {
        result: [name for name, judged in told.verdict.found.items() if judged.verdict == result]
        for result in ("better", "worse", "inconclusive")
    }
    if not told.verdict.found:
        return "**Nothing was compared:** no arm beside the control came to be."
    said = []
    for result in ("better", "worse"):
        if names := groups[result]:
            verb = "is" if len(names) == 1 else "are"
            said.append(f"{and_(names)} {verb} {result} than `{control}`")
    if names := groups["inconclusive"]:
        said.append(f"of {and_(names)} nothing is proved")
    text = "; ".join(said)
    return f"**{text[0].upper()}{text[1:]}.**"


def and_(names: Sequence[str]) -> str:
    """Join names as a person does."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def verdicts(study: Study) -> Iterator[str]:
    """Yield the table of verdicts."""
    told, spec = study.told, study.spec
    assert told.verdict is not None
    improvement = f"improvement in {spec.metric.name}"
    yield f"| arm | overrides | verdict | {improvement} | interval | pairs | why |"
    yield "|---|---|---|---:|---|---:|---|"
    for name, judged in told.verdict.found.items():
        changes = inline(", ".join(told.arms[name].overrides)) or "none"
        yield (
            f"| `{name}` | {changes} | **{judged.verdict}** | {signed(judged.mean)} |"
            f" {between(judged)} | {judged.pairs} | {judged.why} |"
        )
    yield ""
    yield (
        f"Control: `{spec.control}`. Figures are of the hidden test split; an improvement is"
        f" positive where the arm is better ({spec.metric.name}, {spec.metric.unit}:"
        f" {spec.metric.direction} is better)."
    )
    yield ""


def noise(study: Study) -> Iterator[str]:
    """Yield how much the control differs from itself."""
    floor, spec = study.told.floor, study.spec
    yield "## Noise floor"
    yield ""
    if floor is None:
        yield "Not measured yet."
    else:
        runs = list(floor.figures.values())
        typical = math.sqrt(2 * statistics.variance(runs))
        yield (
            f"`{spec.control}` against itself: {len(runs)} runs of it that differ in nothing but"
            f" the seed came to {min(runs):.4g} to {max(runs):.4g} on the validation split,"
            f" two of them {typical:.3g} apart (root mean square). The mean of {floor.planned} such"
            f" pairs stays below **{floor.floor:.4g}** in {percent(1 - spec.alpha)} of studies: the"
            " smallest difference worth a verdict, known before any arm ran."
        )
    yield ""


def searching(study: Study, drawn: set[str]) -> Iterator[str]:
    """Yield what a search tried."""
    told, spec = study.told, study.spec.search
    if spec is None:
        return
    yield "## Search"
    yield ""
    ended = told.search_ended.why if told.search_ended else "not finished"
    llm = sum(x.source == "llm" for x in told.proposed)
    who = f" The model decided {llm} of {len(told.proposed)}." if spec.method == "hybrid" else ""
    yield (
        f"{spec.method}, {len(told.tried)} of {spec.trials} trials ({ended}), by the validation"
        f" split, under seeds that no pair has.{who}"
    )
    yield ""
    if TRIALS in drawn:
        yield from (f"![Figures of the trials]({TRIALS})", "")
    keys = list(spec.bounds)
    yield f"| trial | {' | '.join(keys)} | {study.spec.metric.name} | proposed by |"
    yield f"|---:|{'---:|' * len(keys)}---:|---|"
    for x in best_first(study)[:SHOWN]:
        values = told.proposed[x].values
        cells = " | ".join(f"{values[key]:.4g}" for key in keys)
        figure = told.tried[x].figure
        shown = f"{figure:.4g}" if math.isfinite(figure) else "diverged"
        yield f"| {x + 1} | {cells} | {shown} | {told.proposed[x].source} |"
    if len(told.tried) > SHOWN:
        yield f"\nThe best {SHOWN} of {len(told.tried)}."
    yield ""


def best_first(study: Study) -> list[int]:
    """Order trials by their figure, diverged ones last."""
    sign = -1 if study.spec.metric.direction == "higher" else 1
    cost = {x.trial: sign * x.figure for x in study.told.tried}
    return sorted(cost, key=lambda n: (not math.isfinite(cost[n]), cost[n], n))


def advice(study: Study) -> Iterator[str]:
    """Yield what a model proposed, or that none was asked."""
    told, spec = study.told, study.spec.agent
    yield "## Proposals of a model"
    yield ""
    if spec is None:
        yield (
            "No model is configured, so nothing was proposed. To ask one, add to the study:"
            ' `agent = { model = "openai:MODEL@http://127.0.0.1:8000/v1", arms = 1 }`'
        )
    elif told.advice is None:
        yield f"`{inline(spec.model)}` was not asked for arms."
    elif told.advice.failure:
        yield f"`{inline(spec.model)}` proposed nothing usable: {inline(told.advice.failure)}"
    else:
        count = len(told.advice.arms)
        taken = "1 arm that was taken" if count == 1 else f"{count} arms that were taken"
        yield (
            f"`{inline(spec.model)}` proposed {taken}. It saw validation figures of finished runs;"
            " it saw no test figure and decides no verdict."
        )
        for arm in told.advice.arms:
            changes = inline(", ".join(arm.overrides))
            yield f"- `{arm.name}`: {changes}; its reason: {inline(arm.why)}"
        for why in told.advice.refused:
            yield f"- refused: {inline(why)}"
    yield ""


def method(study: Study) -> Iterator[str]:
    """Yield how verdicts are made, for who has to trust them."""
    spec, told = study.spec, study.told
    stopped = f" This one stopped because {told.stopped.why}." if told.stopped else ""
    yield "## How it was judged"
    yield ""
    yield (
        f"- Pairs: arm and control under the same seed, up to {len(spec.seeds)} of them; the mean"
        " paired difference by Student's t."
    )
    yield (
        f"- Looking early: the validation split says after each pair from the third on which arms"
        f" are decided; the bounds (alpha spending, Lan and DeMets 1983, linear; for few pairs by"
        f" simulation) hold at every number of pairs.{stopped}"
    )
    yield (
        f"- Many arms: Holm (1979). One wrong verdict or more has probability"
        f" {percent(spec.alpha)} at most; an interval is at the level at which its arm was tested."
    )
    yield (
        "- A verdict needs both: an interval that excludes no difference, and a mean beyond the"
        " noise floor."
    )
    yield "- The test split was read once, after the last run; nothing was chosen or stopped by it."
    yield (
        "- Caveat: with so few pairs nobody can check that differences are normal; a bootstrap"
        " would be no safer. Inconclusive is no proof of equality."
    )
    yield ""


def cost(study: Study) -> Iterator[str]:
    """Yield what it cost and where the runs are."""
    told, spec = study.told, study.spec
    yield "## Cost"
    yield ""
    yield (
        f"{told.client_steps:,} of {spec.max_client_steps:,} client-steps in"
        f" {len(told.measured)} runs, each a run directory under `{RUNS}/`."
    )
    yield ""
    yield f"| run | client-steps | {spec.metric.name}, validation | {spec.metric.name}, test |"
    yield "|---|---:|---:|---:|"
    test = told.unsealed.test if told.unsealed else {}
    for x in told.measured.values():
        yield (
            f"| {x.run} | {x.client_steps:,} | {number(x.validation)} |"
            f" {number(test.get(x.run)) if x.run in test else '-'} |"
        )


def number(value: float | None) -> str:
    """Write a figure."""
    if value is None:
        return "-"
    return f"{value:.4f}" if math.isfinite(value) else "diverged"


def signed(value: float | None) -> str:
    """Write an improvement."""
    return "-" if value is None else f"{value:+.4g}"


def between(judged: Judgement) -> str:
    """Write an interval and its level."""
    if judged.low is None or judged.high is None or judged.level is None:
        return "-"
    return f"{judged.low:+.4g} to {judged.high:+.4g} ({percent(judged.level)})"


def percent(share: float) -> str:
    """Write a probability."""
    return f"{100 * share:.3g} %"


def inline(text: str) -> str:
    """Keep a text of others within its line and cell."""
    words = " ".join(text.split())
    for sign in "\\|<>*_`[]":
        words = words.replace(sign, f"\\{sign}")
    return words


def as_json(study: Study) -> dict[str, JsonValue]:
    """Give what a script asks of a study."""
    told, spec = study.told, study.spec
    return {
        "path": str(study.path),
        "question": spec.question,
        "status": "finished" if told.verdict else "interrupted",
        "control": spec.control,
        "metric": spec.metric.model_dump(mode="json"),
        "noise_floor": told.floor.floor if told.floor else None,
        "arms": {
            name: {
                "overrides": list(arm.overrides),
                "source": arm.source,
                "judgement": told.verdict.found[name].model_dump(mode="json")
                if told.verdict and name in told.verdict.found
                else None,
            }
            for name, arm in told.arms.items()
        },
        "trials": len(told.tried),
        "stopped": told.stopped.why if told.stopped else None,
        "client_steps": told.client_steps,
        "max_client_steps": spec.max_client_steps,
        "runs": len(told.measured),
    }
