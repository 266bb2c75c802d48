"""What is compared on real data: three studies, their settings and arms, as run configurations.

A study changes one thing at a time: arms of a setting share clients, rows and local work.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import results_data as sources
from federation.config import Config, set_key
from federation.evaluation.assess import SUBJECTS

TUNING_SEED = 1000  # learning rates are chosen on this seed, which no table uses
LR = "work.lr"
ADAMW_GRID = (1e-3, 3e-3, 1e-2)
SGD_GRID = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: as in the table.
        overrides: what it changes in the study's configuration, as ``--set`` takes it.
        grid: values tried on the tuning seed; empty: it has none of its own.
        tunes: key that takes them.
        after: arm whose chosen value it takes over before it tries its own.
    """

    name: str
    overrides: tuple[str, ...] = ()
    grid: tuple[float, ...] = ADAMW_GRID
    tunes: str = LR
    after: str = ""


@dataclass(frozen=True)
class Column:
    """A figure of the table.

    Attributes:
        heading: what stands above it.
        split: where it is measured.
        metric: which figure.
        worst: of clients: the worst one in place of the mean.
    """

    heading: str
    split: str
    metric: str
    worst: bool = False


Source = Callable[[Path, int, str], Any]  # data folder, seed, arm -> rows


@dataclass(frozen=True)
class Study:
    """A data set, the settings it is divided in, and what is compared there.

    Attributes:
        name: as ``--only`` takes it.
        title: heading of its section.
        about: the data, the protocol and what to know before reading the figures.
        rows: makes the rows.
        table: the configuration that all runs share, as in TOML.
        settings: name -> overrides; arms are compared within a setting.
        tuned_on: setting on which values are chosen, for all of them.
        arms: what is compared.
        columns: figures of the table, that of unseen clients among them.
        unit: of the loss or accuracy that sentences are about.
    """

    name: str
    title: str
    about: str
    rows: Source
    table: Mapping[str, Any]
    settings: Mapping[str, tuple[str, ...]]
    tuned_on: str
    arms: tuple[Arm, ...]
    columns: tuple[Column, ...]
    unit: str

    def config(
        self, setting: str, arm: Arm, seed: int, source: Path, values: Mapping[str, float]
    ) -> Config:
        """Return the configuration of one run.

        Args:
            setting: how rows become clients.
            arm: how is trained.
            seed: run seed.
            source: file of the rows.
            values: tuned quantities by key.
        """
        from federation.baselines import baseline_config

        table = copy.deepcopy(dict(self.table))
        tuned = (f"{key}={value!r}" for key, value in values.items())
        for override in (*self.settings[setting], *arm.overrides, *tuned):
            set_key(table, override)
        table["seed"] = seed
        table["data"]["source"] = str(source)
        config = Config.from_table(table, f"{self.name}, {arm.name}")
        return baseline_config(config, arm.name) if arm.name in SUBJECTS else config


LORA = {"kind": "lora", "rank": 8, "alpha": 16, "targets": "all-linear"}
LOCAL, CENTRALISED = Arm("local"), Arm("centralised")
MAIN = Arm("fedavg")
SGD = Arm("fedavg, sgd", ("work.optimizer=sgd",), SGD_GRID)
UNSEEN = 2  # of ten clients

DOLLY = Study(
    name="dolly",
    title="Dolly: instructions, ten organisations with different tasks",
    about="""databricks-dolly-15k in the ten clients of FedIT (Zhang et al. 2023,
arXiv:2305.05644): about 1,490 instructions each, of one to three of the eight categories. Two
clients, drawn by the seed, are held out whole; the other eight all train in every round. The global
test is FedIT's: ten instructions of each category. Losses count the response alone. *fedavg, sgd*
is there because scaffold is defined for plain SGD: compare these two. `nano` read Dolly some six
times in pre-training, except the global test: losses on clients' rows start from a model that has
met them, which is the same for every arm.""",
    rows=lambda data, seed, arm: sources.dolly(data),
    table={
        "rounds": 10,
        "adapter": LORA,
        "data": {
            "prompt": "{instruction}\n{context}",
            "response": "{response}",
            "max_tokens": 192,
            "clients": {"by": "key", "key": "client", "test_key": "-1", "unseen": UNSEEN},
            "split": {"validation": 0.0, "test": 0.1},
        },
        "work": {"steps": 4, "batch_size": 8, "max_grad_norm": 1.0},
        "cohort": {"size": 8},
        # Each of eight own models reads no more than 125 rows of a test that all of them share.
        "evaluation": {"every": 1000, "max_examples": 120},
        "engine": {"chunk": 4},
    },
    settings={"": ()},
    tuned_on="",
    arms=(
        LOCAL,
        MAIN,
        Arm("fedprox", ("algorithm.name=fedprox",), (0.01, 0.1, 1.0), "algorithm.mu", MAIN.name),
        Arm(
            "fedadam",
            ("algorithm.name=fedadam",),
            (1e-3, 3e-3, 1e-2),
            "algorithm.server_lr",
            MAIN.name,
        ),
        SGD,
        Arm("scaffold", ("algorithm.name=scaffold", *SGD.overrides), (), after=SGD.name),
        CENTRALISED,
    ),
    columns=(
        Column("global test", "test", "nll"),
        Column("own clients", "clients", "nll"),
        Column("worst client", "clients", "nll", worst=True),
        Column("unseen clients", "unseen", "nll"),
    ),
    unit="nats per token",
)

