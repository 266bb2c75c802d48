"""What a study may ask: everything that is wrong is told in one line, before anything runs."""

from pathlib import Path

import pytest

from agents.study.conduct import check_budget, run_study
from agents.study.space import overrides, placed, places, space_of, within
from agents.study.spec import StudySpec, from_table, from_toml
from federation.errors import ConfigError
from tests.agents.study.studies import SEARCH, spec, table
from tests.tiny_worlds import World

ARMS = {"plain": [], "hotter": ["work.lr=0.05"]}
AGENT = {"model": "scripted:x", "arms": 1}

WRONG = {
    "no control": ({"control": None}, "control: is missing; say which arm is the control"),
    "another control": ({"control": "none"}, "control: no arm is called 'none' \\(there are plain"),
    "one seed": ({"seeds": [0]}, "seeds: a verdict needs 3 paired seeds at least"),
    "two seeds": ({"seeds": [0, 1]}, "seeds: a verdict needs 3 paired seeds at least"),
    "a seed twice": ({"seeds": [0, 1, 1]}, "seeds: one is there twice"),
    "negative seed": ({"seeds": [0, 1, -1]}, "seeds.2 must be a whole number of at least 0"),
    "no seeds": ({"seeds": None}, "seeds: is missing; say under which seeds"),
    "no metric": ({"metric": None}, "metric: is missing; say what is compared by"),
    "unknown metric": (
        {"metric": {"name": "loss", "direction": "lower"}},
        "metric: name 'loss' is not measured; there are nll, ",
    ),
    "unmeasured metric": (
        {"metric": {"name": "exact_match", "direction": "higher"}},
        "exact_match is not measured; add 'exact_match' to evaluation.metrics",
    ),
    "wrong direction": (
        {"metric": {"name": "nll", "direction": "higher"}},
        "nll is better when it is lower; write 'lower'",
    ),
    "no direction": ({"metric": {"name": "nll"}}, "metric.direction: is missing"),
    "nothing to compare": ({"arms": {"plain": []}}, "there is nothing to compare"),
    "an arm that cannot be": (
        {"arms": ARMS | {"bad": ["work.lr=-1"]}},
        "arms.bad: work.lr must be",
    ),
    "an arm with a slip": ({"arms": ARMS | {"bad": ["work.lrr=1"]}}, "did you mean work.lr?"),
    "an arm that is no override": ({"arms": ARMS | {"bad": ["work.lr"]}}, "key=value"),
    "an arm with a seed": ({"arms": ARMS | {"bad": ["seed=3"]}}, "changes what is measured"),
    "an arm with data": (
        {"arms": ARMS | {"bad": ["data.split.test=0.5"]}},
        "changes what is measured",
    ),
    "an arm alone": (
        {"arms": ARMS | {"bad": ["algorithm.name=local"]}},
        "has no global model to compare",
    ),
    "an arm's name": ({"arms": ARMS | {"a/b": []}}, "arms"),
    "a given name": ({"arms": ARMS | {"trial-1": []}}, "names like this are given by the study"),
    "too many noise pairs": ({"noise_pairs": 5}, "noise_pairs is 5 and there are 4 seeds"),
    "unknown key": ({"sedes": [0, 1, 2]}, "unknown key sedes; did you mean seeds?"),
    "bounds the wrong way": (
        {"search": SEARCH | {"bounds": {"lr": [0.1, 0.001]}}},
        "search.bounds.lr: \\[0.1, 0.001\\] contradict each other",
    ),
    "bounds from zero": ({"search": SEARCH | {"bounds": {"lr": [0.0, 0.1]}}}, "0 < low <= high"),
    "bounds of no key": (
        {"search": SEARCH | {"bounds": {"work.lrr": [0.01, 0.1]}}},
        "search.bounds.work.lrr: unknown key work.lrr; did you mean work.lr?",
    ),
    "bounds of a part": ({"search": SEARCH | {"bounds": {"steps": [1.5, 4.0]}}}, "not whole"),
    "bounds out of bounds": (
        {"search": SEARCH | {"bounds": {"lr": [0.1, 99.0]}}},
        "work.lr must be a finite number above 0 and at most 10",
    ),
    "bounds of the data": (
        {"search": SEARCH | {"bounds": {"data.max_tokens": [8, 9]}}},
        "changes what is measured",
    ),
    "bounds twice": (
        {"search": SEARCH | {"bounds": {"lr": [0.1, 0.2], "work.lr": [0.1, 0.2]}}},
        "bounded twice",
    ),
    "no bounds": ({"search": SEARCH | {"bounds": {}}}, "search.bounds"),
    "hybrid without a model": (
        {"search": SEARCH | {"method": "hybrid"}},
        "say which in \\[agent\\]",
    ),
    "unknown search": ({"search": SEARCH | {"method": "grid"}}, "search.method"),
    "an agent without bounds": ({"agent": AGENT}, "agent.bounds: say what its arms may set"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_asked_is_refused_in_one_line(name: str, world: World):
    changes, words = WRONG[name]
    wrong = {key: value for key, value in table(world, **changes).items() if value is not None}
    with pytest.raises(ConfigError, match=words) as refused:
        from_table(wrong, "study.toml")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("study.toml: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_client_steps": 50}, "max_client_steps is 50 and the study needs 132 at least"),
        ({"arms": ARMS | {"bad": ["cohort.size=9"]}}, "bad: cohort.size is 9 but only 5 clients"),
        ({"arms": ARMS | {"bad": ["algorithm.name=fedavgg"]}}, "bad: .*fedavgg"),
        ({"search": SEARCH | {"bounds": {"cohort_size": [2, 9]}}}, "search: cohort.size is 9"),
        ({"search": SEARCH | {"method": "cmaes", "bounds": {"lr": [0.1, 1.0]}}}, "needs two keys"),
        ({"agent": AGENT | {"bounds": {"lr": [0.1, 1.0]}}}, "agent.model: script x cannot be read"),
        (
            {"agent": AGENT | {"model": "gpt", "bounds": {"lr": [0.1, 1.0]}}},
            "agent.model: .*names no language model",
        ),
    ],
)
def test_what_only_shows_with_the_data_is_refused_before_anything_runs(
    changes: dict[str, object], words: str, world: World, tmp_path: Path
):
    with pytest.raises(ConfigError, match=words) as refused:
        run_study(spec(world, **changes), tmp_path / "study", cache=world.folder / "cache")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "study").exists()


