"""``fedpilot export``: copy a run's adapter to where it is used."""

from argparse import Namespace

from federation.runs.run import Run
from ui.results import configuration


def main(args: Namespace) -> int:
    """Copy the adapter and say how to load it."""
    run = Run.open(args.directory)
    out = run.export(args.to)
    from federation.training.base import model_source

    base = model_source(configuration(run).model.base)
    print(f"{out}: a PEFT adapter; to load it:")
    print(f"  model = transformers.AutoModelForCausalLM.from_pretrained({base!r})")
    print(f"  model = peft.PeftModel.from_pretrained(model, {str(out)!r})")
    return 0
