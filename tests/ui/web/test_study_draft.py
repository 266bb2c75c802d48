"""A form of a study and its table: nothing is lost, and what is wrong is said where it is."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.study.budget import at_least, at_most
from agents.study.spec import from_table
from agents.study.statistics import FEWEST
from federation.config import Config
from federation.data.dataset import with_defaults
from federation.errors import ConfigError
from federation.runs.run import Run
from tests.ui.web.made_uicompare import STUDY
from tests.ui.web.made_uinew import recorded
from ui.web import study_draft
from ui.web.forms import Table, got, held
from ui.web.study_arms import apart, changeable, override, slug, with_changes
from ui.web.written import toml_text

PILOT = {"policy": "heuristic", "bounds": {"lr": [0.001, 0.01]}, "synthetic": {}}


def form_of(table: Table) -> Table:
    """Return the table that a form makes which is filled with another and left as it is."""
    parts = [name for name in ("search", "agent") if name in table]
    values = {c.key: held(c, table) for c in study_draft.questions()}
    return study_draft.written(
        values, arms=table["arms"], control=table["control"], seeds=table["seeds"],
        base=table["base"], parts=parts,
    )  # fmt: skip


def spelled(config: Config) -> Config:
    """Say who holds the rows, which the built-in data leaves open."""
    return config.model_copy(update={"data": with_defaults(config.data)})


SEARCH = {"trials": 4, "bounds": {"lr": [1e-3, 0.1], "adapter.rank": [8, 64]}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"alpha": 0.1, "noise_pairs": 3, "seeds": [7, 3, 11, 12]},
        {"search": {**SEARCH, "max_client_steps": 200, "method": "halving"}},
        {"agent": {"model": "scripted:x", "arms": 2, "bounds": {"steps": [2, 9]}}},
    ],
)
def test_a_study_that_is_loaded_and_left_as_it_is_is_the_same_study(more: Table) -> None:
    spec = from_table(tomllib.loads(STUDY) | {"max_client_steps": 9000} | more, "it")
    draft = study_draft.draft_of_study(spec, "it")
    made = study_draft.budgeted(form_of(draft.table))
    again = study_draft.judged(tomllib.loads(toml_text(made)))
    assert again.model_copy(update={"base": {}}) == spec.model_copy(update={"base": {}})
    for arm in spec.arms.values():
        assert spelled(again.config(arm, 3, "x")) == spelled(spec.config(arm, 3, "x"))


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"algorithm": {"name": "fedprox", "mu": 0.5}, "upload": {"bits": 8}, "pilot": PILOT},
        {"adapter": {"targets": ["q_proj"], "rank": 16}, "data": {"clients": {"by": "iid"}}},
        {"adapter": {"kind": "full"}, "engine": {"chunk": 2}, "schedule": {"kind": "cosine"}},
    ],
)
def test_a_base_in_fewer_lines_says_the_same(table: Table) -> None:
    whole = Config.from_table(table).model_dump(mode="json", exclude_none=True)
    whole = {**whole, "pilot": table.get("pilot", {})}
    short = study_draft.shortened(study_draft.explicit(whole, "it"))
    assert study_draft.meaning(short) == study_draft.meaning(whole)
    assert len(toml_text(short)) < len(toml_text(whole)) / 1.5


BASES: list[Table] = [
    {"rounds": 3, "work": {"lr": 0.01}, "algorithm": {"name": "fedprox", "mu": 0.1}},
    {"rounds": 3, "work": {"lr": 0.02, "max_grad_norm": 1.0}, "algorithm": {"name": "fedavg"}},
    {"rounds": 5, "upload": {"clip": 1.0, "bits": 8}, "pilot": PILOT},
    {"rounds": 5, "pilot": {"policy": "null"}, "adapter": {"targets": ["q_proj"]}},
]


@pytest.mark.parametrize("was", BASES)
@pytest.mark.parametrize("wanted", BASES)
def test_the_changes_from_one_base_to_another_make_it_the_other(was: Table, wanted: Table) -> None:
    found = apart(was, wanted)
    assert with_changes(was, found) == {**{k: {} for k in was if k != "rounds"}, **wanted}
    assert (found == []) == (was is wanted)
    assert Config.from_table(with_changes(was, found)) == Config.from_table(wanted)


def test_what_is_measured_and_how_the_machine_is_used_is_no_change() -> None:
    assert (
        apart({"seed": 1, "data": {"count": 3}, "engine": {}}, {"evaluation": {"every": 2}}) == []
    )
    assert {"seed", "data.count", "evaluation.every", "engine.chunk"}.isdisjoint(changeable())
    assert {"work.lr", "rounds", "pilot.bounds", "upload.bits"} <= changeable().keys()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("work.lr", 0.02, "work.lr=0.02"),
        ("upload.bits", "8", "upload.bits=8"),
        ("algorithm.name", "fedprox", 'algorithm.name="fedprox"'),
        ("adapter.targets", ["all-linear"], 'adapter.targets="all-linear"'),
        ("adapter.targets", ["a", "b"], 'adapter.targets=["a", "b"]'),
        ("pilot.bounds", {"lr": [0.1, 1.0]}, "pilot.bounds={lr = [0.1, 1.0]}"),
        ("work.keep_optimizer", True, "work.keep_optimizer=true"),
        ("upload.clip", None, None),
    ],
)
def test_what_a_widget_holds_is_an_override(key: str, value: object, said: str | None) -> None:
    control = changeable()[key]
    assert override(control, value) == said
    if said is not None:
        assert held(control, with_changes({}, [said])) in (
            value,
            tuple(value) if isinstance(value, list) else value,
        )


def test_a_budget_that_is_left_open_is_what_can_be_spent() -> None:
    table = tomllib.loads(STUDY) | {"search": {"trials": 4, "bounds": {"steps": [2, 20]}}}
    del table["max_client_steps"]
    found = study_draft.budgeted(table)
    assert "max_client_steps" not in table and "max_client_steps" not in table["search"]
    assert found["search"]["max_client_steps"] == 4 * 2 * 3 * 20
    spec = study_draft.judged(found)
    runs = (3 + 2) + 3  # of the control, the floor's included, and of the arm
    assert found["max_client_steps"] == at_most(spec) == 480 + 60 * runs + 3 * 120
    least = sum(at_least(spec).values())
    study_draft.judged(found | {"max_client_steps": least})
    with pytest.raises(ConfigError, match=f"needs {least} at least"):
        study_draft.judged(found | {"max_client_steps": least - 1})
    cost = study_draft.cost(spec, [])
    assert (cost.runs, cost.least, cost.most) == (8 + 3 + 4, least, at_most(spec))
    assert cost.seconds is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"question": ""}, "question"),
        ({"metric": {"name": "exact_match", "direction": "higher"}}, "base"),
        ({"metric": {"name": "lossy", "direction": "lower"}}, "question"),
        ({"seeds": [0, 1]}, "pairs"),
        ({"noise_pairs": 9}, "pairs"),
        ({"max_client_steps": 10}, "pairs"),
        ({"alpha": 0.9}, "pairs"),
        ({"arms": {"plain": []}}, "arms"),
        ({"arms": {"plain": [], "hot": ["work.lr=99"]}}, "arms.hot"),
        ({"arms": {"plain": [], "hot": ["data.count=3"]}}, "arms.hot"),
        ({"arms": {"plain": [], "seeds": ["work.lr=99"]}}, "arms.seeds"),
        ({"arms": {"plain": ["work.lr=99"], "hot": ["work.lr=1"]}}, "arms.plain"),
        ({"base": {"data": {"split": {"test": 0.0}}}}, "base"),
        ({"base": {"rounds": 0}}, "base"),
        ({"search": {"trials": 2, "bounds": {"lr": [2, 1]}, "max_client_steps": 9}}, "parts"),
        ({"search": {"trials": 2, "max_client_steps": 9}}, "parts"),
        ({"agent": {"model": "scripted:x"}}, "parts"),
    ],
)
def test_what_is_wrong_is_said_beside_what_it_is_about(change: Table, place: str) -> None:
    table = tomllib.loads(STUDY) | change
    with pytest.raises(ConfigError) as wrong:
        study_draft.judged(table)
    error = str(wrong.value)
    assert "\n" not in error and not error.startswith("the study")
    assert study_draft.place_of(error, table["arms"]) == place


def test_what_a_checker_says_of_an_arm_is_said_beside_it() -> None:
    arms = {"plain": [], "hot": ["algorithm.name='krum'"]}
    assert study_draft.place_of("hot: algorithm.name = 'krum' needs 5 reports", arms) == "arms.hot"
    assert study_draft.place_of("plain: there is no model x", arms) == "base"


def test_a_text_is_a_study_or_what_one_is_based_on() -> None:
    draft = study_draft.draft_of_text(STUDY, "the text")
    assert draft.table["question"] == "Does it help?" and draft.table["base"]["rounds"] == 2
    draft = study_draft.draft_of_text("rounds = 4\n[work]\nlr = 0.1", "the text")
    assert draft.table["base"]["rounds"] == 4
    assert draft.table["arms"] == {"plain": [], "double-lr": ["work.lr=0.2"]}
    study_draft.judged(study_draft.budgeted(form_of(draft.table)))
    for text, words in (
        ("rounds = 0", "rounds"),
        ("question = 'what?'", "is missing"),
        ("a = ", "no TOML"),
        ('base = "x.toml"\n' + STUDY.split("[base]")[0], "file beside"),
        ("x" * (study_draft.MOST_TEXT + 1), "is it a study"),
    ):
        with pytest.raises(ConfigError, match=words):
            study_draft.draft_of_text(text, "the text")


def test_runs_that_are_compared_become_arms(tmp_path: Path) -> None:
    tables = ({}, {"work": {"lr": 0.02}}, {"algorithm": {"name": "fedprox", "mu": 0.5}, "seed": 9})
    names = ("Run A", "Run B", "run-b")
    runs = [
        Run.open(recorded(tmp_path / name, Config.from_table({"rounds": 3, **table})))
        for name, table in zip(names, tables, strict=True)
    ]
    draft = study_draft.draft_of_runs(runs)
    arms = draft.table["arms"]
    assert list(arms) == ["plain", "run-b", "run-b-2"]
    assert arms["plain"] == [] and arms["run-b"] == ["work.lr=0.02"]
    assert set(arms["run-b-2"]) == {'algorithm.name="fedprox"', "algorithm.mu=0.5"}
    spec = study_draft.judged(study_draft.budgeted(form_of(draft.table)))
    assert "Run B or run-b better than Run A" in spec.question
    wanted = Config.from_table(runs[2].config)
    assert spec.config(spec.arms["run-b-2"], 9, "x").algorithm == wanted.algorithm


def test_names_of_arms_are_names_of_folders() -> None:
    assert slug("Größer: x/../y") == "gr-er-x-y"
    assert slug("") == slug("../") == "arm"
    assert len(slug("x" * 90)) == 40 and slug("x" * 90, [slug("x" * 90)])[-2:] == "-2"
    taken = ["arm"]
    for _ in range(4):
        taken.append(slug("arm", taken))
    assert taken == ["arm", "arm-2", "arm-3", "arm-4", "arm-5"]


def test_seeds_that_are_known_stay() -> None:
    assert study_draft.seeds(3, [4, 2, 9, 7]) == [4, 2, 9]
    assert study_draft.seeds(5, [4, 2]) == [4, 2, 5, 6, 7]
    assert study_draft.PAIRS["minItems"] == FEWEST


def test_a_base_keeps_what_is_not_asked_for() -> None:
    base: Table = {"rounds": 3, "data": {"count": 3, "seed": 1}, "pilot": {"policy": "null"}}
    values = {"rounds": 2, "data.seed": None, "data.split.test": 0.25, "data.split.validation": 0.1}
    made = study_draft.based(base, values, piloted=False)
    assert made == {"rounds": 2, "data": {"count": 3, "split": {"test": 0.25}}}
    assert got(base, "data.seed") == 1  # what it was filled with stays
    assert "pilot" in study_draft.based(base, values, piloted=True)


KEYS = st.sampled_from(sorted(changeable())) | st.text(max_size=12)
VALUES = st.sampled_from(
    ["1", "0", "-1e9", "nan", "true", "[]", "{}", '"x"', "[1, 2]", "{lr=[1,2]}"]
)
OVERRIDES = st.builds("{}={}".format, KEYS, VALUES | st.text(max_size=12)) | st.text(max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    arms=st.dictionaries(st.text(max_size=50).map(slug), st.lists(OVERRIDES, max_size=3)),
    values=st.fixed_dictionaries(
        {"question": st.text(min_size=1, max_size=510)},
        optional={
            "metric.name": st.sampled_from(["nll", "rouge_l", "", "lossy"]),
            "noise_pairs": st.integers(-1, 40),
            "max_client_steps": st.none() | st.integers(-1, 2**60),
            "alpha": st.none() | st.floats(),
            "search.trials": st.none() | st.integers(-1, 20),
            "search.bounds": st.dictionaries(KEYS, st.lists(st.floats(), min_size=2, max_size=2)),
            "agent.model": st.text(max_size=20),
            "agent.bounds": st.dictionaries(KEYS, st.lists(st.integers(), min_size=2, max_size=2)),
        },
    ),
    parts=st.sets(st.sampled_from(["search", "agent"])),
    count=st.integers(0, 40),
)  # fmt: skip
def test_whatever_is_filled_in_is_a_study_or_one_line(
    arms: dict[str, list[str]], values: dict[str, object], parts: set[str], count: int
) -> None:
    base: Table = {"rounds": 2, "cohort": {"size": 3}}
    table = study_draft.written(
        values, arms={"plain": [], **arms}, control="plain", base=base, parts=sorted(parts),
        seeds=study_draft.seeds(count, [0]),
    )  # fmt: skip
    whole = study_draft.budgeted(table)
    for own in arms.values():
        with_changes(base, own)
    try:
        spec = study_draft.judged(whole)
        assert study_draft.judged(tomllib.loads(toml_text(whole))) == spec
    except ConfigError as error:
        assert "\n" not in str(error)
        place = study_draft.place_of(str(error), whole["arms"])
        assert place in {*study_draft.PLACES.values(), "base"} or place[5:] in whole["arms"]
