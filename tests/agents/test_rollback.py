"""A round that diverges is undone; an adversary at the knobs cannot ruin a run."""

import math
from pathlib import Path

import pytest

from agents import spec
from agents.experiment import replay, run_experiment
from agents.proposals import Answer, Proposal
from agents.rollback import limit, narrowed, target, undone
from agents.seen import applied
from federation.changes import Change
from federation.config import Config
from federation.errors import ConfigError, QuorumError
from federation.runs.history import History
from federation.runs.records import (
    DecisionRecord,
    Record,
    ResumeRecord,
    RollbackRecord,
    RoundRecord,
)
from federation.runs.run import Run, memory_after, problems
from federation.session import Watch
from federation.whatif import what_if
from tests.agents.histories import history
from tests.agents.valleys import FAR, descend, distance
from tests.tiny_worlds import tiny_world

ROUNDS = 12
ADVERSE = {"policy": "extreme", "bounds": {"lr": [0.001, 10.0]}, "trust": 4.0, "rollback": 2.0}


class Extreme:
    """Wants the most of everything, always."""

    name = "extreme@1"

    def decide(self, observation):
        values = {name: bound.high for name, bound in observation.bounds.items()}
        return Answer(proposal=Proposal(values=values, rationale="more"))


class Late(Extreme):
    """Keeps everything for some rounds, so that there is something to lose."""

    name = "late@1"

    def decide(self, observation):
        if observation.round < 4:
            return Answer(proposal=Proposal())
        return super().decide(observation)


@pytest.fixture(scope="module", autouse=True)
def adversaries():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "POLICIES", {"extreme": Extreme, "late": Late} | spec.POLICIES)
        yield


