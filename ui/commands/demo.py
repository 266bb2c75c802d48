"""``fedpilot demo``: the whole job in ninety seconds, offline, on what ships with fedpilot."""

import sys
from argparse import Namespace
from itertools import chain
from pathlib import Path

from federation.config import Config
from federation.data.organisations import organisations
from ui.commands.running import numbered, start

SETTINGS = Path(__file__).parents[1] / "demo.toml"
STORY = """\
{clients} invented organisations ({who}) hold private questions, each
with one right answer.  Together they teach the same frozen language model: every organisation
trains a small adapter on its own text, and only adapters travel.  Their text never leaves them.
{rounds} rounds, {size} organisations a round; then, to compare, every organisation alone, and one
model on everybody's text.  A pilot decides by rule what a round should be; no language model is
connected (one would advise it: --set pilot.policy=hybrid --set pilot.model=openai:MODEL@URL).
"""


def main(args: Namespace) -> int:
    """Say what is done, and do it."""
    config = Config.from_toml(SETTINGS, args.overrides)
    print(story(config), file=sys.stderr)
    code = start(config, args, chain([Path("runs/demo")], numbered(Path("runs"), "demo", 2)))
    print(f"why      fedpilot explain {args.directory}")
    return code


def story(config: Config) -> str:
    """Tell a newcomer what will happen."""
    count, rounds, size = config.data.count, config.rounds, config.cohort.size
    who = ", ".join(one.id for one in organisations(config.seed, count, total=config.data.examples))
    return STORY.format(clients=count, who=who, rounds=rounds, size=size)
