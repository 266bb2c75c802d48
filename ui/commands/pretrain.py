"""``fedpilot pretrain``: pre-train a small base model federatedly."""

from argparse import Namespace

from federation.pretraining.recipe import Recipe
from federation.runs.folder import is_run
from federation.runs.run import Run
from ui.commands.running import report
from ui.progress import watching


def main(args: Namespace) -> int:
    """Run a recipe, or go on with it; the model it makes is a folder that transformers loads."""
    recipe = Recipe.from_toml(args.recipe)
    done = len(Run.open(args.directory).history.rounds) if is_run(args.directory) else 0
    from federation.pretraining.pretrain import pretrain

    with watching(recipe.rounds, done) as watch:
        run = pretrain(recipe, args.data, args.directory, watch)
    report(run)
    return 0
