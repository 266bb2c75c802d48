"""``fedpilot export``: copy a run's adapter to where it is used."""

from argparse import Namespace

from federation.runs.run import Run


def main(args: Namespace) -> int:
    """Copy the adapter and say how to load it."""
    out = Run.open(args.directory).export(args.to)
    print(f"{out}: an adapter for peft.PeftModel.from_pretrained(model, {str(out)!r})")
    return 0
