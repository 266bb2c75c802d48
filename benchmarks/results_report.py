"""The document: what was compared, tables made of run directories, and sentences made of tables."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from textwrap import fill

import numpy as np

from benchmarks.report import processor
from benchmarks.results_figures import (
    BASE,
    Difference,
    best,
    common_clients,
    difference,
    spread,
    values,
)
from benchmarks.results_runs import Done
from benchmarks.results_studies import CENTRALISED, LOCAL, MAIN, TUNING_SEED, Column
from federation.config import Config
from federation.evaluation.assess import SUBJECTS

WIDTH = 100
EDGE = {True: "yes", False: ""}
HOW_TO_READ = (
    """*base* is the model before any training. *local* is each client alone, with the work that it
has in the federation and nothing shared; on shared tests its figure is the mean of all these models
on the same rows. *centralised* pools everybody's rows and makes as many steps as all clients
together: what a federation is there to avoid, and the mark to come near to. *Own clients* is the
mean over clients, each on its own held-out rows, with its own model for *local* and the common one
for all others; *worst* is the mean over their worst tenth. *Unseen clients* are held out whole: no
round trains on them. All arms of a table are judged on the same rows.""",
    """A cell is mean ± standard deviation over seeds. The seed decides splits, unseen clients,
initial adapter and batches, so test rows differ between seeds and arms are compared within a seed:
± in a sentence is the deviation of that difference, and a difference counts where it is larger.
Signed differences are positive where the first named is better. A figure is bold where it is better
than every other's (*centralised* and *base* aside) by this rule. Losses are nats per token, lower
is better; accuracies are shares, higher is better.""",
)
REPEAT = """The data folder holds the public files under the names that `benchmarks/results_data.py`
reads. Interrupt it when you like: finished runs are kept in `{runs}`, the unfinished one goes on
where it was. `--only dolly` runs one study and writes its section alone; `--quick` shows in a few
minutes that everything works, with figures that mean nothing. Every run directory holds its whole
configuration and a journal: `fedpilot show RUN` prints it."""


def document(studies: Sequence[Done], command: str, runs: str, quick: bool) -> str:
    """Write the document in Markdown.

    Args:
        studies: their runs, all finished.
        command: what repeats it.
        runs: folder of the run directories.
        quick: whether the studies were shrunk.
    """
    warning = ["**Made with `--quick`: these figures mean nothing.**"] if quick else []
    parts = [
        "# Results on real data",
        paragraph(
            "What federated fine-tuning with the built-in model `nano` comes to on public data, "
            "against each client alone and against pooling all data. This file is "
            f"written by `{command}`; its tables and sentences are computed from the journals of "
            "the runs."
        ),
        *warning,
        "In short:",
        bullets(headline(done) for done in studies),
        "## How to read the tables",
        *map(paragraph, HOW_TO_READ),
        *chain.from_iterable(section(done) for done in studies),
        "## Repeat it",
        f"```\n{command}\n```",
        paragraph(REPEAT.format(runs=runs)),
        paragraph(machine(studies)),
    ]
    return "\n\n".join(parts) + "\n"


def section(done: Done) -> Iterator[str]:
    """Write what a study was, its table, and what the table says."""
    yield f"## {done.study.title}"
    yield paragraph(done.study.about)
    yield paragraph(protocol(done))
    yield table(done)
    yield "What it says:"
    yield bullets(reading(done))
    if any(done.tried.values()):
        yield paragraph(
            f"Tried on seed {TUNING_SEED}, which the table above does not use, by the loss on the "
            "clients' own tests; the chosen value is bold:"
        )
        yield tried(done)


def protocol(done: Done) -> str:
    """Say what all runs of a study share."""
    config = config_of(done)
    work, lora = config.work, config.adapter.model_dump()
    seeds = len({seed for _, _, seed in done.runs})
    return (
        f"Protocol: {config.rounds} rounds, {config.cohort.size} clients a round, {work.steps} "
        f"steps of {work.batch_size} examples (at most {config.data.max_tokens} tokens); LoRA of "
        f"rank {lora['rank']}, alpha {lora['alpha']:g}, on {lora['targets']} modules; AdamW without"
        f" weight decay unless the arm says sgd, gradients clipped at {work.max_grad_norm:g}; at "
        f"most {config.evaluation.max_examples} examples of each split are judged; "
        f"{counted(seeds)}."
    )


def config_of(done: Done) -> Config:
    """Return the configuration of the main arm's first run."""
    run = next(run for (_, arm, _), run in done.runs.items() if arm == MAIN.name)
    return Config.from_table(run.config, str(run.path))


