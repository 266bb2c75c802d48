"""``fedpilot explain``: what happened in a round, in sentences whose numbers are checked."""

from argparse import Namespace
from typing import Any

from agents.claims import Claim, as_text
from agents.explain import explained
from federation.errors import ConfigError
from federation.runs.run import Run
from ui.tables import print_json


def main(args: Namespace) -> int:
    """Explain one round, or every round."""
    run = Run.open(args.directory)
    last = run.history.last_round
    if args.round is not None and not 1 <= args.round <= last + 1:
        there = f"it has rounds 1 to {last + 1}" if last >= 0 else "no round was played yet"
        raise ConfigError(f"{run.path} has no round {args.round} to explain: {there}")
    rounds = range(last + 1) if args.round is None else [args.round - 1]
    found = {round: explained(run.history, round)[0] for round in rounds}
    if args.json:
        print_json({"path": str(run.path), "rounds": [listed(n, c) for n, c in found.items()]})
    else:
        print("\n".join(map(as_text, found.values())))
    return 0


def listed(round: int, claims: list[Claim]) -> dict[str, Any]:
    """Say for a script what is claimed of a round; rounds are numbered from 1, as people do."""
    return {"round": round + 1, "claims": [claim.model_dump(mode="json") for claim in claims]}
