"""The document of results: what its runs may see, how arms are compared, and that it is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results
from benchmarks import results_data as sources
from benchmarks.results_figures import best, difference, values
from benchmarks.results_runs import Done
from benchmarks.results_studies import CLINC, DOLLY, MAIN, SHAKESPEARE, Column
from benchmarks.results_studies import UNSEEN as UNSEEN_OF_TEN
from federation.data.dataset import load_data
from federation.evaluation.assess import SHARED
from federation.runs.journal import Cursor
from federation.runs.records import EvaluationRecord
from federation.runs.run import History, Run
from federation.training.base import load_base

SEED = 1
UNSEEN = Column("unseen", "unseen", "nll")
OWN = Column("own", "clients", "nll")


def test_roles_train_on_nothing_of_their_last_tenth(shared: Callable[[str], Path]) -> None:
    data = shared("data")
    speeches = {
        f"{row['play']}/{row['role']}": row["text"]
        for row in sources.read_rows(data / "shakespeare" / "roles.jsonl")
    }
    lines: dict[str, list[str]] = {}
    for row in sources.shakespeare(data, SEED):
        lines.setdefault(row["role"], []).extend(row["text"].splitlines())
    del lines[sources.TEST]
    held_out = 0
    for role, seen in lines.items():
        cut = len(speeches[role]) * 9 // 10
        first, last = (
            "\n".join(part).splitlines()
            for part in np.split(np.array(speeches[role], dtype=object), [cut])
        )
        held_out += seen == last[: len(seen)]
        assert seen in (first, last[: len(seen)])
    assert (held_out, len(lines) - held_out > 100) == (sources.UNSEEN, True)


@pytest.mark.parametrize("arm", ["local", "fedavg"])
def test_a_run_holds_out_the_roles_that_were_prepared_for_it(
    shared: Callable[[str], Path], tmp_path: Path, arm: str
) -> None:
    rows = SHAKESPEARE.rows(shared("data"), SEED, arm)
    source = sources.stored(rows, tmp_path, "shakespeare")
    config = SHAKESPEARE.config("", MAIN, SEED, source, {})
    splits = load_data(config, load_base("nano").tokenizer, tmp_path, tmp_path).splits
    everything = sources.shakespeare(shared("data"), SEED)
    whole = {row["role"]: sum(x["role"] == row["role"] for x in everything) for row in everything}
    sizes = dict(zip(splits.unseen.names, splits.unseen.sizes.tolist(), strict=True))
    assert len(sizes) == sources.UNSEEN and max(sizes.values()) <= 3
    assert sizes == {role: whole[role] for role in sizes}
    assert sum(sizes.values()) <= sources.MOST == len(splits.set_aside)
    assert len(splits.names) == (sources.ALONE if arm == "local" else len(whole) - 21)


def test_own_models_read_the_rows_that_the_federation_reads(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    texts = {arm: texts_of_tests(shared("data"), tmp_path, arm) for arm in ("local", "fedavg")}
    assert len(texts["local"]) == sources.ALONE
    assert texts["local"] == {role: texts["fedavg"][role] for role in texts["local"]}


def test_no_arm_is_judged_on_fewer_rows_than_another() -> None:
    most = {study.name: study.table["evaluation"]["max_examples"] for study in (DOLLY, CLINC)}
    models = 10 - UNSEEN_OF_TEN
    assert max(most.values()) <= SHARED // models
    assert most["dolly"] >= 80  # the global test; a part of it would not be the same part for all


def texts_of_tests(data: Path, folder: Path, arm: str) -> dict[str, list[str]]:
    source = sources.stored(SHAKESPEARE.rows(data, SEED, arm), folder, "shakespeare")
    config = SHAKESPEARE.config("", MAIN, SEED, source, {})
    loaded = load_data(config, load_base("nano").tokenizer, folder, folder)
    test = loaded.splits.test
    assert config.evaluation.max_examples >= len(test.order)
    return {
        role: [loaded.corpus.examples[int(row)].response for row in test.rows(role)]
        for role in test.names
    }


def test_requests_choose_among_their_domain(shared: Callable[[str], Path]) -> None:
    rows = list(sources.clinc(shared("data")))
    assert len(rows) == 22_500
    assert all(len(set(row["choices"])) == 15 and row["intent"] in row["choices"] for row in rows)
    assert len({tuple(row["choices"]) for row in rows}) == 10


def judged(subject: str, loss: float, **own: float) -> list[EvaluationRecord]:
    unseen = EvaluationRecord(subject=subject, split="unseen", metrics={"nll": loss})
    clients = EvaluationRecord(
        subject=subject, split="clients", metrics={"nll": loss}, per_client={"nll": own}
    )
    return [unseen, clients]


def run(*records: EvaluationRecord) -> Run:
    return Run(Path("run"), {}, (), History(evaluations=list(records)), Cursor())


def study(together: list[float], alone: list[float]) -> Done:
    done = Done(DOLLY)
    for seed, (one, other) in enumerate(zip(together, alone, strict=True)):
        fedavg = judged("federated", one, a=1.0, b=3.0) + judged("base", 9.0, a=8.0, b=8.0)
        done.runs["", "fedavg", seed] = run(*fedavg)
        done.runs["", "local", seed] = run(*judged("local", other, b=5.0, c=7.0))
    return done


def test_arms_are_compared_within_a_seed() -> None:
    gain = difference(study([1.0, 2.0, 3.0], [1.5, 2.6, 3.7]), "", "fedavg", "local", UNSEEN)
    assert gain.mean == pytest.approx(0.6) and gain.spread == pytest.approx(0.1)
    assert gain.is_clear


def test_best_is_said_only_outside_the_spread() -> None:
    arms = ["fedavg", "local"]
    assert best(study([1.0, 2.0], [1.5, 2.6]), "", arms, UNSEEN) == "fedavg"
    assert best(study([1.5, 2.6], [1.0, 2.0]), "", arms, UNSEEN) == "local"
    assert best(study([1.0, 2.6], [1.5, 2.5]), "", arms, UNSEEN) is None
    assert best(study([1.0], [1.5]), "", arms, UNSEEN) is None


def test_clients_that_an_arm_was_not_judged_on_do_not_count() -> None:
    done = study([1.0], [1.5])
    figures = {arm: values(done, "", arm, OWN).tolist() for arm in ("base", "fedavg", "local")}
    assert figures == {"base": [8.0], "fedavg": [3.0], "local": [5.0]}


def test_partitions_are_what_their_names_say() -> None:
    configs = {
        name: CLINC.config(name, MAIN, 0, Path("x"), {}).data.clients for name in CLINC.settings
    }
    kinds = {name: (spec.by, spec.alpha) for name, spec in configs.items()}
    assert kinds["Dirichlet 0.1"] == ("dirichlet", 0.1) and kinds["by domain"] == ("key", None)
    assert all(spec.unseen == 2 for spec in configs.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_writes_and_takes_over(
    shared: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    out, runs = tmp_path / "results.md", tmp_path / "runs"
    argv = ["--data", str(shared("data")), "--out", str(out), "--runs", str(runs)]
    argv += ["--quick", "--only", "shakespeare"]
    assert results.main(argv) == 0
    first = out.read_text(encoding="utf-8")
    made = {path: path.stat().st_mtime_ns for path in runs.rglob("journal.jsonl")}
    assert len(made) == 3 and "*fedavg* against *local*" in first and "nan" not in first
    assert results.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("journal.jsonl")} == made
    assert out.read_text(encoding="utf-8") == first


def test_a_folder_without_the_data_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", str(tmp_path), "--out", str(tmp_path / "results.md")]
    assert results.main(argv) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--data" in said and "dolly15k_fedit10.jsonl" in said
