"""What would have been: against the run's own bits, against a planted liar, and beside the run."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from federation import experiment
from federation.changes import NOTHING, Change
from federation.config import Config
from federation.errors import ConfigError, CorruptError, LockedError, QuorumError
from federation.evaluation import stacks
from federation.kindred import spoilers
from federation.replays import Stage, stage
from federation.runs.records import DecisionRecord, EndRecord
from federation.runs.run import Run, checkpoint_files, problems, updates_files
from federation.runs.writer import RunWriter
from federation.session import Watch
from federation.whatif import contributions, effect, what_if
from tests.tiny_worlds import World, tiny_world, write_rows

LIAR = "client-4"
# The chunk is given: measured, it may differ from run to run, and with it the bits.
COMMON = ["rounds=4", "cohort.size=4", "work.steps=4", "engine.chunk=3"]
COMMON.append("data.clients.test_key=referee")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two kinds of questions with one right answer each; one client has learnt them the wrong way.

    A referee who takes no part holds the test.
    """
    world = tiny_world(tmp_path_factory.mktemp("world"))
    names = [*(f"client-{c}" for c in range(5)), "referee"]
    write_rows(world.data, [row(name, i) for name in names for i in range(10)])
    return world


def row(client: str, number: int) -> dict[str, str]:
    kind = ("sum", "total")[number % 2]
    right = {"sum": "add", "total": "plus"}[kind]
    answer = {"add": "plus", "plus": "add"}[right] if client == LIAR else right
    return {"client": client, "kind": kind, "question": f"{kind} {number}", "answer": answer}


Play = Callable[..., Run]


