"""What can be typed after ``fedpilot``: commands, their arguments and their help.

Knows no command's work and imports none of it.
"""

import difflib
from argparse import REMAINDER, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from federation.errors import ConfigError

DESCRIPTION = """\
Federated fine-tuning of language models: many owners of text, one better model, and nobody's
text moves.  Start with: fedpilot demo"""
RESUME = "fedpilot resume {}"


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse arguments.

        Raises:
            ConfigError: always.
        """
        for kind, words in (("int", "a whole number"), ("float", "a number")):
            message = message.replace(f"invalid {kind} value:", f"write {words}, not")
        raise ConfigError(f"{message}; see: {self.prog} --help")


@dataclass(frozen=True)
class Command:
    """A command as the parser sees it.

    Attributes:
        name: what is typed.
        help: one line.
        arguments: adds its arguments to its parser.
        module: file in ``ui/commands`` whose ``main(args)`` does it; the name if empty.
        go_on: if it writes a run, what goes on with it when it was stopped; ``{}`` is the run.
    """

    name: str
    help: str
    arguments: Callable[[ArgumentParser], None]
    module: str = ""
    go_on: str = ""


def a_run(parser: ArgumentParser) -> None:
    """Add the run directory that a command is about."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="run directory")
    parser.set_defaults(of_run=True)


def as_json(parser: ArgumentParser, more: str = "") -> None:
    """Add the switch to output for scripts."""
    help = f"print JSON for a script{more}"
    parser.add_argument("--json", action="store_true", help=help)