def test_no_validation_split_no_study(world: World):
    base = table(world)["base"]
    base["data"] = base["data"] | {"split": {"validation": 0.0}}
    with pytest.raises(ConfigError, match=r"data.split.validation is 0"):
        from_table(table(world, base=base), "study.toml")


def test_a_base_in_a_file_is_read_beside_the_study(world: World, tmp_path: Path):
    (tmp_path / "base.toml").write_text(world.config.read_text())
    study = tmp_path / "study.toml"
    study.write_text(
        'question = "?"\nbase = "base.toml"\ncontrol = "a"\nseeds = [0, 1, 2]\nnoise_pairs = 2\n'
        'max_client_steps = 500\n[metric]\nname = "nll"\ndirection = "lower"\n'
        '[arms]\na = []\nb = ["work.lr=0.1"]\n'
        "[search]\ntrials = 2\nmax_client_steps = 50\n[search.bounds]\nlr = [1e-3, 0.1]\n"
        "work.batch_size = [1, 4]\n"
    )
    read = from_toml(study)
    assert read.base["seed"] == 3
    assert read.search is not None and [x.path for x in read.search.space] == [
        "work.lr",
        "work.batch_size",
    ]
    assert [x.whole for x in read.search.space] == [False, True]
    assert read == StudySpec.model_validate_json(read.model_dump_json())
    study.write_text(study.read_text().replace("base.toml", "none.toml"))
    with pytest.raises(ConfigError, match=r"none.toml: there is no such file"):
        from_toml(study)


def test_the_budget_counts_what_a_verdict_needs(world: World):
    """Runs take 12; with steps up to 8 those that the search finds take 24."""
    search = {"bounds": {"steps": [2, 8]}, "trials": 9, "max_client_steps": 100}
    need = 12 * 5 + 100 + 2 * 3 * 12 + 3 * 24
    check_budget(spec(world, search=search, max_client_steps=need))
    with pytest.raises(ConfigError, match=f"needs {need} at least"):
        check_budget(spec(world, search=search, max_client_steps=need - 1))


def test_a_run_is_the_base_with_an_arm_s_overrides_and_a_seed(world: World):
    base = table(world)["base"]
    base["evaluation"] = base["evaluation"] | {"baselines": ["local"]}
    config = spec(world, base=base).config(("work.lr=0.05",), 7, "x")
    assert (config.work.lr, config.seed, config.evaluation.baselines) == (0.05, 7, ())


def test_values_and_places_are_each_other_s_inverse():
    space = space_of({"lr": (1e-3, 0.1), "steps": (1, 8), "work.batch_size": (2, 2)}, "search")
    values = placed(space, {"lr": 0.5, "steps": 1.0, "work.batch_size": 0.3})
    assert values == {"lr": pytest.approx(0.01), "steps": 8.0, "work.batch_size": 2.0}
    assert places(space, values)["lr"] == pytest.approx(0.5)
    assert within(space, values)
    assert not within(space, values | {"steps": 2.5})
    assert not within(space, values | {"lr": 0.2})
    assert not within(space, values | {"more": 1.0})
    assert overrides(space, values)[1:] == ("work.steps=8", "work.batch_size=2")