def counted(seeds: int) -> str:
    """Count seeds in words."""
    return "1 seed, so no spread is known" if seeds == 1 else f"{seeds} seeds"


def table(done: Done) -> str:
    """Put arms below one another, setting by setting."""
    several = len(done.study.settings) > 1
    head = [*(["clients"] if several else []), "arm"]
    head += [column.heading for column in done.study.columns]
    rows = [
        [*([setting] if several else []), arm, *cells(done, setting, arm), sent(done, setting, arm)]
        for setting in done.study.settings
        for arm in arms(done)
    ]
    return markdown([*head, "MB sent up"], rows)


def arms(done: Done) -> list[str]:
    """List the arms as tables show them."""
    return [BASE, *(arm.name for arm in done.study.arms)]


def cells(done: Done, setting: str, arm: str) -> list[str]:
    """Write the figures of an arm."""
    rivals = [name for name in arms(done) if name not in (BASE, CENTRALISED.name)]
    return [
        bold(cell(values(done, setting, arm, column)), best(done, setting, rivals, column) == arm)
        for column in done.study.columns
    ]


def cell(values_S: np.ndarray) -> str:
    """Write mean and spread."""
    mean, deviation = float(values_S.mean()), spread(values_S)
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def bold(text: str, is_best: bool) -> str:
    """Mark the best."""
    return f"**{text}**" if is_best else text


def sent(done: Done, setting: str, arm: str) -> str:
    """Write the megabytes that all clients sent in a run; nothing travels without a federation."""
    if arm == BASE or arm in SUBJECTS:
        return "–"
    runs = [run for (where, name, _), run in done.runs.items() if (where, name) == (setting, arm)]
    return f"{np.mean([run.bytes_up for run in runs]) / 1e6:.0f}"


def headline(done: Done) -> str:
    """Say the one thing that a study was made for."""
    column = unseen(done)
    words = [
        f"{verdict(MAIN.name, LOCAL.name, setting_difference, done.study.unit)}"
        + (f" ({setting})" if setting else "")
        for setting in done.study.settings
        for setting_difference in [difference(done, setting, MAIN.name, LOCAL.name, column)]
    ]
    return f"{done.study.title.split(':')[0]}, {column.heading}: {'; '.join(words)}."


def unseen(done: Done) -> Column:
    """Return the figure of unseen clients that sentences are about."""
    return next(column for column in done.study.columns if column.split == "unseen")


def reading(done: Done) -> Iterator[str]:
    """Say what the table says, setting by setting."""
    for setting in done.study.settings:
        said = " ".join(chain(against_local(done, setting), against_pooling(done, setting)))
        yield f"{setting}: {said}" if setting else said
    yield from variants(done)


def against_local(done: Done, setting: str) -> Iterator[str]:
    """Compare the federation with each client alone; where it does not win, say what is behind."""
    for column in (unseen(done), own(done)):
        gain = difference(done, setting, MAIN.name, LOCAL.name, column)
        where = f"{column.heading} ({len(common_clients(done, setting, 0))})"
        where = column.heading if column.split == "unseen" else where
        yield f"On {where} {verdict(MAIN.name, LOCAL.name, gain, done.study.unit)}."
        if not (gain.mean > 0 and gain.is_clear):
            yield why_not(done, setting, column)


def own(done: Done) -> Column:
    """Return the figure of the clients' own tests."""
    return next(column for column in done.study.columns if column.split == "clients")