@pytest.fixture(scope="module")
def play(world: World, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Run the tiny federation with some settings; once for each."""
    made: dict[tuple[str, ...], Run] = {}

    def run(*settings: str) -> Run:
        if settings not in made:
            all_of_them = [*COMMON, *settings]
            config = Config.from_toml(world.config, all_of_them)
            out = tmp_path_factory.mktemp("runs") / "run"
            made[settings] = experiment.run_experiment(config, out, cache=world.folder / "cache")
        return made[settings]

    return run


@pytest.fixture(scope="module")
def run(play: Play) -> Run:
    """A finished run that kept its updates.  Only to be read."""
    return play("engine.keep_updates=3")


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.path, tmp_path / "run"))


@pytest.fixture
def staged(world: World) -> Callable[..., Stage]:
    return lambda run, round, rounds=1: stage(run, round, rounds, world.folder / "cache", Watch())


@pytest.fixture
def ask(world: World) -> Callable:
    cache = world.folder / "cache"
    return lambda path, round, change, **more: what_if(path, round, change, cache=cache, **more)


def without_updates(path: Path) -> Path:
    for file in (path / "state").glob("updates-*"):
        file.unlink()
    return path


# --- The run's own bits ------------------------------------------------------------------------


@pytest.mark.parametrize("round", [0, 2, 3])
def test_dropping_nobody_gives_the_checkpoints_own_bits(round, run, staged, ask, copy):
    found = ask(copy, round, NOTHING)
    assert found.reproduced and found.same and found.effect.values == (0.0,)
    assert found.updates == ("retrained" if round == 0 else "kept")
    if round:
        again = staged(run, round)
        state = again.concluded(again.kept(), NOTHING, again.setup.config.seed)
        assert torch.equal(state["params"], run.state(round)["params"])


MANY = {
    "plain": [],
    "scaffold": ["algorithm.name=scaffold", 'work.optimizer="sgd"'],
    "fedadam": ["algorithm.name=fedadam"],
    "packed": ["upload.top_k=0.5", "upload.bits=8"],
    "kept optimizer": ["work.keep_optimizer=true"],
    "devices": [
        "devices.dropout=0.3",
        "cohort.size=5",
        "devices.speed_sigma=1.0",
        "devices.deadline_seconds=3",
    ],
    "median": ["algorithm.name=median"],
}


@pytest.mark.parametrize("name", MANY)
def test_kept_and_retrained_are_the_same_bits_and_the_runs_own(name, play, staged):
    run = play("engine.keep_updates=2", *MANY[name])
    again = staged(run, 3)
    seed = again.setup.config.seed
    kept, trained = again.kept(), again.trained(seed)
    assert kept is not None and kept.clients == trained.clients == run.rounds[3].record.clients
    assert kept.tree_C.keys() == trained.tree_C.keys()
    for group, x_C in kept.tree_C.items():
        assert torch.equal(x_C, trained.tree_C[group]), group
    assert torch.equal(kept.weight_C, trained.weight_C)
    assert torch.equal(kept.loss_C, trained.loss_C) and torch.equal(kept.norm_C, trained.norm_C)
    assert again.reproduces(again.concluded(kept, NOTHING, seed))
    for rounds in (1, 2):
        earlier = staged(run, 4 - rounds, rounds)
        assert earlier.reproduces(earlier.played(NOTHING, seed))


def test_leaving_a_report_out_is_not_asking_the_client(run, staged):
    """So one-round what-ifs need no training: a client's row is its own."""
    again, change = staged(run, 3), Change(drop=(run.rounds[3].record.clients[1],))
    seed = again.setup.config.seed
    short = again.concluded(again.kept(), change, seed)
    assert torch.equal(short["params"], again.played(change, seed)["params"])
    assert not torch.equal(short["params"], run.state(3)["params"])


@pytest.mark.parametrize("norm", [0.01, 1e6])
def test_clipping_a_kept_report_is_clipping_before_it_is_sent(norm, run, staged):
    again, change = staged(run, 3), Change(clip=norm)
    assert change.spares_training(again.setup.config)
    seed = again.setup.config.seed
    short = again.concluded(again.kept(), change, seed)
    assert torch.equal(short["params"], again.played(change, seed)["params"])
    assert torch.equal(short["params"], run.state(3)["params"]) == (norm > 1)


def test_another_combine_needs_no_training_and_is_what_a_run_with_it_would_have_done(
    run, play, staged
):
    again, change = staged(run, 0), Change(algorithm="median")
    assert change.spares_training(again.setup.config)
    reports = again.trained(again.setup.config.seed)
    got = again.concluded(reports, change, again.setup.config.seed)
    wanted = play("engine.keep_updates=4", "algorithm.name=median")
    first = checkpoint_files(wanted.path, wanted.history)[0]
    assert first.exists(), "keep_updates keeps the states that its updates are applied to"
    assert torch.equal(got["params"], wanted.state(0)["params"])


def test_other_training_from_the_start_is_another_run(run, play, staged):
    """Three rounds at half the rate and with more steps: as a run so configured would play them."""
    other = play("work.lr=0.005", "work.steps=6", "rounds=3")
    again = staged(run, 0, 3)
    state = again.played(Change(scale_lr=0.5, steps=6), again.setup.config.seed)
    assert torch.equal(state["params"], other.state(2)["params"])


def test_a_server_with_moments_goes_on_from_a_state_without(run, ask, copy):
    found = ask(copy, 3, Change(algorithm="fedadam:server_lr=0.01"))
    assert not found.same and math.isfinite(found.effect.mean)


# --- What it says ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shares(run: Run, world: World, tmp_path_factory: pytest.TempPathFactory):
    """Contributions in every round in which the liar took part."""
    path = Path(shutil.copytree(run.path, tmp_path_factory.mktemp("shares") / "run"))
    heard = [n for n, record in run.history.rounds.items() if LIAR in record.clients]
    return path, {n: contributions(path, n, cache=world.folder / "cache") for n in heard}


def test_a_planted_liar_is_ranked_first_in_every_round(shares):
    _, found = shares
    assert len(found) >= 3
    for record in found.values():
        effects = {client: x.mean for client, x in record.effects.items()}
        first, second = sorted(effects, key=effects.__getitem__)[:2]
        assert first == LIAR and effects[LIAR] < -0.03 < effects[second]


def test_a_planted_liar_alone_spoils_rows_like_its_own_in_every_round(shares):
    _, found = shares
    for record in found.values():
        assert min(record.own, key=lambda client: record.own[client].mean) == LIAR
        assert spoilers(record) == (LIAR,)
        assert record.own[LIAR].mean < 3 * record.effects[LIAR].mean, "a louder voice tells more"


def test_a_contribution_is_the_effect_of_dropping_that_client(shares, ask):
    path, found = shares
    round = max(found)
    for client, share in list(found[round].effects.items())[:2]:
        dropped = ask(path, round, Change(drop=(client,)))
        assert dropped.effect.mean == pytest.approx(share.mean, abs=1e-5)
        assert dropped.was == pytest.approx(found[round].was, abs=1e-5)


def test_all_models_without_a_client_are_judged_in_few_passes(copy, world, monkeypatch):
    calls = []
    bound = stacks.bound
    monkeypatch.setattr(stacks, "bound", lambda *a: calls.append(len(a[1])) or bound(*a))
    contributions(copy, 3, cache=world.folder / "cache")
    assert sum(calls) == 9 and len(calls) <= 3, (
        "four without a client, four louder, the one with all"
    )


def test_the_loss_as_it_was_is_the_one_in_the_journal(copy, run, ask):
    judged = run.rounds[3].evaluation["federated"]["nll"]
    assert ask(copy, 3, NOTHING).was == pytest.approx((judged,), rel=1e-5)


def test_repeats_draw_otherwise_and_give_an_interval(copy, ask):
    found = ask(copy, 3, Change(drop=(LIAR,)), repeats=3)
    assert len(set(found.was)) == 3 and len(found.effect.values) == 3
    assert found.effect.low < found.effect.mean < found.effect.high
    assert found.was[0] == pytest.approx(ask(copy, 3, NOTHING).was[0])
    assert found.effect.values == tuple(
        b - a for a, b in zip(found.was, found.would_be, strict=True)
    )


def test_the_interval_is_students():
    """Four values of mean 2.5: 3.182 is the 97.5 % quantile of t with three degrees of freedom."""
    found = effect([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)
    assert effect([1.0]).low is None and effect([1.0, math.inf]).low is None


def test_weights_that_an_algorithm_ignores_change_nothing_and_it_says_so(play, ask, tmp_path):
    run = play("engine.keep_updates=2", "algorithm.name=median")
    path = shutil.copytree(run.path, tmp_path / "run")
    client = run.rounds[3].record.clients[0]
    assert ask(path, 3, Change(reweight={client: 9.0})).same
    assert not ask(path, 3, Change(drop=(client,))).same


def test_a_round_without_any_report_leaves_the_model_as_it_was(copy, run, staged):
    again = staged(run, 3)
    nobody = Change(drop=run.rounds[3].record.clients)
    seed = again.setup.config.seed
    for state in (again.concluded(again.kept(), nobody, seed), again.played(nobody, seed)):
        assert torch.equal(state["params"], run.state(2)["params"])


# --- Beside the run ----------------------------------------------------------------------------


def adapter(path: Path) -> bytes:
    return (path / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_what_if_changes_no_later_round(world, run, ask, tmp_path):
    """Stopped, asked about, resumed: the bits, figures and status of an undisturbed run."""

    def stop(record: object) -> None:
        if isinstance(record, DecisionRecord) and record.round == 2:
            raise KeyboardInterrupt

    cache, path = world.folder / "cache", tmp_path / "run"
    config = Config.from_table(run.config, "config")
    with pytest.raises(KeyboardInterrupt):
        experiment.run_experiment(config, path, cache=cache, watch=Watch(record=stop))
    before = {file: file.read_bytes() for file in sorted((path / "state").iterdir())}
    ask(path, 1, Change(scale_lr=0.5), repeats=2)
    ask(path, 0, Change(drop=("client-0",)), rounds=2)
    contributions(path, 1, cache=cache)
    assert {file: file.read_bytes() for file in sorted((path / "state").iterdir())} == before
    assert Run.open(path).status == "stopped" and problems(path) == []
    again = experiment.resume(path, cache=cache)
    assert len(again.history.whatifs) == 2 and len(again.history.contributions) == 1
    assert adapter(path) == adapter(run.path)
    hashes = [[x.record.checkpoint_sha256 for x in r.rounds] for r in (again, run)]
    assert hashes[0] == hashes[1]
    assert again.evaluation == run.evaluation and again.status == "finished"


def test_a_finished_run_stays_finished_and_whole(copy, run, ask):
    found = ask(copy, 3, Change(clip=0.1))
    again = Run.open(copy)
    assert again.status == "finished" and again.made == {
        copy / file.relative_to(run.path): sha256 for file, sha256 in run.made.items()
    }
    assert again.history.whatifs == [found]
    assert problems(copy) == []
    assert again.rounds == run.rounds


def test_clients_that_keep_something_keep_it(play, ask, tmp_path):
    run = play("engine.keep_updates=2", *MANY["scaffold"])
    path = Path(shutil.copytree(run.path, tmp_path / "run"))
    before = {file: file.read_bytes() for file in sorted((path / "clients").iterdir())}
    assert before
    ask(path, 2, Change(scale_lr=2.0), rounds=2)
    ask(path, 3, Change(algorithm="fedavg"))
    assert {file: file.read_bytes() for file in sorted((path / "clients").iterdir())} == before


# --- What cannot be asked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("round", "change", "more", "words"),
    [
        (9, {"clip": 1.0}, {}, "has no round 10 to play again: it has rounds 1 to 4"),
        (3, {"drop": ("client-9",)}, {}, "no client client-9 reported in round 4; did you mean"),
        (3, {"reweight": {"x": 2.0}}, {}, "no client x reported in round 4"),
        (2, {"clip": 1.0}, {"rounds": 3}, "from round 3 on at most 2 can be played again, not 3"),
        (3, {"clip": 1.0}, {"rounds": 0}, "rounds must be at least 1, got 0"),
        (3, {"clip": 1.0}, {"repeats": 0}, "repeats must be from 1 to 1000, got 0"),
        (
            3,
            {"scale_lr": 1e5},
            {},
            "what-if: lr must be a finite number above 0 and at most 10",
        ),
        (3, {"algorithm": "fedavgg"}, {}, "unknown algorithm 'fedavgg'; did you mean 'fedavg'?"),
        (3, {"algorithm": "krum:byzantine"}, {}, "write NAME or NAME:SETTING=NUMBER"),
        (3, {"algorithm": "krum:f=1"}, {}, "unknown setting 'f'"),
        (3, {"algorithm": "krum"}, {}, "needs 5 reports a round .* cohort.size is 4"),
        (3, {"algorithm": "local"}, {}, "local has no global model"),
        (3, {"algorithm": "scaffold"}, {}, 'set work.optimizer = "sgd"'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(round, change, more, words, copy, ask):
    journal = (copy / "journal.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=words) as refused:
        ask(copy, round, Change.of(**change), **more)
    assert "\n" not in str(refused.value)
    assert (copy / "journal.jsonl").read_bytes() == journal


def test_a_round_whose_state_is_gone_says_what_can_be_asked(play, ask, tmp_path):
    path = shutil.copytree(play("rounds=6").path, tmp_path / "run")
    with pytest.raises(ConfigError) as refused:
        ask(path, 2, Change(clip=1.0))
    assert "no checkpoint any more of the state before round 3" in str(refused.value)
    assert "rounds that can be played again: 1, 5, 6; engine.keep_updates = N" in str(refused.value)
    assert ask(path, 4, Change(clip=0.1)).updates == "retrained"


def test_a_run_that_is_being_written_is_left_alone(copy, ask):
    with RunWriter.reopen(copy) as writer:
        with pytest.raises(LockedError, match="is being written by process"):
            ask(copy, 3, NOTHING)
        writer.append(EndRecord(status="stopped"))
        with pytest.raises(LockedError, match=r"written by process .*another what-if"):
            ask(copy, 3, NOTHING)


def test_a_round_under_noise_is_not_played_twice(play, ask, tmp_path):
    path = shutil.copytree(play("upload.clip=1.0", "upload.noise=0.1").path, tmp_path / "run")
    with pytest.raises(ConfigError, match="gives away whoever is changed"):
        ask(path, 3, NOTHING)


def test_updates_are_not_kept_beside_noise(world):
    settings = ["upload.clip=1.0", "upload.noise=0.1", "engine.keep_updates=1"]
    with pytest.raises(ConfigError, match=r"engine.keep_updates: single clients' updates"):
        Config.from_toml(world.config, settings)


def test_damaged_updates_are_refused_and_missing_ones_trained(copy, run, ask):
    file = updates_files(copy, run.history)[3]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptError, match=r"updates-0003.safetensors is damaged"):
        ask(copy, 3, NOTHING)
    file.unlink()
    assert ask(copy, 3, NOTHING).updates == "retrained"


def test_too_few_reports_for_a_robust_combine_are_refused(play, ask, tmp_path):
    run = play("engine.keep_updates=1", "algorithm.name=krum", "algorithm.byzantine=0")
    path = Path(shutil.copytree(run.path, tmp_path / "run"))
    clients = run.rounds[3].record.clients
    with pytest.raises(QuorumError, match="needs 3 reports, 2 can be used"):
        ask(path, 3, Change(drop=clients[:2]))


def test_other_data_is_refused(world, copy, ask):
    before = world.data.read_text()
    write_rows(
        world.data, [row(name, i) for name in ("a", "b", "c", "d", "referee") for i in range(5)]
    )
    try:
        with pytest.raises(ConfigError, match="the data changed since this run began"):
            ask(copy, 3, NOTHING)
    finally:
        world.data.write_text(before)


def test_it_is_told_how_many_models_are_evaluated_so_far(copy, world):
    said: list[str] = []
    record = contributions(copy, 3, cache=world.folder / "cache", watch=Watch(phase=said.append))
    count = 1 + 2 * len(record.effects)
    assert len(record.effects) == 4
    assert said[-2:] == [
        f"evaluating models 1 to 8 of {count}",
        f"evaluating models 9 to 9 of {count}",
    ]
