"""What a pilot gains: only what runs or studies of the folder have measured, with its interval."""

from pathlib import Path

import pytest

from tests.ui.web.made_uicompare import final, record_study
from tests.ui.web.recorded import config
from ui.web.lift import lifts
from ui.web.store import Shelf

STEERED, ALONE = {"policy": "heuristic"}, {}
ON = ("pilot.policy=heuristic",)


def measured(folder: Path):
    shelf = Shelf(folder)
    return lifts(shelf.opened(), [folder / name for name in shelf.studies()])


def paired(folder: Path, seeds: int = 3, **table: object) -> None:
    for seed in range(seeds):
        final(folder / f"steered-{seed}", 1.5 + 0.11 * seed, seed, pilot=STEERED, **table)
        final(folder / f"alone-{seed}", 2.0 + 0.1 * seed, seed, pilot=ALONE)


def test_pairs_with_and_without_a_pilot_measure_it(tmp_path: Path) -> None:
    paired(tmp_path)
    final(tmp_path / "younger", 9.0, 7, pilot=STEERED)  # its pilot is the same: so is its lift
    found = measured(tmp_path)
    assert set(found) == {"steered-0", "steered-1", "steered-2", "younger"}
    assert len(set(found.values())) == 1
    lift = found["steered-0"]
    assert lift.mean == pytest.approx(0.49)  # a loss that is lower by so much
    assert lift.low < lift.mean < lift.high
    assert (lift.pairs, lift.verdict) == (3, "better")
    assert lift.interval.startswith("+0.4")
    assert "nats per token" in lift.told and "3 pairs" in lift.told


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_pairs_measure_nothing(tmp_path: Path, seeds: int) -> None:
    paired(tmp_path, seeds)
    assert measured(tmp_path) == {}


def test_what_differs_in_more_than_the_pilot_measures_nothing(tmp_path: Path) -> None:
    paired(tmp_path, work={"lr": 0.02})
    assert measured(tmp_path) == {}


def test_each_pilot_is_measured_on_its_own(tmp_path: Path) -> None:
    paired(tmp_path)
    for seed in range(3):
        bold = STEERED | {"bounds": {"lr": [0.001, 0.1]}}
        final(tmp_path / f"bold-{seed}", 2.5 + 0.11 * seed, seed, pilot=bold)
    found = measured(tmp_path)
    assert found["steered-0"].verdict == "better" and found["bold-0"].verdict == "worse"
    assert found["bold-2"].mean == pytest.approx(-0.51)


def like_the_study(path: Path, **pilot: object) -> Path:
    """A run of the configuration that the made study compares."""
    cfg = config(2, seed=5, pilot=pilot)
    return final(path, 2.0, cfg.seed, pilot=pilot)


@pytest.mark.parametrize(("turned", "sign", "verdict"), [(False, 1, "better"), (True, -1, "worse")])
def test_a_study_measures_it_whichever_arm_has_the_pilot(
    tmp_path: Path, turned: bool, sign: int, verdict: str
) -> None:
    record_study(tmp_path / "worth", plain=ON if turned else (), hot=() if turned else ON)
    like_the_study(tmp_path / "steered", **STEERED)
    like_the_study(tmp_path / "alone")
    like_the_study(tmp_path / "other", policy="fixed")
    found = measured(tmp_path)
    assert set(found) == {"steered"}
    lift = found["steered"]
    assert lift.mean == pytest.approx(sign * 0.51)
    assert lift.low <= lift.mean <= lift.high
    assert lift.verdict == verdict and "study worth" in lift.told


@pytest.mark.parametrize(("upto", "hot"), [("look", ON), ("verdict", (*ON, "work.lr=0.02"))])
def test_a_study_without_verdict_or_with_more_changes_measures_nothing(
    tmp_path: Path, upto: str, hot: tuple[str, ...]
) -> None:
    record_study(tmp_path / "worth", upto, hot=hot)
    like_the_study(tmp_path / "steered", **STEERED)
    final(tmp_path / "hot", 2.0, 5, pilot=STEERED, work={"lr": 0.02})
    assert measured(tmp_path) == {}


def test_a_damaged_study_is_passed_over(tmp_path: Path) -> None:
    journal = record_study(tmp_path / "worth", hot=ON) / "journal.jsonl"
    like_the_study(tmp_path / "steered", **STEERED)
    journal.write_text(journal.read_text().replace("2.1", "2.2"))
    assert measured(tmp_path) == {}
