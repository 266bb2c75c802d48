"""``fedpilot export``: what a run has learnt, as files, where it is used."""

from argparse import Namespace
from pathlib import Path

from federation.errors import ConfigError
from federation.runs.run import Run, checkpoint_files
from ui.results import configuration


def main(args: Namespace) -> int:
    """Write the adapter or the whole model, and say how to load it."""
    if args.round is not None and args.round < 1:
        raise ConfigError(f"--round {args.round}: rounds count from 1")
    run = Run.open(args.directory)
    if args.round is None and not args.whole and run.status == "finished":
        run.export(args.to)
        round = len(run.history.rounds)
    else:
        round = write(run, args.to, args.round, whole=args.whole)
    from federation.training.base import model_source

    base = None if args.whole else model_source(configuration(run).model.base)
    what = "a whole model" if args.whole else "a PEFT adapter"
    print(f"{args.to}: {what}, after round {round}; to load it:")
    for line in loading(args.to, base):
        print(f"  {line}")
    return 0


def write(run: Run, out: Path, round: int | None, *, whole: bool) -> int:
    """Write the model after a round; the last one of a finished run, if none is named.

    Returns:
        The round, from 1.

    Raises:
        ConfigError: if no such state is kept, or the run trains no adapter for everybody.
    """
    from agents.serving.place import chat_template
    from federation import releases

    releases.check_servable(run)
    files = checkpoint_files(run.path, run.history)
    kept = [n + 1 for n, file in files.items() if file.exists()]
    if round is None and run.status != "finished":
        raise ConfigError(
            f"{run.path} is not finished: finish it with fedpilot resume {run.path}, or name one of"
            f" its rounds {kept} with --round"
        )
    round = round or run.history.last_round + 1
    if round not in kept:
        raise ConfigError(f"{run.path} keeps no state of round {round}; it has {kept}")
    source = releases.open_source(run, "float32")
    releases.export(source, round - 1, out, chat_template(source) if whole else None)
    return round


def loading(folder: Path, base: str | None) -> list[str]:
    """Write the Python that loads what was exported.

    Args:
        folder: that holds it.
        base: model that an adapter belongs to; None: it is a whole model.
    """
    load = "transformers.AutoModelForCausalLM.from_pretrained"
    if base is None:
        return [f"model = {load}({str(folder)!r})"]
    return [
        f"model = {load}({base!r}, dtype='float32')",  # as --whole writes it
        f"model = peft.PeftModel.from_pretrained(model, {str(folder)!r})",
    ]
