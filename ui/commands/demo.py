"""``fedpilot demo``: the whole job in ninety seconds, offline, on what ships with fedpilot."""

import sys
from argparse import Namespace
from itertools import chain
from pathlib import Path

from federation.config import Config
from federation.data.organisations import organisations
from federation.runs.run import Run
from ui import tables
from ui.commands.running import numbered, start

SETTINGS = Path(__file__).parents[1] / "demo.toml"
STORY = """\
{clients} invented organisations ({who}) hold private questions, each
with one right answer.  Together they teach the same frozen language model: every organisation
trains a small adapter on its own text, and only adapters travel.  Their text never leaves them.
{rounds} rounds, {size} organisations a round; then, to compare, every organisation alone, and one
model on everybody's text.  A pilot decides what a round should be and who is asked, and explains
every round; first it makes rows up, of what the organisations say of themselves, and lets the
rounds begin from an adapter trained on them if trials show that it helps.
{who_decides}
"""
BY_RULE = """All of that by rule: no language model is connected (one would advise it:
--set pilot.policy=hybrid --set pilot.model=openai:MODEL@URL)."""


def main(args: Namespace) -> int:
    """Say what is done, and do it."""
    config = Config.from_toml(SETTINGS, args.overrides)
    print(story(config), file=sys.stderr)
    if args.directory is None:
        names = chain([Path("runs/demo")], numbered(Path("runs"), "demo", 2))
        args.directory = next(path for path in names if not path.exists())
    code = start(config, args, iter(()))
    for told in Run.open(args.directory).history.explanations:
        tables.out().print(f"         {told.text}", soft_wrap=True, markup=False)
    return code


def story(config: Config) -> str:
    """Tell a newcomer what will happen."""
    count, rounds, size = config.data.count, config.rounds, config.cohort.size
    who = ", ".join(
        one.id for one in organisations(config.data_seed, count, total=config.data.examples)
    )
    model = config.pilot.get("model")
    decides = f"{model} is asked what a round should be." if model else BY_RULE
    return STORY.format(clients=count, who=who, rounds=rounds, size=size, who_decides=decides)
