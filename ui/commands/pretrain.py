"""``fedpilot pretrain``: pre-train a small base model federatedly."""

import sys
from argparse import Namespace

from federation.errors import DataError


def main(args: Namespace) -> int:
    """Run a recipe; the model it makes is a folder that transformers loads."""
    from federation.algorithms.catalogue import diloco
    from federation.pretraining.pretrain import Recipe, pretrain

    recipe = Recipe.from_toml(args.recipe)
    if not args.data.is_dir():
        raise DataError(f"{args.data} is no folder; --data names the folder of public texts")
    outer = diloco(recipe.outer.lr, recipe.outer.momentum)
    pretrain(recipe, args.data, args.directory, outer, say)
    print(f"model  {args.directory / 'model'}")
    return 0


def say(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)
