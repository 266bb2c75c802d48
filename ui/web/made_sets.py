"""Made-up sets beside the runs: what there is of each, how it stands, and how one is begun.

A set is a folder ``RUNS/.data/NAME``: its profile, its rows, its card.  Whenever a gate is asked,
the same rows are made from the same seed and judged; they then lie beside the first ones, with a
card on which the verdict stands.  The newest verdict counts, and earlier ones stay.
"""

import json
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from agents.synthesis.profile import GateSpec, Profile, wanted
from agents.synthesis.publish import Files
from federation.config import Config
from federation.data.templates import parse_template
from federation.errors import ConfigError
from federation.runs import storage
from llm_tools.synthesis.rows import Row
from ui.web import jobs
from ui.web.draft import first_draft
from ui.web.forms import Control, Table, controls, got, put
from ui.web.jobs import Job
from ui.web.places import DATA, checked_name
from ui.web.written import toml_text

EXAMPLE = Path(__file__).parents[1] / "profile.toml"
PROFILE, ROWS = "profile.toml", "set.jsonl"
GATE_ROUNDS = 3
"""Rounds of each of the small runs by which the demo's experiment judges a set."""

GLOBAL = tuple(controls(Profile.model_json_schema(), elsewhere={"clients"}))


def client_controls(schema: Mapping[str, Any]) -> tuple[Control, ...]:
    """Return the controls of one client."""
    return tuple(controls(schema["$defs"]["ClientProfile"], "", (), schema["$defs"]))


CLIENT = client_controls(Profile.model_json_schema())


@dataclass(frozen=True)
class MadeSet:
    """A set that is there, or is being made.

    Attributes:
        folder: where it lies.
        card: what was measured, the gate's card if it has spoken; empty while there is none.
        rows: file of its rows; None while there is none.
        status: "making", "judging", "made", "admitted", "rejected" or "failed".
        said: of a job that failed or goes on, what it said last.
        earlier: verdicts of the gate before the newest one, the first one first.
    """

    folder: Path
    card: Mapping[str, Any]
    rows: Path | None
    status: str
    said: str = ""
    earlier: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.folder.name


def names(runs: Path) -> list[str]:
    """List the sets, the newest first."""
    found = [path.parent for path in (runs / DATA).glob(f"*/{PROFILE}")]
    found.sort(key=lambda path: (path / PROFILE).stat().st_mtime, reverse=True)
    return [path.name for path in found]


def read(runs: Path, name: str) -> MadeSet:
    """Read how a set stands.

    Raises:
        ConfigError: if there is none of that name.
    """
    folder = runs / DATA / checked_name(name)
    if not (folder / PROFILE).is_file():
        raise ConfigError(f"there is no set {name!r} in {runs / DATA}")
    first, judged = Files(folder / ROWS), verdicts(folder)
    card = card_in(judged[-1] if judged else first)
    places = (judged[-1].rows, judged[-1].rejected) if judged else (first.rows,)
    rows = next((file for file in places if file.is_file()), None)
    earlier = tuple(card_in(files).get("gate") or {} for files in judged[:-1])
    job = job_of(runs, folder)
    if job is not None and job.alive and not delivered(job, folder, card):
        status = "judging" if "--gate" in job.args else "making"
        return MadeSet(folder, card, rows, status, job.said, earlier)
    refused = card.get("gate") and not card["gate"]["admitted"]
    # A command that finds a set rejected ends as one that failed, and says what the card says.
    failed = job is not None and job.code not in (0, None) and not spoke(job, folder)
    said = job.said if job is not None and failed else ""
    if card.get("gate"):
        status = "rejected" if refused else "admitted"
        return MadeSet(folder, card, rows, status, said, earlier)
    if rows is None:
        return MadeSet(folder, card, None, "failed", said or "it was stopped before it was made")
    return MadeSet(folder, card, rows, "made", said)


def judged_in(folder: Path, n: int) -> Files:
    """Return the files of the n-th verdict of the gate, from 1."""
    return Files(folder / ("gated.jsonl" if n == 1 else f"gated-{n}.jsonl"))


def verdicts(folder: Path) -> list[Files]:
    """List the verdicts of the gate, the first one first."""
    found: list[Files] = []
    while card_in(files := judged_in(folder, len(found) + 1)):
        found.append(files)
    return found