def why_not(done: Done, setting: str, column: Column) -> str:
    """Say what each of the two learnt, which is why one does not beat the other."""
    together = difference(done, setting, MAIN.name, BASE, column)
    alone = difference(done, setting, LOCAL.name, BASE, column)
    if together.mean <= 0:
        cause = "what the federation learns does not carry over to these rows"
    elif alone.mean > 0:
        cause = "most of what helps on these rows is learnt by a client alone, too"
    else:
        cause = "the gain is too small for this many seeds and rows"
    return (
        f"Against the base, {MAIN.name} gains {amount(together)} and {LOCAL.name} {amount(alone)}: "
        f"{cause}."
    )


def against_pooling(done: Done, setting: str) -> Iterator[str]:
    """Say which share of the gain of pooling the federation keeps."""
    column = done.study.columns[0]
    together = difference(done, setting, MAIN.name, BASE, column)
    pooled = difference(done, setting, CENTRALISED.name, BASE, column)
    said = f"On the {column.heading} it gains {amount(together)} on the base, "
    said += f"centralised training {amount(pooled)}"
    keeps = pooled.mean > 0 and together.mean > 0
    yield said + (f": {together.mean / pooled.mean:.0%} of it." if keeps else ".")


def variants(done: Done) -> Iterator[str]:
    """Compare the other federated algorithms with FedAvg, each with the one of its optimizer."""
    column = unseen(done)
    for arm in done.study.arms:
        if arm.name in (MAIN.name, *SUBJECTS):
            continue
        rival = arm.after or MAIN.name
        gain = difference(done, "", arm.name, rival, column)
        yield f"On {column.heading} {verdict(arm.name, rival, gain, done.study.unit)}."


def verdict(one: str, other: str, gain: Difference, unit: str) -> str:
    """Say which of two arms is better, or that this is not known."""
    if math.isnan(gain.spread):
        return f"*{one}* against *{other}*: {amount(gain)} {unit} in the only seed"
    if not gain.is_clear:
        return f"*{one}* did not beat *{other}*: {amount(gain)} {unit}, within the spread"
    size = f"{abs(gain.mean):.3f} ± {gain.spread:.3f} {unit}"
    return f"*{one}* {'beats' if gain.mean > 0 else 'loses to'} *{other}* by {size}"


def amount(gain: Difference) -> str:
    """Write a difference with its sign."""
    known = not math.isnan(gain.spread)
    return f"{gain.mean:+.3f}" + (f" ± {gain.spread:.3f}" if known else "")


def tried(done: Done) -> str:
    """List the values tried for every arm, and the losses that decided."""
    rows = []
    for arm in done.study.arms:
        losses, chosen = done.tried[arm.name], done.chosen[arm.name]
        shown = [
            bold(f"{value:g}: {loss:.3f}", value == chosen[arm.tunes])
            for value, loss in losses.items()
        ]
        edge = bool(losses) and chosen[arm.tunes] in (min(losses), max(losses))
        taken = f"work.lr of {arm.after}" if arm.after else ""
        rows.append([arm.name, taken, arm.tunes if losses else "", "; ".join(shown), EDGE[edge]])
    return markdown(["arm", "takes over", "tried", "value: loss", "best at the edge"], rows)


def machine(studies: Sequence[Done]) -> str:
    """Say what it ran on and how much it was."""
    runs = [run for done in studies for run in done.all_runs()]
    start = runs[0].history.start
    if start is None:
        raise AssertionError("a finished run has a start record")
    steps = sum(record.client_steps for run in runs for record in run.history.rounds.values())
    versions = ", ".join(f"{name} {number}" for name, number in start.versions.items())
    return (
        f"These tables: {len(runs)} runs, {steps:,} clients' steps in "
        f"{sum(run.seconds for run in runs) / 60:.0f} minutes of training (evaluation and the "
        f"choice of values not counted) on {processor()}, "
        f"{start.threads} thread{'s' * (start.threads > 1)}, {start.dtype}; "
        f"{versions}. Smaller differences than those above may come from another machine's "
        "arithmetic."
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Write a list."""
    return "\n".join(
        fill(line, WIDTH, initial_indent="- ", subsequent_indent="  ") for line in lines
    )


def paragraph(text: str) -> str:
    """Break a paragraph into lines; no line begins like a list."""
    return fill(" ".join(text.split()), WIDTH, break_on_hyphens=False)