SHAKESPEARE = Study(
    name="shakespeare",
    title="Shakespeare: over a hundred roles",
    about=f"""Every role of at least {sources.LEAST:,} characters is a client, as in LEAF (Caldas
et al. 2018, arXiv:1812.01097); an example is a window of about {sources.WINDOW} characters of its
speeches. {sources.UNSEEN} roles, drawn by the seed, are held out whole, and 16 of the others train
in a round. The last tenth of every role's speeches is trained on nowhere, neither here nor in the
pre-training of `nano`: the figures of unseen roles and of the global test are on such text alone
(at most {sources.MOST} windows each). Own roles are judged on a tenth of their other windows.
*local* are {sources.ALONE} roles drawn by the seed that train in every round, so with more steps
each than the federation asks of a client; the figures of own roles are over these
{sources.ALONE} for every arm.""",
    rows=lambda data, seed, arm: sources.shakespeare(data, seed, alone=arm == LOCAL.name),
    table={
        "rounds": 10,
        "adapter": LORA,
        "data": {
            "text": "{text}",
            "max_tokens": 160,
            "clients": {
                "by": "key",
                "key": "role",
                "test_key": sources.TEST,
                "unseen": sources.UNSEEN,
            },
            "split": {"validation": 0.0, "test": 0.1},
        },
        "work": {"steps": 4, "batch_size": 4, "max_grad_norm": 1.0},
        "cohort": {"size": sources.ALONE},
        "evaluation": {"every": 1000, "max_examples": 1000},
        "engine": {"chunk": 4},
    },
    settings={"": ()},
    tuned_on="",
    arms=(LOCAL, MAIN, CENTRALISED),
    columns=(
        Column("global test", "test", "nll"),
        Column("own roles", "clients", "nll"),
        Column("worst roles", "clients", "nll", worst=True),
        Column("unseen roles", "unseen", "nll"),
    ),
    unit="nats per token",
)

DIRICHLET = ("data.clients.by=dirichlet", "data.clients.label=domain")
CLINC = Study(
    name="clinc",
    title="CLINC150: intents, from even clients to one domain each",
    about="""The 22,500 in-scope requests of CLINC150 (Larson et al. 2019): 150 intents in ten
domains, dealt to ten clients in four ways. Two clients, drawn by the seed, are held out whole; all
others train in every round. Accuracy is by likelihood: of the 15 intents of the request's domain,
is the right one the likeliest (sum of log-likelihoods over its tokens)? Guessing gives 0.067. Each
client is judged on a tenth of its own rows, the global test is the union of these. The Dirichlet
partitions are those of Hsu et al. (2019, arXiv:1909.06335) over domains: alpha is the *total*
concentration, so that at 0.5 each of the ten domains has 0.05, and most clients hold little more
than one or two domains; NIID-Bench's alpha is per label, and its 0.5 is far more even. Clients are
equally large. By domain, an unseen client brings 15 intents that nobody trained on. `nano` has read
none of this text.""",
    rows=lambda data, seed, arm: sources.clinc(data),
    table={
        "rounds": 10,
        "adapter": LORA,
        "data": {
            "prompt": "{text}",
            "response": "{intent}",
            "choices": "{choices}",
            "max_tokens": 64,
            "clients": {"unseen": UNSEEN},
            "split": {"validation": 0.0, "test": 0.1},
        },
        "work": {"steps": 8, "batch_size": 16, "max_grad_norm": 1.0},
        "cohort": {"size": 8},
        "evaluation": {"every": 1000, "metrics": ["nll", "choice"], "max_examples": 80},
        "engine": {"chunk": 8},
    },
    settings={
        "IID": ("data.clients.by=iid",),
        "Dirichlet 0.5": (*DIRICHLET, "data.clients.alpha=0.5"),
        "Dirichlet 0.1": (*DIRICHLET, "data.clients.alpha=0.1"),
        "by domain": ("data.clients.by=key", "data.clients.key=domain"),
    },
    tuned_on="Dirichlet 0.5",
    arms=(LOCAL, MAIN, CENTRALISED),
    columns=(
        Column("global test", "test", "choice_accuracy"),
        Column("own clients", "clients", "choice_accuracy"),
        Column("worst client", "clients", "choice_accuracy", worst=True),
        Column("unseen clients", "unseen", "choice_accuracy"),
        Column("loss, unseen", "unseen", "nll"),
    ),
    unit="of accuracy",
)

STUDIES = (DOLLY, SHAKESPEARE, CLINC)


def quick(study: Study) -> Study:
    """Shrink a study to what shows in a minute that everything works; its figures mean nothing."""
    table = copy.deepcopy(dict(study.table))
    rows = table["evaluation"]["max_examples"] // 5
    small = ("rounds=2", "work.steps=1", "work.batch_size=2", f"evaluation.max_examples={rows}")
    for override in small:
        set_key(table, override)
    arms = tuple(replace(arm, grid=arm.grid[:1]) for arm in study.arms)
    return replace(study, table=table, arms=arms)


def named(names: Sequence[str]) -> list[Study]:
    """Return the studies of these names, all of them if there is none."""
    return [study for study in STUDIES if not names or study.name in names]
