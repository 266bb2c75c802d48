"""The gate: what helps is let in, what does not is not."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.synthesis import gate
from agents.synthesis.gate import (
    Verdict,
    arm_of,
    check_fields,
    is_hopeless,
    judge,
    of_runs,
    verdict,
)
from agents.synthesis.make import quiet
from agents.synthesis.profile import GateSpec
from agents.synthesis.publish import Files, publish
from federation import experiment
from federation.address import generator
from federation.config import Config
from federation.errors import ConfigError, StorageError
from federation.pretraining.vocabulary import train_tokenizer
from federation.specs import LoRASpec
from tests.agents.made_up import profile
from tests.tiny_models import tiny

NLL = GateSpec()


def test_the_interval_is_students_over_pairs():
    found = verdict(NLL, (0, 1, 2), [3.0, 2.0, 2.5], [2.0, 1.5, 2.2])
    gains = [1.0, 0.5, 0.3]
    mean = sum(gains) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in gains) / 2)
    reach = 4.302652729911275 * deviation / math.sqrt(3)  # of a table, two degrees of freedom
    assert found.gain == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - reach, mean + reach))
    assert not found.admitted  # better in every pair, and still not sure


@pytest.mark.parametrize(
    ("metric", "having", "admitted"),
    [
        ("nll", [1.0, 1.01, 0.99], True),
        ("nll", [3.0, 3.01, 2.99], False),
        ("exact_match", [3.0, 3.01, 2.99], True),
        ("exact_match", [1.0, 1.01, 0.99], False),
        ("nll", [1.0, math.nan, 1.0], False),
        ("nll", [1.0, math.inf, 1.0], False),
        ("exact_match", [math.inf, math.inf, math.inf], False),
        ("nll", [2.0, 2.0, 2.0], False),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_only_what_is_surely_better_is_admitted(metric, having, admitted):
    found = verdict(GateSpec(metric=metric), (0, 1, 2), [2.0, 2.0, 2.0], having)
    assert found.admitted is admitted


@pytest.mark.parametrize("seeds", [3, 4, 7, 12])
def test_the_gate_stops_early_exactly_where_no_further_pairs_could_admit(seeds):
    spec, draw, seen = GateSpec(seeds=seeds), generator("hopeless", seeds), set()

    def admitted(gains: list[float]) -> bool:
        return verdict(spec, (), [0.0] * seeds, [-gain for gain in gains]).admitted

    for _ in range(200):
        known = draw.normal(0.5, 1.0, int(draw.integers(1, seeds)))
        left = seeds - len(known)
        likest = (known**2).sum() / known.sum() if known.sum() > 0 else 1e7
        stops = is_hopeless(spec, known)
        assert admitted([*known, *[likest] * left]) != stops
        if stops:
            others = (draw.normal(1.0, 1.0, left) * 10.0 ** draw.uniform(-2, 2) for _ in range(20))
            assert not any(admitted([*known, *other]) for other in others)
        seen.add(stops)
    assert seen == {True, False}


@pytest.mark.parametrize(("having", "seeds"), [(2.01, (5,)), (1.5, (5, 6, 7)), (math.nan, (5,))])
def test_runs_are_made_until_they_say_enough(tmp_path, monkeypatch, having, seeds):
    said, arms = [], []
    monkeypatch.setattr(experiment, "set_up", lambda config, *rest, like: config)
    monkeypatch.setattr(gate, "played", lambda setup, out: arms.append(out.name) or setup)

    def figures(config: Config, split: str) -> dict[str, float]:
        return {"nll": (having if config.data.extra else 2.0) + config.seed / 1000}

    monkeypatch.setattr(gate, "own_figures", figures)
    found = judge(tmp_path / "x.jsonl", Config.from_table({"seed": 5}), NLL, tmp_path, said.append)
    assert found.seeds == seeds and found.admitted is (len(seeds) == 3)
    assert arms == [f"{arm}-{seed}" for seed in seeds for arm in ("without", "with")]
    assert len(said) == len(arms) == 2 * len(found.without) == 2 * len(found.having)
    assert found.admitted or not (math.isfinite(found.low) or math.isfinite(found.high))


def test_a_run_that_diverged_ends_the_gate():
    assert is_hopeless(NLL, np.array([1.0, math.nan]))
    assert not is_hopeless(NLL, np.array([1.0, 1.0]))
    assert is_hopeless(NLL, np.array([0.0]))  # two good pairs more would not do


def test_the_arms_differ_in_the_set_alone(tmp_path):
    config = Config.from_table({"rounds": 7, "pilot": {"policy": "null"}})
    control, treated = arm_of(config, 5, None), arm_of(config, 5, tmp_path / "set.jsonl")
    assert treated.data.extra == str(tmp_path / "set.jsonl") and control.data.extra is None
    back = treated.data.model_copy(update={"extra": None})
    assert treated.model_copy(update={"data": back}) == control
    assert (control.seed, control.evaluation.every, control.pilot) == (5, 7, {})
    assert control.data_seed == arm_of(config, 6, None).data_seed == config.seed


SITES = {
    "source": "notes.jsonl",
    "prompt": "{note}",
    "response": "{response}",
    "clients": {"by": "key", "key": "site"},
}


def test_a_gate_may_read_the_fields_of_made_up_rows_under_its_own_names():
    named = SITES | {"extra_fields": {"note": "instruction", "site": "client"}}
    check_fields(Config.from_table({"data": named}))
    check_fields(Config.from_table({}))


@pytest.mark.parametrize(
    ("table", "spec", "words"),
    [
        ({"data": {"extra": "x.jsonl"}}, NLL, "data.extra is where the set goes"),
        ({}, GateSpec(metric="exact_match"), "lack 'exact_match'"),
        ({}, GateSpec(metric="choice_accuracy"), "lack 'choice'"),
        ({"data": SITES}, NLL, r"reads others: data\.prompt: .* 'note'.*data\.extra_fields"),
        ({"data": SITES | {"extra_fields": {"note": "context"}}}, NLL, "'site'"),
    ],
)
def test_what_cannot_be_a_gate_is_refused(tmp_path, table, spec, words):
    with pytest.raises(ConfigError, match=words):
        of_runs(Config.from_table(table), spec, tmp_path, quiet)


@pytest.mark.parametrize("admitted", [True, False])
def test_a_set_lies_where_the_verdict_says(tmp_path, admitted):
    found = Verdict(admitted, "nll", (0, 1, 2), (1.0,) * 3, (math.inf,) * 3, math.nan, 1, 2, 0.95)
    seen = []

    def judged(rows: Path) -> Verdict:
        seen.append(rows.read_text())
        return found

    out = tmp_path / "set.jsonl"
    card = publish(profile(), out, seed=0, cache=tmp_path, gate=judged)
    files = Files(out)
    assert files.rows.exists() is admitted and files.rejected.exists() is not admitted
    assert (files.rows if admitted else files.rejected).read_text() == seen[0]
    assert json.loads(files.card.read_text()) == card
    assert card["gate"]["gain"] is None and card["gate"]["having"] == [None] * 3
    assert ("gate: admitted" if admitted else "gate: rejected") in files.readable.read_text()


def test_a_set_is_written_to_its_end_or_not_at_all(tmp_path, monkeypatch):
    def stopped(rows: Path) -> Verdict:
        raise KeyboardInterrupt

    def full(path: Path, data: bytes) -> None:
        if path.name.endswith(".card.json"):
            raise StorageError(f"{path}: no space left on device")
        path.write_bytes(data)

    out = tmp_path / "set.jsonl"
    with pytest.raises(KeyboardInterrupt):
        publish(profile(), out, seed=0, cache=tmp_path, gate=stopped)
    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr("agents.synthesis.publish.storage.atomic_write", full)
        publish(profile(), out, seed=0, cache=tmp_path)
    assert not list(tmp_path.iterdir())
    publish(profile(), out, seed=0, cache=tmp_path)


# --- real runs ----------------------------------------------------------------------------------

NOUNS = [a + b for a in ("ba", "ko", "ri", "mu", "te", "fo") for b in ("la", "ne", "si", "du")]
ANSWERS = ("warm", "cold")
KNOWN = 12  # nouns that the clients of the gate know; all are asked


def truth(noun: str) -> str:
    return ANSWERS[int(generator("truth", noun).integers(2))]


def asked(client: str, noun: str, number: int) -> dict[str, object]:
    return {
        "client": client,
        "instruction": f"Is {noun} warm or cold?",
        "context": f"note {number}",
        "response": truth(noun),
        "choices": list(ANSWERS),
    }


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """A run on a tiny model whose clients know half of what is asked."""
    folder = tmp_path_factory.mktemp("gate")
    own = [asked(f"c{c}", n, i) for c in range(2) for i in range(4) for n in NOUNS[:KNOWN]]
    tests = [asked("test", noun, i) for noun in NOUNS for i in range(90, 94)]
    source = written(folder / "real.jsonl", [*own, *tests])
    texts = (f"{row['instruction']}\n{row['context']}\n{row['response']}" for row in own + tests)
    tokenizer = train_tokenizer(texts, 320, 64)
    tokenizer.save_pretrained(folder / "base")
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **ends}
    tiny("Llama", torch.float32, **size).save_pretrained(folder / "base")
    return Config.from_table(
        {
            "rounds": 8,
            "model": {"base": str(folder / "base"), "dtype": "float32"},
            "adapter": {"kind": "full"},
            "data": {
                "source": str(source),
                "prompt": "{instruction}\n{context}",
                "response": "{response}",
                "choices": "{choices}",
                "max_tokens": 48,
                "clients": {"by": "key", "key": "client", "test_key": "test"},
                "split": {"test": 0, "validation": 0},
            },
            "work": {"lr": 3e-3, "steps": 10, "batch_size": 16},
            "cohort": {"size": 2},
            "evaluation": {"metrics": ["nll", "choice"]},
            "engine": {"chunk": 2},
        }
    )


def test_the_arms_share_a_base_and_come_to_what_each_would_alone(tmp_path, config, monkeypatch):
    steps, drawn = config.work.model_copy(update={"steps": 2}), LoRASpec(kind="lora", rank=2)
    short = config.model_copy(update={"rounds": 2, "work": steps, "adapter": drawn})
    rows = written(tmp_path / "set.jsonl", [asked(f"c{c}", n, 50) for c in range(2) for n in NOUNS])
    loaded, load = [], experiment.load_base
    monkeypatch.setattr(experiment, "load_base", lambda *a, **k: loaded.append(a) or load(*a, **k))
    spec = GateSpec(confidence=0.51)  # no pair is bad enough to end it early
    found = judge(rows, short, spec, tmp_path, lambda _: None)
    assert len(loaded) == 1
    alone = [
        experiment.run_experiment(
            arm_of(short, seed, extra), tmp_path / f"{seed}-{extra is None}", cache=tmp_path
        ).evaluation["federated"]["nll"]
        for extra in (None, rows)
        for seed in found.seeds
    ]
    assert [*found.without, *found.having] == alone


@pytest.mark.slow
@pytest.mark.parametrize("useful", [True, False])
def test_a_useful_set_is_admitted_and_the_same_with_shuffled_responses_is_not(
    tmp_path, config, useful
):
    rows = [asked(f"s{c}", n, i) for c in range(2) for i in range(20, 24) for n in NOUNS]
    if not useful:
        order = generator("shuffled").permutation(len(rows))
        rows = [
            {**row, "response": rows[j]["response"]} for row, j in zip(rows, order, strict=True)
        ]
    spec = GateSpec(metric="choice_accuracy")
    found = judge(written(tmp_path / "set.jsonl", rows), config, spec, tmp_path, lambda _: None)
    assert found.admitted is useful
    assert found.gain > 0.2 if useful else found.low < 0