def settings(parser: ArgumentParser, example: str = "work.lr=0.01") -> None:
    """Add overrides of the configuration."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a key, for example {example}",
    )


def a_new_run(parser: ArgumentParser, default: str) -> None:
    """Add where a new run is written, and overrides."""
    help = f"new run directory (default: {default})"
    parser.add_argument("--out", dest="directory", metavar="DIR", type=Path, help=help)
    settings(parser)


def a_configuration(parser: ArgumentParser) -> None:
    """Add the configuration file."""
    parser.add_argument("config", metavar="CONFIG", type=Path, help="TOML file")


def _run(parser: ArgumentParser) -> None:
    a_configuration(parser)
    a_new_run(parser, "runs/NAME-1, runs/NAME-2, ...")


def _demo(parser: ArgumentParser) -> None:
    a_new_run(parser, "runs/demo, runs/demo-2, ...")


def _runs(parser: ArgumentParser) -> None:
    help = "folder that holds runs (default: runs)"
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?", help=help)
    as_json(parser)


def _verify(parser: ArgumentParser) -> None:
    help = "run directory, or folder of a study"
    parser.add_argument("directory", metavar="DIR", type=Path, help=help)
    as_json(parser)


def _read(parser: ArgumentParser) -> None:
    a_run(parser)
    as_json(parser, "; rounds count from 1, in ids of facts and in the journal from 0")


def _eval(parser: ArgumentParser) -> None:
    _read(parser)
    help = "evaluate on these rows, with the run's templates, instead of on the run's test set"
    parser.add_argument("--data", metavar="FILE", help=help)


def _explain(parser: ArgumentParser) -> None:
    _read(parser)
    parser.add_argument("--round", metavar="R", type=int, help="this round only, from 1")


def _whatif(parser: ArgumentParser) -> None:
    _read(parser)
    help = "round, from 1 (default: the last there is, or with --rounds K the last K)"
    parser.add_argument("--round", metavar="R", type=int, help=help)
    group = parser.add_argument_group("what is otherwise")
    add = group.add_argument
    help = "this client does not report; may be given again"
    add("--drop", metavar="CLIENT", action="append", default=[], help=help)
    help = "this client weighs so many times as much; may be given again"
    add("--reweight", metavar="CLIENT=FACTOR", action="append", default=[], help=help)
    help = "another algorithm, such as median, trimmedmean:trim=0.2, krum:byzantine=1"
    add("--algorithm", metavar="NAME", help=help)
    add("--clip", metavar="NORM", type=float, help="largest L2 norm of a client's update")
    help = "factor on the clients' learning rate"
    add("--scale-lr", dest="scale_lr", metavar="FACTOR", type=float, help=help)
    add("--steps", metavar="N", type=int, help="optimizer steps per client and round")
    help = "instead: what every client of the round contributed, each left out in turn"
    add("--contributions", action="store_true", help=help)
    group = parser.add_argument_group("how it is found out")
    add = group.add_argument
    help = "play so many rounds with the change, and judge after the last (default: 1)"
    add("--rounds", metavar="K", type=int, help=help)
    help = "do it so often, with other draws from the second on, for an interval (default: 1)"
    add("--repeats", metavar="N", type=int, default=1, help=help)


def _steer(parser: ArgumentParser) -> None:
    help = "run that goes on now, or a study to stop"
    parser.add_argument("directory", metavar="DIR", type=Path, help=help)
    deeds = parser.add_subparsers(dest="deed", metavar="COMMAND", title="commands", required=True)

    def add(name: str, help: str) -> ArgumentParser:
        deed = deeds.add_parser(name, help=help, description=help)
        deed.add_argument("--by", metavar="NAME", default="person", help="who says so")
        as_json(deed)
        return deed

    add("pause", "wait before the next round")
    add("resume", "wait no longer")
    add("stop", "end after the round in flight, to be gone on with later")
    help = "play further rounds, beyond those that are planned"
    add("more-rounds", help).add_argument("n", metavar="N", type=int, help="how many")
    for name, help in (
        ("approve", "let a round be as it was proposed"),
        ("edit", "let a round be as proposed but for these values"),
        ("reject", "let everything stay as it is"),
    ):
        answer = add(name, help)
        help = "what was asked, as the run and fedpilot show say: round-4"
        answer.add_argument("asked", metavar="ID", help=help)
        if name == "edit":
            answer.add_argument("values", metavar="KEY=VALUE", nargs="+", help="knob and value")


def _chat(parser: ArgumentParser) -> None:
    _read(parser)
    help = "language model: openai:MODEL@URL or scripted:FILE (default: commands, see help there)"
    parser.add_argument("--model", metavar="SPEC", help=help)
    help = "say this instead of reading what is typed; several in turn"
    parser.add_argument("--say", metavar="TEXT", action="extend", nargs="+", default=[], help=help)
    help = "approve calls of this tool without asking; may be given again"
    parser.add_argument("--yes-to", metavar="NAME", action="append", default=[], help=help)
    help = "go on with this chat of the run (default: a new one)"
    parser.add_argument("--chat", metavar="CHAT", help=help)
    help = "client-steps that runs started here may take in all (default: as many as the run plans)"
    parser.add_argument("--client-steps", metavar="N", type=int, help=help)


def _replay(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="DIR", type=Path, help="finished run")
    help = "new run directory"
    parser.add_argument(
        "--out", dest="directory", metavar="DIR", type=Path, required=True, help=help
    )


def _fork(parser: ArgumentParser) -> None:
    a_run(parser)
    help = "round after which it goes its own way, from 1; its checkpoint must be kept"
    parser.add_argument("--round", metavar="R", type=int, required=True, help=help)
    help = "new run directory"
    parser.add_argument("--out", metavar="NEW", type=Path, required=True, help=help)
    help = "rounds that are to follow (default: as many as were planned)"
    parser.add_argument("--rounds", metavar="N", type=int, help=help)
    settings(parser)


def _study(parser: ArgumentParser) -> None:
    help = "TOML file of a study, or the folder of one to go on with"
    parser.add_argument("study", metavar="CONFIG", type=Path, help=help)
    help = "new folder of the study (default: studies/NAME-1, studies/NAME-2, ...)"
    parser.add_argument("--out", dest="directory", metavar="DIR", type=Path, help=help)
    help = "run nothing, write the report of the study in folder CONFIG anew"
    parser.add_argument("--report", action="store_true", help=help)
    settings(parser, "base.rounds=4")
    as_json(parser)


def _export(parser: ArgumentParser) -> None:
    a_run(parser)
    help = "new folder; PEFT and vLLM load it as it is"
    parser.add_argument("--to", dest="to", metavar="OUT", type=Path, required=True, help=help)
    help = "the model after this round, from 1 (default: the last round of a finished run)"
    parser.add_argument("--round", metavar="R", type=int, help=help)
    help = "write all weights with the adapter added to them, a model that needs no PEFT"
    parser.add_argument("--whole", action="store_true", help=help)


def _serve(parser: ArgumentParser) -> None:
    a_run(parser)
    add = parser.add_argument
    help = "serve the adapter after this round, from 1 (default: the newest)"
    add("--round", metavar="R", type=int, help=help)
    add("--port", metavar="P", type=int, default=0, help="of 127.0.0.1 (default: any free one)")
    add("--follow", action="store_true", help="go on to new rounds while the run goes on")
    help = "vllm, or transformers where there is none: one round, no key (default: vllm)"
    add("--engine", metavar="NAME", default="vllm", help=help)
    help = "text that the base model and each round continue, side by side; may be given again"
    add("--ask", metavar="TEXT", action="append", default=[], help=help)
    help = "further option of the server, as max-model-len=4096; may be given again"
    add("--option", metavar="NAME=VALUE", action="append", default=[], help=help)


def _picture(name: str) -> Path:
    """Take the name of a picture, which is written as PNG whatever it is called."""
    if Path(name).suffix.lower() != ".png":
        raise ArgumentTypeError(f"{name!r} is no PNG: choose a name that ends in .png")
    return Path(name)


def _port(text: str) -> int:
    """Take a port on which something can listen and be found."""
    if not (text.isdecimal() and 1 <= int(text) <= 65_535):
        raise ArgumentTypeError(f"{text!r} is no port: choose a whole number from 1 to 65535")
    return int(text)


def _data(parser: ArgumentParser) -> None:
    help = "TOML file, or run directory: the data that the run had"
    parser.add_argument("config", metavar="CONFIG", type=Path, help=help)
    settings(parser)
    as_json(parser)
    help = "draw clients x labels as a heat map"
    parser.add_argument("--plot", metavar="FILE.png", type=_picture, help=help)


def _synthesize(parser: ArgumentParser) -> None:
    parser.add_argument("profile", metavar="PROFILE", type=Path, help="TOML file: who, what, how")
    parser.add_argument("--init", action="store_true", help="write an example to PROFILE instead")
    parser.add_argument("--out", metavar="FILE", type=Path, help="new file of the rows, .jsonl")
    help = "language model: openai:MODEL@URL or scripted:FILE (default: built-in templates)"
    parser.add_argument("--model", metavar="SPEC", help=help)
    files = {"metavar": "FILE", "type": Path, "action": "extend", "nargs": "+", "default": []}
    help = "private text: never repeated; votes, if the profile says so"
    parser.add_argument("--private", help=help, **files)
    help = "text that models will be judged on: never repeated, never votes"
    parser.add_argument("--test", help=help, **files)
    help = "admit the set only if this run is better with it than without"
    parser.add_argument("--gate", metavar="CONFIG", type=Path, help=help)
    help = "of all that is drawn (default: 0)"
    parser.add_argument("--seed", metavar="N", type=int, default=0, help=help)
    as_json(parser)


def _pretrain(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="TOML file")
    help = "folder with the public texts that the recipe names"
    parser.add_argument("--data", metavar="FOLDER", type=Path, required=True, help=help)
    help = "run directory, new or to go on with; the model will be in DIR/model"
    parser.add_argument(
        "--out", dest="directory", metavar="DIR", type=Path, required=True, help=help
    )


def _bench(parser: ArgumentParser) -> None:
    help = "engine: against a plain PEFT loop; pilot: who steers, on a table of runs and live"
    parser.add_argument("subject", choices=["engine", "pilot"], help=help)
    parser.add_argument("rest", nargs=REMAINDER, help="arguments of the benchmark")


def _ui(parser: ArgumentParser) -> None:
    help = "folder that holds runs, or will (default: runs)"
    parser.add_argument("folder", metavar="RUNS", type=Path, nargs="?", help=help)
    help = "port of loopback (default: %(default)s)"
    parser.add_argument("--port", metavar="N", type=_port, default=8501, help=help)


def _init(parser: ArgumentParser) -> None:
    help = "new file (default: fedpilot.toml)"
    parser.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", default="fedpilot.toml", help=help
    )


COMMANDS = (
    Command(
        "demo",
        "see it work in ninety seconds, offline, on invented organisations",
        _demo,
        go_on=RESUME,
    ),
    Command("ui", "open the interface in a browser: set up, watch, steer, compare", _ui),
    Command("run", "run a federated experiment", _run, go_on=RESUME),
    Command("resume", "go on with a run that was stopped or killed", a_run, go_on=RESUME),
    Command("steer", "pause, stop or lengthen a run that goes on, or answer what it asks", _steer),
    Command("runs", "list runs", _runs),
    Command("show", "show what a run came to", _read),
    Command("explain", "say what happened in each round, and what was decided", _explain),
    Command("whatif", "say what a round would have come to if something were otherwise", _whatif),
    Command("chat", "talk about a run, and propose what to do next", _chat),
    Command("replay", "repeat a finished run from its journal, to the same bits", _replay),
    Command("fork", "run on from a round of a run, with something otherwise", _fork, go_on=RESUME),
    Command(
        "study",
        "compare ways to train by an experiment that keeps its error rate",
        _study,
        go_on="fedpilot study {}",
    ),
    Command("verify", "check that a run or a study is as it was written", _verify),
    Command("eval", "evaluate a run's model, on other data if you like", _eval, "evaluate"),
    Command("export", "write a run's adapter, or the whole model, to where it is used", _export),
    Command("serve", "serve the base model and a run's adapter, and follow its rounds", _serve),
    Command("data", "report how much the clients of a configuration differ", _data),
    Command("synthesize", "make up the data of a federation, and measure it", _synthesize),
    Command("pretrain", "pre-train a small base model federatedly", _pretrain, go_on=RESUME),
    Command("bench", "measure the engine, or those who steer, on this machine", _bench),
    Command("init", "write a configuration with every key explained", _init),
)


def parser() -> ArgumentParser:
    """Build the parser."""
    top = Parser(prog="fedpilot", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"fedpilot {own_version()}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        command.arguments(sub)
        sub.set_defaults(module=command.module or command.name, go_on=command.go_on)
    return top


def own_version() -> str:
    """Return the installed version."""
    try:
        return version("fedpilot")
    except PackageNotFoundError:
        return "(not installed)"


def parse(argv: Sequence[str]) -> Namespace:
    """Read the arguments of one command.

    Raises:
        ConfigError: if they cannot be used.
        SystemExit: after ``--help`` and ``--version``.
    """
    known = [command.name for command in COMMANDS]
    if argv and not argv[0].startswith("-") and argv[0] not in known:
        near = difflib.get_close_matches(argv[0], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"commands are {', '.join(known)}"
        raise ConfigError(f"there is no command {argv[0]!r}; {hint}")
    top = parser()
    if not argv:
        top.print_help()
        raise SystemExit(0)
    args, unknown = top.parse_known_args(argv)
    if unknown:
        of = f"fedpilot {args.command}" if args.command else "fedpilot"
        raise ConfigError(f"{of} does not know {' '.join(unknown)}; see: {of} --help")
    return args
