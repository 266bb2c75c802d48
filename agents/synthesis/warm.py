"""A warm start on made-up rows, decided by rule before the first round.

Of the clients nothing is known but what an organisation says of itself: its domain, and how it
writes.  The built-in templates make rows of that domain in its usual mix, equally many for each, so
that whoever holds little counts as much as whoever holds much; no text is read.  The server trains
the first adapter on them (as Zhang et al. 2023 do with what a generative model wrote,
arXiv:2306.02210), and the rounds begin from there, if a gate finds that they should.

The gate compares this adapter with a fresh one, and with some that were trained just as long on the
same rows with their answers dealt out anew.  Rows that only show what answers look like beat a
fresh adapter; an admitted set beats those too, so its answers have to be right.  The answers of a
useless set are as good as dealt out themselves: its loss is then one more of the controls', and
lies below Student's prediction interval of theirs once in forty times.  All are judged on clients'
validation rows: the test split judges the run and decides nothing.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.made_up import DECISION, MadeUp
from agents.pilot import PilotPlanner
from agents.spec import PilotSpec, SyntheticSpec
from agents.synthesis.gate import Verdict, student
from agents.synthesis.make import Say
from agents.synthesis.profile import Profile
from agents.synthesis.publish import publish
from federation.address import generator
from federation.algorithms.algorithm import fedavg
from federation.config import ORGANISATIONS, AlgorithmSpec, Config, EvaluationSpec, UploadSpec
from federation.data.organisations import organisations
from federation.errors import ConfigError
from federation.evaluation.evaluate import Evaluation, evaluate_own, subset
from federation.experiment import Setup, default_cache, set_up
from federation.plan import RoundPlan
from federation.runs import storage
from federation.runs.history import History
from federation.runs.peft_files import save_adapter
from federation.runs.writer import refuse_used
from federation.specs import LoRASpec
from federation.training.build import build_algorithm
from federation.training.engine import LocalEngine
from federation.training.lora import LoRA
from federation.training.memory import RamMemory

POLICY = "warm-start@1"
ROWS, START = "rows.jsonl", "adapter"
SET, DEALT, FRESH = "set", "dealt", "fresh"
"""Who trains in the gate: on the rows as they are, on other answers; and who does not."""
CONFIDENCE = 0.95
PASS = 3  # trials that share a pass: of six, two stacks, side by side


def warmed(
    config: Config, spec: SyntheticSpec, folder: Path, cache: Path | None, say: Say
) -> Config:
    """Decide from where the rounds begin, and write the decision down.

    Args:
        config: the run, resolved.
        spec: how many rows are made up, how long the server trains on them, who judges.
        folder: of rows, card, adapter and decision; what an interrupted start left there goes.
        cache: folder for tokenised data; the user's cache folder if omitted.
        say: is told of progress.

    Returns:
        The run, beginning from the adapter if it was admitted.

    Raises:
        ConfigError: if its data is not that of the built-in organisations, what is trained is no
            adapter or one that has a start, nobody has validation rows, or its pilot cannot be.
        LockedError: if another process writes there.
    """
    check(config)
    began, cache = time.monotonic(), cache or default_cache()
    setup = prepared(config, cache)
    refuse(config, setup)
    with storage.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = storage.lock(folder.parent)
    try:
        refuse_used(folder.parent)  # another process may have begun a run meanwhile
        made = made_up(setup, spec, folder, cache, say)
        made = made.model_copy(update={"seconds": round(time.monotonic() - began, 1)})
        storage.atomic_write(folder / DECISION, made.model_dump_json(indent=2).encode())
    finally:
        lock.release()  # the run takes it
    return started(config, folder / START) if made.admitted else config


def made_up(setup: Setup, spec: SyntheticSpec, folder: Path, cache: Path, say: Say) -> MadeUp:
    """Make rows and an adapter in place of what is there, and let the gate judge them."""
    config = setup.config
    with storage.explained(folder):
        shutil.rmtree(folder)
        folder.mkdir()

    def gate(rows: Path) -> Verdict:
        say(f"made-up rows: a warm start and {spec.controls} controls, {spec.steps} steps each")
        found = tried(rows, setup, spec)
        if found.verdict.admitted:
            save_adapter(folder / START, found.params, found.trainable, config.model.base)
        return found.verdict

    profile = profile_of(setup, spec)
    card = publish(profile, folder / ROWS, seed=config.data_seed, cache=cache, gate=gate, say=say)
    judged = card["gate"]
    return MadeUp(
        policy=POLICY,
        population=len(setup.clients),
        asked={name: client.size for name, client in profile.clients.items()},
        made=card["rows"],
        steps=spec.steps,
        controls=spec.controls,
        **{key: judged[key] for key in ("admitted", "gain", "low", "high")},
    )


def check(config: Config) -> None:
    """Refuse what the templates cannot add to, and what has a start already.

    Raises:
        ConfigError: saying what to do instead.
    """
    clients = config.data.clients
    if config.data.source != ORGANISATIONS or (clients.by, clients.key) != ("key", "client"):
        raise ConfigError(
            "pilot.synthetic: the built-in templates know the built-in organisations alone; make"
            " rows of your own with `fedpilot synthesize` and train an adapter on them for"
            " adapter.start, or name them in data.extra"
        )
    if config.data.extra is not None:
        raise ConfigError("pilot.synthetic makes rows of its own; drop it, or data.extra")
    if not isinstance(config.adapter, LoRASpec):
        raise ConfigError(
            "pilot.synthetic warms an adapter up; set adapter.kind to lora, or drop it"
        )
    if config.adapter.start is not None:
        raise ConfigError(
            "pilot.synthetic makes the adapter to start from; drop it, or adapter.start"
        )
    if not config.data.split.validation:
        raise ConfigError(
            "pilot.synthetic is judged on validation rows; raise data.split.validation"
        )


def prepared(config: Config, cache: Path) -> Setup:
    """Set up what is trained, on what, plainly: trials are of the data, not of the algorithm.

    Raises:
        ConfigError: if the run itself could not be set up.
    """
    build_algorithm(config)
    plain = {"algorithm": AlgorithmSpec(name="fedavg"), "upload": UploadSpec()}
    return set_up(config.model_copy(update=plain), None, cache)


def refuse(config: Config, setup: Setup) -> None:
    """Refuse before anything is made what the pilot of the run would refuse after it.

    Raises:
        ConfigError: if the pilot and the rest of the configuration contradict each other.
    """
    if pilot := PilotSpec.of(config):
        PilotPlanner(replace(setup, config=config), History(), 0, pilot)


def profile_of(setup: Setup, spec: SyntheticSpec) -> Profile:
    """Ask for rows as organisations that train describe themselves, equally many for each.

    Those that are only tested on are not asked: a domain that is to be unseen stays so.  Nor are
    those that the cohort excludes, who are never asked for anything.
    """
    asked = set(setup.clients) - set(setup.config.cohort.exclude)
    data, seed = setup.config.data, setup.config.data_seed
    clients = {
        one.id: {"domain": one.domain, "style": one.style.name, "size": spec.size}
        for one in organisations(seed, data.count, total=data.examples)
        if one.id in asked
    }
    return Profile.from_table({"clients": clients}, "pilot.synthetic")


def started(config: Config, adapter: Path) -> Config:
    """Let a run begin from an adapter."""
    start = str(adapter.absolute())
    return config.model_copy(update={"adapter": config.adapter.model_copy(update={"start": start})})


@dataclass(frozen=True)
class Tried:
    """What came of the trials.

    Attributes:
        verdict: of the gate; ``without`` holds the controls that were dealt other answers.
        params: ``(P,)``, the warm start; the drawn adapter if it diverged.
        trainable: what they are parameters of.
    """

    verdict: Verdict
    params: Tensor
    trainable: LoRA


def tried(rows: Path, setup: Setup, spec: SyntheticSpec) -> Tried:
    """Train on the set, and on the set with its answers dealt out anew, and compare the losses.

    All begin at the run's first adapter and take equally many steps on batches of their own.

    Raises:
        ConfigError: if nobody has validation rows.
    """
    config = setup.config
    with TemporaryDirectory(prefix="fedpilot-gate-") as folder:
        file = Path(folder) / ROWS
        file.write_text("".join(arms(rows.read_text().splitlines(), config.seed, spec.controls)))
        data = config.data.model_copy(update={"extra": str(file)})
        extended = config.model_copy(update={"data": data})
        setup = set_up(extended, None, Path(folder), like=setup)
        judged = subset(
            setup.data.splits.validation.order, spec.examples, config.data_seed, "validation"
        )
        if not len(judged):
            raise ConfigError("pilot.synthetic: nobody has validation rows; raise data.examples")
        params = {FRESH: setup.params} | trained(setup, spec)
        loss = losses(setup, params, judged)
    trainable = setup.task.trainable
    assert isinstance(trainable, LoRA)  # as check() has seen to
    return Tried(compared(loss, spec.controls), params.get(SET, setup.params), trainable)


def compared(loss: Mapping[str, float], controls: int) -> Verdict:
    """Judge the losses of all trials; those that diverged are missing, and nothing is admitted.

    The gain is over the controls' mean, or over the fresh adapter if that is better.  Its interval
    is Student's for one more value of the controls.
    """
    dealt = np.array([loss.get(f"{DEALT}-{i}", math.inf) for i in range(controls)])
    having = loss.get(SET, math.inf)
    gain, reach = math.nan, math.inf
    if np.isfinite([*dealt, having]).all():
        gain = min(float(dealt.mean()), loss[FRESH]) - having
        width = math.sqrt(1 + 1 / controls)
        reach = student(CONFIDENCE, controls) * float(dealt.std(ddof=1)) * width
    low, high = gain - reach, gain + reach
    without, one = tuple(dealt.tolist()), (having,)
    seeds = tuple(range(controls))
    return Verdict(low > 0, "nll", seeds, without, one, gain, low, high, CONFIDENCE)


def arms(lines: Sequence[str], seed: int, controls: int) -> Iterator[str]:
    """Yield the rows as those of one client, and of others with answers that are not theirs."""
    rows = [json.loads(line) for line in lines]
    for row in rows:
        yield json.dumps(row | {"client": SET}) + "\n"
    for control in range(controls):
        order = generator(seed, "gate", DEALT, control).permutation(len(rows))
        for row, other in zip(rows, order, strict=True):
            dealt = {"client": f"{DEALT}-{control}", "response": rows[other]["response"]}
            yield json.dumps(row | dealt) + "\n"


def trained(setup: Setup, spec: SyntheticSpec) -> dict[str, Tensor]:
    """Train every arm by itself; those that diverged are missing."""
    names = (SET, *(f"{DEALT}-{control}" for control in range(spec.controls)))
    chunk = setup.config.engine.chunk
    engine = LocalEngine(
        replace(setup.task, algorithm=fedavg()),
        setup.data.train_rows,
        RamMemory(),
        chunk=PASS if chunk == "auto" else min(chunk, PASS),
    )
    work = setup.config.work.model_copy(update={"steps": spec.steps})
    plan = RoundPlan(0, len(names), names, work, seed=setup.config.seed)
    reports = engine.train({"params": setup.params}, plan)
    delta_C = reports.tree_C["delta"]
    return {name: setup.params + delta_C[c] for c, name in enumerate(reports.clients)}


def losses(setup: Setup, params: Mapping[str, Tensor], rows: NDArray[np.int64]) -> dict[str, float]:
    """Return the loss of every adapter on the same rows, nats per token."""
    measured = EvaluationSpec(metrics=("nll",))
    data = setup.data
    evaluation = Evaluation(setup.task, data.corpus.examples, data.form, measured)
    report = evaluate_own(evaluation, torch.stack([*params.values()]), dict.fromkeys(params, rows))
    return {name: report.clients[name]["nll"] for name in params}