def delivered(job: Job, folder: Path, card: Mapping[str, Any]) -> bool:
    """Tell whether what a job was started for is there, though its process may not have ended."""
    return spoke(job, folder) if "--gate" in job.args else bool(card)


def spoke(job: Job, folder: Path) -> bool:
    """Tell whether a job made the newest verdict on a set."""
    judged = verdicts(folder)
    return bool(judged) and str(judged[-1].rows) in job.args


def card_in(files: Files) -> dict[str, Any]:
    """Read a card; empty if there is none that can be read."""
    try:
        found = json.loads(files.card.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def job_of(runs: Path, folder: Path) -> Job | None:
    """Return the newest job that made or judged a set."""
    found = [j for j in jobs.jobs(runs, "") if any(Path(x).parent == folder for x in j.args)]
    return max(found, key=lambda job: job.began, default=None)


def rows_of(made: MadeSet, most: int = 2000) -> list[dict[str, Any]]:
    """Read rows of a set, the first so many of its beginning."""
    if made.rows is None:
        return []
    try:
        with open(made.rows, encoding="utf-8") as lines:
            return [json.loads(line) for line in islice(lines, most)]
    except (OSError, ValueError):
        return []


@dataclass(frozen=True)
class Order:
    """What is asked of ``fedpilot synthesize`` beside a profile.

    Attributes:
        seed: of all that is drawn.
        model: spec of a language model; empty: the built-in templates.
        private: files whose passages are kept out, and that vote.
        test: files whose passages are kept out, and that never vote.
    """

    seed: int = 0
    model: str = ""
    private: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def args(self, profile: Path, out: Path, gate: Path | None = None) -> list[str]:
        """Return what follows ``fedpilot``."""
        args = ["synthesize", str(profile), "--out", str(out), "--seed", str(self.seed), "--json"]
        args += ["--model", self.model] if self.model else []
        args += ["--private", *self.private] if self.private else []
        args += ["--test", *self.test] if self.test else []
        return [*args, "--gate", str(gate)] if gate else args

    def command(self, profile: Path, out: Path) -> str:
        """Write it as a command."""
        return shlex.join(["fedpilot", *self.args(profile, out)])


def begin(runs: Path, name: str, table: Mapping[str, Any], order: Order) -> Job:
    """Write a profile down and start to make its set.

    Raises:
        ConfigError: if the name is taken, or the profile cannot be used.
        StorageError: if something cannot be written.
    """
    folder = runs / DATA / checked_name(name, [path.name for path in (runs / DATA).glob("*")])
    asked_for(table, order)
    with storage.explained(folder):
        folder.mkdir(parents=True)
    storage.atomic_write(folder / PROFILE, toml_text(table).encode())
    args = order.args(folder / PROFILE, folder / ROWS)
    return jobs.start(runs, f"made-up data {name}", args)


def judge(
    runs: Path, made: MadeSet, gate: Mapping[str, Any], spec: Mapping[str, Any] | None = None
) -> Job:
    """Start to make a set again and pass it through the gate.

    Args:
        runs: folder of the runs.
        made: the set.
        gate: configuration of the runs that judge it.
        spec: table of the gate in the profile; as the profile has it, if omitted.

    Raises:
        ConfigError: if they cannot be a gate for this profile.
        StorageError: if something cannot be written.
    """
    from agents.synthesis.gate import check, check_fields

    table = profile_table(made)
    if spec is not None:
        table["gate"] = dict(spec)
    config = Config.from_table(gate, "gate")
    check(config, gate_spec(table))
    check_fields(config)
    job = job_of(runs, made.folder)
    if job is None:
        raise ConfigError(f"{made.name}: how it was made is not known any more; make it anew")
    n = len(verdicts(made.folder)) + 1
    out = judged_in(made.folder, n)
    file, profile = made.folder / f"gate-{n}.toml", made.folder / f"profile-{n}.toml"
    storage.atomic_write(file, toml_text(gate).encode())
    storage.atomic_write(profile, toml_text(table).encode())
    for left in (out.rows, out.rejected):  # of a gate that was stopped before it spoke
        with storage.explained(left):
            left.unlink(missing_ok=True)
    args = list(job.args[: job.args.index("--gate")] if "--gate" in job.args else job.args)
    args[1], args[args.index("--out") + 1] = str(profile), str(out.rows)
    return jobs.start(runs, f"the gate of {made.name}", [*args, "--gate", str(file)])


def profile_table(made: MadeSet) -> Table:
    """Return the profile of a set as it was asked for.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return tomllib.loads((made.folder / PROFILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{made.name}: its {PROFILE} cannot be read; make it anew") from None


def gate_spec(profile: Mapping[str, Any]) -> GateSpec:
    """Return what a profile asks of the gate.

    Raises:
        ConfigError: if it cannot be used, in one line.
    """
    return Profile.from_table(profile).gate


def gate_of(table: Mapping[str, Any], metric: str) -> Table:
    """Return an experiment as a gate: short, on its own data, with the figure that is asked for."""
    found: Table = json.loads(json.dumps(table))
    data = found.setdefault("data", {})
    data.pop("extra", None)
    if fields := {**named_as(data), **data.get("extra_fields", {})}:
        data["extra_fields"] = fields
    found.pop("pilot", None)
    measured = {"choice_accuracy": "choice"}.get(metric, metric)
    metrics = found.get("evaluation", {}).get("metrics", ["nll"])
    put(found, "evaluation.metrics", list(dict.fromkeys([*metrics, measured])))
    put(found, "evaluation.baselines", [])
    return found


def demo_gate(metric: str) -> Table:
    """Return the demo's experiment as a gate, a few rounds long."""
    return gate_of({**first_draft().table, "rounds": GATE_ROUNDS}, metric)


def asked_for(table: Mapping[str, Any], order: Order) -> list[dict[str, Any]]:
    """Return what every client is to hold, in the words of ``fedpilot data --json``.

    Raises:
        ConfigError: if the profile cannot be used, in one line.
    """
    try:
        profile = Profile.from_table(table)
        if profile.votes is not None and not order.private:
            raise ConfigError("votes: need who votes: name private files")
        counts = wanted(profile, templates=not order.model)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("profile: ")) from None
    found: dict[str, dict[str, int]] = {}
    for brief, count in counts.items():
        found.setdefault(brief.client, {})[brief.label] = count
    return [
        {"client": name, "labels": labels, "examples": sum(labels.values())}
        for name, labels in found.items()
    ]


