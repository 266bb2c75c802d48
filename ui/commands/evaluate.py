"""``fedpilot eval``: evaluate a run's global model."""

from argparse import Namespace

from rich.table import Table

from federation.data.heterogeneity import counted
from federation.errors import ConfigError
from federation.pretraining.recipe import recipe_of
from federation.runs.run import Figures, Run
from ui import tables
from ui.results import NAMES, plain


def main(args: Namespace) -> int:
    """Evaluate on the run's test set or on another file, as a table or as JSON."""
    run = Run.open(args.directory)
    if recipe_of(run) is not None:
        raise ConfigError(
            f"{run.path} pre-trained a model, and has no test set; name its folder {run.path}/model"
            " as model.base of a run, which judges it"
        )
    from federation.reassess import reassess

    count, figures = reassess(run, args.data)
    where = args.data or "global test set"
    if args.json:
        values = {"path": str(run.path), "data": where, "examples": count}
        tables.print_json(values | {"evaluation": plain(figures)})
    else:
        tables.out().print(table(figures, f"{counted(count, 'example')} of {where}"))
    return 0


def table(figures: Figures, title: str) -> Table:
    """Lay figures out, a row for each model."""
    names = list(dict.fromkeys(name for metrics in figures.values() for name in metrics))
    laid = Table(title=title, title_justify="left")
    laid.add_column("model")
    for name in names:
        laid.add_column(tables.HEADINGS.get(name, name.replace("_", " ")), justify="right")
    for subject, metrics in figures.items():
        laid.add_row(NAMES[subject], *(tables.figure(metrics, name) for name in names))
    return laid
