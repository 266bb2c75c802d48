"""What the models of a run answer to a prompt: the base, the federated one of a round, a client's.

Knows how to get back from a run directory to models that write.  Writes nothing.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from federation.config import Config
from federation.data.dataset import templates
from federation.data.templates import Templates
from federation.data.tokens import SequenceFormat, Tokens, encode, sequence_format
from federation.errors import ConfigError
from federation.evaluation.generation import continued, decoded
from federation.evaluation.stacks import bound
from federation.experiment import default_cache
from federation.plan import RoundPlan
from federation.reassess import own_questions
from federation.runs.folder import BASELINES, is_run
from federation.runs.run import Run, memory_after
from federation.training.base import load_base
from federation.training.build import build_algorithm, build_trainable
from federation.training.local import Task, fresh_memory

Subject = Literal["base", "federated", "local", "centralised"]


@dataclass(frozen=True)
class Who:
    """Whose model answers.

    Attributes:
        subject: base, federated (the run's own), local (one client's) or centralised.
        round: of the run, from 0; None: the newest that has a checkpoint.
        client: local: whose.
    """

    subject: Subject
    round: int | None = None
    client: str = ""


@dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
        text: what the model wrote.
        tokens: that it wrote, its end included.
        seconds: that it took.
        ended: whether the model ended by itself, and was not cut off.
        round: whose adapter it was, from 0; None: none.
        sha256: of the checkpoint; empty: none.
    """

    text: str
    tokens: int
    seconds: float
    ended: bool
    round: int | None
    sha256: str


@dataclass(frozen=True, eq=False)
class Voices:
    """A run's models, the base loaded once.

    Attributes:
        run: the run.
        config: its configuration.
        task: base and what is trained on it.
        form: how prompt and response become a sequence.
        templates: how rows become prompts.
    """

    run: Run
    config: Config
    task: Task
    form: SequenceFormat
    templates: Templates

    @classmethod
    def of(cls, path: Path) -> "Voices":
        """Load a run's base model.

        Raises:
            ConfigError: if it is no fine-tuning run, or its model cannot be loaded.
        """
        run = Run.open(path)
        config = Config.from_table(run.config, f"{path}/config.json")
        base = load_base(config.model.base, config.model.dtype, device=config.model.device)
        nothing = np.zeros(0, np.int32)
        tokens = Tokens(nothing, np.zeros(1, np.int64), nothing, nothing)
        task = Task(base, build_trainable(config, base), build_algorithm(config), tokens)
        parsed = templates(config.data, base.tokenizer)
        spec = config.data
        form = sequence_format(base.tokenizer, parsed, spec.max_tokens, spec.separator)
        return cls(run, config, task, form, parsed)

    def answer(self, who: Who, prompt: str, most: int, seconds: float) -> Written:
        """Let a model continue a prompt greedily.

        Args:
            who: whose model.
            prompt: as a person writes it: what the templates put around it is put around it.
            most: tokens that it may write.
            seconds: after which it is cut off.

        Raises:
            ConfigError: if there is no such model, or the prompt is empty.
            CorruptError: if its checkpoint is damaged.
        """
        params, round, sha256 = self.params(who)
        ids = [self.prompt_ids(prompt)]
        began = time.perf_counter()
        with bound(self.task, None if params is None else params[None]):
            (wrote,) = continued(self.task.base, ids, most, self.form.end, seconds)
        took = time.perf_counter() - began
        ended = self.form.end[-1] in wrote
        count = wrote.index(self.form.end[-1]) + 1 if ended else len(wrote)
        text = decoded(self.task.base, wrote, list(self.form.end))
        return Written(text, count, took, ended, round, sha256)

    def prompt_ids(self, prompt: str) -> np.ndarray:
        """Tokenise a prompt as those of training are.

        Raises:
            ConfigError: if nothing is left of it.
        """
        text = prompt.rstrip()
        if self.templates.chat:
            text = self.templates.chat.prompt(text)
        (ids,) = encode(self.task.base.tokenizer, [text + self.form.separator])
        whole = [*self.form.bos, *ids]
        if not text or not whole:
            raise ConfigError("the prompt is empty; write something")
        return np.array(whole, np.int32)

    def params(self, who: Who) -> tuple[Tensor | None, int | None, str]:
        """Load the parameters of a model: ``(P,)``, its round, and its checkpoint's sha256.

        Raises:
            ConfigError: if there is no such model.
        """
        match who.subject:
            case "base":
                return None, None, ""
            case "federated":
                return shared(Run.open(self.run.path), who.round)
            case "centralised":
                return shared(self.baseline("centralised"), who.round)
            case "local":
                return self.own(who)

    def baseline(self, name: str) -> Run:
        """Open a baseline of the run.

        Raises:
            ConfigError: if it has none of that name.
        """
        path = self.run.path / BASELINES / name
        if not is_run(path):
            raise ConfigError(f"{self.run.path} has no baseline {name!r}: evaluation.baselines")
        return Run.open(path)

    def own(self, who: Who) -> tuple[Tensor, int, str]:
        """Load a client's own model, of the baseline in which each trains alone."""
        run = self.baseline("local")
        config = Config.from_table(run.config, f"{run.path}/config.json")
        algorithm, round = build_algorithm(config), newest(run, who.round)
        known = {name for record in run.history.rounds.values() for name in record.kept}
        if who.client not in known:
            there = ", ".join(sorted(known)[:8])
            raise ConfigError(f"no client {who.client!r} trained alone; there are {there}")
        sent = algorithm.sent(run.state(round))
        plan = RoundPlan(0, len(known), (who.client,), config.work)
        memory = memory_after(run.path, run.history, round)
        kept_C = memory.gather((who.client,), fresh_memory(algorithm, sent["params"], plan))
        sha256 = run.history.rounds[round].kept.get(who.client, "")
        return algorithm.start(sent, kept_C, 1)[0], round, sha256

    def examples(self, most: int, cache: Path | None = None) -> list[tuple[str, str]]:
        """Return prompts of the run's own test set with the answers that were wanted.

        Raises:
            DataError: if the data changed since, or cannot be read.
        """
        if self.templates.chat or self.templates.prompt is None:
            return []
        tokenizer = self.task.base.tokenizer
        asked = own_questions(
            self.run, self.config, tokenizer, Path.cwd(), cache or default_cache()
        )
        step = max(1, len(asked.rows) // most)
        found = (asked.corpus.examples[int(row)] for row in asked.rows[::step][:most])
        return [(example.prompt, example.response) for example in found]


def newest(run: Run, round: int | None) -> int:
    """Return the round that is meant; the newest with a checkpoint if none is.

    Raises:
        ConfigError: if no checkpoint was written yet.
    """
    if round is not None:
        return round
    for record in run.history.newest_checkpoints(1):
        return record.round
    raise ConfigError(f"{run.path} has no checkpoint yet; wait for its first round")


def shared(run: Run, round: int | None) -> tuple[Tensor, int, str]:
    """Load the model that all clients of a run share."""
    round = newest(run, round)
    params = run.state(round)["params"]
    return params, round, str(run.history.rounds[round].checkpoint_sha256)