def example_profile() -> Table:
    """Return the profile that ``fedpilot synthesize --init`` writes."""
    return tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))


def alone(made: MadeSet) -> Table:
    """Return an experiment whose data a set is."""
    table = first_draft().table
    table.get("pilot", {}).pop("synthetic", None)  # which makes rows for built-in data alone
    by_client = {"by": "key", "key": "client", "label": "label"}
    table["data"] = {
        "source": str(made.rows),
        "prompt": "{instruction}\n{context}",
        "response": "{response}",
        "max_tokens": 256,
        "clients": by_client,
    }
    return table


def beside(made: MadeSet, table: Mapping[str, Any]) -> Table:
    """Return an experiment whose clients also train on a set.

    Args:
        made: the set.
        table: the experiment on real data.
    """
    found: Table = json.loads(json.dumps(table))
    found.get("pilot", {}).pop("synthetic", None)  # which makes the extra rows itself
    put(found, "data.extra", str(made.rows))
    found["data"].pop("extra_fields", None)
    if fields := named_as(found["data"]):
        put(found, "data.extra_fields", fields)
    return found


def named_as(data: Mapping[str, Any]) -> dict[str, str]:
    """Say which fields of made-up rows stand for those of real data that they do not have.

    By place: what is asked is the instruction, then the context; what is learnt is the response.
    """
    prompt, response = (fields_in(data, key) for key in ("prompt", "response"))
    pairs = [
        *zip(prompt, ("instruction", "context"), strict=False),
        *zip(response or fields_in(data, "text"), ("response",), strict=False),
        *(
            (got(data, f"clients.{key}"), own)
            for key, own in (("key", "client"), ("label", "label"))
        ),
    ]
    return {theirs: own for theirs, own in pairs if theirs and theirs not in Row.model_fields}


def fields_in(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the fields that a template of an experiment names."""
    return parse_template(str(data[key]), f"data.{key}").fields if data.get(key) else ()


def nobodys_data() -> Table:
    """Return an experiment whose data are still to be named."""
    table = first_draft().table
    table["data"] = {"source": "", "clients": {"by": "key"}}
    return table


def files_typed(text: str) -> tuple[str, ...]:
    """Read file names, one a line."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