@pytest.fixture(scope="module", params=["extreme", "late"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ruined(name: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    descend(out, ROUNDS, **(ADVERSE | {"policy": name}))
    return Run.open(out)


def states(run: Run) -> list[str | None]:
    return [x.checkpoint_sha256 for x in run.history.rounds.values()]


def kept(run: Run) -> dict[str, str]:
    found = memory_after(run.path, run.history, run.history.last_round).files()
    return {file.name: sha256 for file, sha256 in found.items()}


def test_an_adversary_ends_near_the_default_run(ruined, tmp_path):
    """Within 5 % of what training gains at all; without roll-back it is worse than at first."""
    default, _ = descend(tmp_path / "default", ROUNDS, policy="fixed")
    first, fair, found = (distance(x) for x in ({"params": FAR}, default, ruined.state()))
    assert ruined.history.rollbacks
    assert found < fair + 0.05 * (first - fair)
    alone = ADVERSE | {"policy": ruined.history.decisions[0].details["asked"].partition("@")[0]}
    try:
        wild, _ = descend(tmp_path / "wild", ROUNDS, **(alone | {"rollback": None}))
    except QuorumError:
        return
    assert distance(wild) > first


def test_what_is_undone_is_undone_whole(ruined):
    """State and memory after an undone round are, to the bit, what they were after the good one."""
    found, path = ruined.history, ruined.path
    for round, back in found.rollbacks.items():
        if back.to is None:
            continue
        assert back.to not in found.rollbacks
        newest = max(n for n in found.rounds if n < round and stands(found, n) == back.to)
        changed = set().union(*(found.rounds[n].kept for n in range(newest + 1, round)))
        assert set(found.rounds[round].kept) == changed
    assert problems(path) == []


def stands(found: History, round: int) -> int | None:
    return found.rollbacks[round].to if round in found.rollbacks else round


def test_state_and_memory_hold_again(name, tmp_path):
    """Looked at while the run goes on, before older checkpoints are deleted."""
    path, seen = tmp_path / "run", {}

    def record(record: Record) -> None:
        if isinstance(record, RoundRecord):
            run = Run.open(path)
            memory = memory_after(path, run.history, record.round)
            fresh = {"gone": FAR * 0}
            asked = ("client-0", "client-1", "client-2", "client-3", "client-4")
            gone = memory.gather(asked, fresh)["gone"]
            seen[record.round] = run.state(record.round)["params"].tolist(), gone.tolist()

    descend(path, ROUNDS, Watch(record=record), **(ADVERSE | {"policy": name}))
    rollbacks = Run.open(path).history.rollbacks
    assert any(back.to is not None and back.to < n - 1 for n, back in rollbacks.items())
    for round, back in rollbacks.items():
        assert seen[round] == (seen[back.to] if back.to is not None else first(seen))


def first(seen: dict) -> tuple[list[float], list[list[float]]]:
    return FAR.tolist(), [[0.0] * 4] * 5


def test_the_round_after_is_played_with_the_last_good_values(ruined):
    found = ruined.history
    for round, back in found.rollbacks.items():
        good = 0.05 if back.to is None else applied(found.decisions[back.to])["lr"]
        tried = applied(found.decisions[round])["lr"]
        if round + 1 == ROUNDS:
            continue
        after = found.decisions[round + 1]
        assert (after.source, after.policy) == ("fallback", "rollback@1")
        assert after.reason.startswith(f"round {round + 1} was undone: ")
        assert after.work["lr"] == good
        if tried > good:
            later = [float(str(d.work["lr"])) for n, d in found.decisions.items() if n > round]
            assert all(rate < tried for rate in later)


def test_it_is_repeated_without_the_pilot_to_the_same_bits(ruined, tmp_path):
    descend(tmp_path / "again", ROUNDS, repeating=ruined.history)
    again = Run.open(tmp_path / "again")
    assert states(again) == states(ruined) and kept(again) == kept(ruined)
    assert again.history.rollbacks == ruined.history.rollbacks
    assert {x.source for x in again.history.decisions.values()} == {"replay"}


def test_killed_after_any_record_it_goes_on_to_the_same_bits(name, ruined, tmp_path):
    class Killed(BaseException):
        """Stands for a process that is gone."""

    path, wanted = tmp_path / "run", ADVERSE | {"policy": name}
    left = 0

    def record(record: Record) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    for life in range(200):
        left = life % 5 + 1
        try:
            descend(path, ROUNDS, Watch(record=record), **wanted)
            break
        except Killed:
            pass
    found = Run.open(path)
    assert sum(isinstance(x.record, ResumeRecord) for x in found.entries) > ROUNDS
    assert states(found) == states(ruined) and kept(found) == kept(ruined)
    assert found.history.rollbacks == ruined.history.rollbacks and problems(path) == []


def test_a_run_in_which_nobody_has_a_number_does_not_fail(tmp_path):
    wild = {"policy": "fixed", "bounds": {"lr": [0.01, 10.0], "steps": [1, 200]}}
    table = {"policy": "extreme", "trust": 100.0} | {"bounds": wild["bounds"]}
    with pytest.raises(QuorumError, match="no report can be used"):
        descend(tmp_path / "a", 4, **table)
    _, trained = descend(tmp_path / "b", 4, **table, rollback=2.0)
    found = Run.open(tmp_path / "b").history
    assert trained == [0, 1, 2, 3] and found.rollbacks[0].to is None
    assert math.isnan(found.rollbacks[0].loss) and "no report" in found.rollbacks[0].reason
    assert found.rounds[0].clients == () and len(found.rounds[0].missing) == 3
    assert found.decisions[1].work["lr"] == 0.05 and 1 not in found.rollbacks


def test_a_pilot_that_has_nothing_to_undo_is_as_before(tmp_path):
    table = {"policy": "null", "bounds": {"lr": [0.01, 0.2]}}
    descend(tmp_path / "a", ROUNDS, **table)
    descend(tmp_path / "b", ROUNDS, **table, rollback=1000.0)
    plain, careful = Run.open(tmp_path / "a"), Run.open(tmp_path / "b")
    assert careful.history.rollbacks == {} and states(careful) == states(plain)


def test_a_real_run_is_undone_and_repeated(tmp_path):
    """Hardly anything is learnt, so that a little more loss of another cohort is divergence."""
    world = tiny_world(tmp_path)
    plain = Config.from_toml(world.config, ["rounds=6", "engine.chunk=2", "work.lr=1e-5"])
    table = {"policy": "null", "bounds": {"lr": [1e-6, 1e-4]}, "rollback": 1.001}
    config, cache = plain.model_copy(update={"pilot": table}), tmp_path / "cache"
    run = run_experiment(config, tmp_path / "run", cache=cache)
    assert run.history.rollbacks and problems(run.path) == []
    again = replay(run.path, tmp_path / "again", cache=cache)
    assert states(again) == states(run)
    round = min(run.history.rollbacks)
    with pytest.raises(ConfigError, match=f"round {round + 1} diverged and was undone"):
        what_if(run.path, round, Change(scale_lr=0.5), cache=cache)


# --- On journals in memory ----------------------------------------------------------------------


def back(found: History, round: int, to: int | None) -> None:
    found.add(RollbackRecord(round=round, to=to, loss=9.0, limit=4.0, reason="it diverged"))


def test_the_limit_is_a_multiple_of_the_best_smoothed_loss_of_good_rounds():
    found = history([6.0, 3.0, 3.0, 3.0, 9.0, 0.3])
    back(found, 5, 3)
    assert limit(found, 2.0) == pytest.approx(6.0)
    assert limit(History(), 2.0) is None
    assert undone(found, 2.0, 6, 5.9, "") is None
    assert undone(found, 2.0, 6, 6.1, "") is not None
    assert undone(found, 2.0, 6, math.inf, "") is not None
    assert undone(found, 2.0, 6, 1.0, "no report") is not None
    assert undone(History(), 2.0, 0, 99.0, "") is None


def test_every_further_divergence_in_a_row_goes_one_round_further_back():
    found = history([3.0] * 4)
    assert target(found, 4) == 3
    found = history([3.0] * 5)
    back(found, 4, 3)
    assert target(found, 5) == 2
    found = history([3.0] * 6)
    back(found, 4, 3), back(found, 5, 2)
    assert target(found, 6) == 2  # no older state is kept
    found = history([3.0])
    back(found, 0, None)
    assert target(found, 1) is None and target(History(), 0) is None


def test_limits_are_drawn_in_towards_what_was_good_and_never_past_it():
    found = history([3.0] * 3)
    back(found, 1, 0), back(found, 2, 0)
    tried = {0: {"lr": 0.01, "steps": 4}, 1: {"lr": 0.04, "steps": 2}, 2: {"lr": 0.01, "steps": 4}}
    outer = {"lr": (0.001, 1.0), "steps": (1.0, 8.0)}
    assert narrowed(outer, found, tried, {}) == {
        "lr": (0.001, pytest.approx(0.02)),
        "steps": (3, 8.0),
    }


def test_a_rewind_voids_what_was_undone_later():
    found = history([3.0] * 3)
    back(found, 1, 0), back(found, 2, 0)
    found.add(ResumeRecord(round=1))
    assert list(found.rollbacks) == [1] and isinstance(found.decisions[2], DecisionRecord)


def test_a_factor_that_undoes_everything_is_refused(tmp_path: Path):
    config = Config.model_validate({"pilot": {"rollback": 1.0}})
    with pytest.raises(ConfigError, match="rollback must be a finite number above 1"):
        run_experiment(config, tmp_path / "x")
