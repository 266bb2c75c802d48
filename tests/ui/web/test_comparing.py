"""Verdicts are given where pairs of seeds prove something, and refused with a reason elsewhere."""

from pathlib import Path

import pytest

from federation.runs.run import Run
from tests.ui.web.made_uicompare import final, record_clients
from ui.web import comparing, participation, whatifs
from ui.web.charts.compare import parallel_frame, placed
from ui.web.store import Opened, Shelf


def opened(path: Path) -> Opened:
    return Opened(Run.open(path))


def arms(folder: Path, **arm: object) -> list[Opened]:
    """Control and arm under three seeds, the arm half a nat better."""
    found = []
    for seed, nll in enumerate((2.0, 2.1, 1.9)):
        found.append(opened(final(folder / f"plain-{seed}", nll, seed)))
        found.append(opened(final(folder / f"other-{seed}", nll - 0.5 - 0.01 * seed, seed, **arm)))
    return found


def test_pairs_that_differ_in_one_key_get_a_verdict(tmp_path: Path) -> None:
    runs = arms(tmp_path, work={"lr": 0.02})
    found = comparing.verdicts(runs, [], "nll")
    assert found.control == "plain-0"
    (arm,) = found.arms
    assert list(arm.changes) == ["work.lr"]
    assert [p.improvement for p in arm.pairs] == pytest.approx([0.5, 0.51, 0.52])
    assert arm.judged is not None
    assert arm.judged.verdict == "better"
    swapped = comparing.verdicts(runs[1::2] + runs[::2], [], "nll").arms[0].judged
    assert swapped is not None
    assert swapped.verdict == "worse"


def test_two_that_are_chosen_are_paired_with_their_sisters_of_the_folder(tmp_path: Path) -> None:
    runs = arms(tmp_path, work={"lr": 0.02})
    found = comparing.verdicts(runs[:2], Shelf(tmp_path).opened(), "nll")
    assert len(found.arms[0].pairs) == 3
    alone = comparing.verdicts(runs[:2], [], "nll").arms[0]
    assert len(alone.pairs) == 1
    assert alone.judged is None  # nobody knows how the control differs from itself


def test_a_metric_that_is_better_when_higher_turns_the_verdict() -> None:
    control, arm = {0: ("a", 0.5)}, {0: ("b", 0.7)}
    assert comparing.paired(control, arm, "exact_match")[0].improvement == pytest.approx(0.2)
    assert comparing.paired(control, arm, "nll")[0].improvement == pytest.approx(-0.2)
    assert comparing.best({"a": 0.5, "b": 0.7}, "exact_match") == ["b"]
    assert comparing.best({"a": 0.5, "b": 0.7}, "nll") == ["a"]
    assert comparing.best({"a": 0.5}, "nll") == []


@pytest.mark.parametrize(
    ("arm", "why"),
    [
        ({"work": {"lr": 0.02, "steps": 7}}, "2 keys"),
        ({"data": {"max_tokens": 64}}, "not measured alike"),
    ],
)
def test_no_verdict_where_nobody_could_say_what_it_was(
    tmp_path: Path, arm: dict[str, object], why: str
) -> None:
    (found,) = comparing.verdicts(arms(tmp_path, **arm), [], "nll").arms
    assert found.judged is None
    assert why in found.why


def test_an_algorithm_and_its_setting_are_one_choice(tmp_path: Path) -> None:
    runs = arms(tmp_path, algorithm={"name": "fedprox", "mu": 0.1})
    (found,) = comparing.verdicts(runs, [], "nll").arms
    assert found.judged is not None


def test_curves_lie_along_what_was_spent(tmp_path: Path) -> None:
    run = Run.open(final(tmp_path / "one", 2.0, 0))
    assert comparing.along(run, "client-steps") == {0: 0, 1: 10, 2: 20}
    assert comparing.along(run, "traffic") == {0: 0, 1: 2, 2: 4}
    assert comparing.series(run, comparing.TRAINING) == {1: 4.0, 2: 3.0}
    assert comparing.finals(run) == {comparing.TRAINING: 3.0, "nll": 2.0}


def test_places_on_an_axis_keep_the_order_and_reach_both_ends() -> None:
    assert placed({"a": 1.0, "b": 3.0, "c": 2.0}) == {"a": 0.0, "b": 1.0, "c": 0.5}
    assert placed({"a": 1.0, "b": 100.0, "c": 10.0})["c"] == pytest.approx(0.5)
    assert placed({"a": "x", "b": None}) == {"a": 0.0, "b": 1.0}
    frame = parallel_frame({"work.lr": {"a": 1, "b": 2}, "engine.chunk": {"a": 1, "b": 2}}, "nll",
                           {"a": 2.0, "b": 1.0})  # fmt: skip
    assert list(dict.fromkeys(frame["axis"])) == ["work.lr", "nll"]


def test_participation_counts_who_was_asked_and_who_never(tmp_path: Path) -> None:
    run = Run.open(record_clients(tmp_path / "one", keep=False))
    found = {part.client: part for part in participation.parts(run)}
    assert (found["ward-a"].reported, found["ward-a"].last) == (3, 3)
    assert (found["ward-c"].reported, found["ward-c"].last) == (1, 1)
    assert participation.inequality([3, 3, 3]) == 0
    assert participation.inequality([3, 3, 1]) == pytest.approx(4 / 21)
    assert participation.inequality([0, 0]) == 0
    assert participation.inequality([]) == 0
    fair = participation.fairness(run)
    assert fair is not None
    assert (fair.after, fair.mean, fair.worst) == (3, 2.0, 3.0)


def test_what_is_asked_is_checked_as_the_command_line_checks_it(tmp_path: Path) -> None:
    from federation.errors import ConfigError
    from ui.arguments import parse
    from ui.commands.whatif import changed

    run = Run.open(record_clients(tmp_path / "one"))
    assert whatifs.playable(run) == [1]  # no state before the others is kept
    change, effort = whatifs.checked(
        run, 1, 2, 5, drop=("ward-c",), reweight={"ward-a": 2.0}, algorithm="median", clip=1.5,
        scale_lr=0.5, steps=3,
    )  # fmt: skip
    args = parse(whatifs.arguments(run.path, 1, change, effort))
    assert changed(args) == change
    assert (args.directory, args.round, args.rounds, args.repeats) == (run.path, 1, 2, 5)
    for wrong, why in (
        ({}, "nothing is changed"),
        ({"drop": ("ward-x",)}, "no client ward-x"),
        ({"drop": ("ward-a",), "reweight": {"ward-a": 2.0}}, "dropped and reweighted"),
        ({"clip": 0.0}, "clip"),
        ({"steps": -1}, "steps"),
    ):
        with pytest.raises(ConfigError, match=why):
            whatifs.checked(run, 1, 1, 1, **wrong)
    with pytest.raises(ConfigError, match="cannot be played again"):
        whatifs.checked(run, 2, 1, 1, steps=1)
    with pytest.raises(ConfigError, match="repeats"):
        whatifs.checked(run, 1, 1, 10**6, steps=1)


def test_an_effect_proves_something_only_if_its_interval_excludes_none(tmp_path: Path) -> None:
    run = Run.open(record_clients(tmp_path / "one"))
    rows = whatifs.contributions(run.history.contributions[0])
    assert [row.name for row in rows] == ["ward-c", "ward-b", "ward-a"]
    assert [row.verdict for row in rows] == ["worse", "inconclusive", "better"]
    (row,) = whatifs.rows(run, lambda name: "c3")
    assert row.verdict == "better"
    assert "without c3" in row.name
    assert "ward" not in row.name
