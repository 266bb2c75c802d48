"""Whatever is typed into the form is a configuration or one line; all writings say the same."""

import ast
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from agents.spec import PilotSpec
from federation.config import Config
from federation.errors import ConfigError
from ui.template import template
from ui.web.draft import (
    PARTS,
    SECTIONS,
    configuration,
    draft_of_text,
    first_draft,
    judged,
    section_named,
    section_of,
    settings_of,
    written,
)
from ui.web.forms import Control, held
from ui.web.written import python_text, toml_text

FORM = {c.key: c for c in configuration()}
ODD = some.sampled_from(
    ["", "{", "{a}", "{a}{", "organisations", 'x"\\', "\x7f", "a\nb", "😀", "#"]
)
LETTERS = "ab{}[]\"\\'\n\t\x00\x1b\x7f\u2028#=.é😀 "
TEXTS = ODD | some.text(LETTERS, max_size=12)
NUMBERS = some.floats(allow_nan=False, allow_infinity=False)
SPANS = some.lists(NUMBERS | some.integers(-3, 30), min_size=2, max_size=2)


def typed(control: Control) -> some.SearchStrategy[object]:
    """Return anything that a browser may send for a control, within its bounds or not."""
    options = some.sampled_from(control.options) if control.options else TEXTS
    return {
        "switch": some.booleans(),
        "integer": some.none() | some.integers(-2, 40) | some.integers(-(2**53), 2**53),
        "number": some.none() | some.floats(0, 1) | NUMBERS,
        "choice": some.none() | options,
        "several": some.lists(options, max_size=3, unique=True),
        "words": some.lists(TEXTS | options, max_size=3),
        "text": some.none() | TEXTS | options,
        "ranges": some.dictionaries(options | TEXTS, SPANS, max_size=2),
        "pairs": some.dictionaries(TEXTS, NUMBERS, max_size=2),
        "range": SPANS,
    }[control.kind]


@some.composite
def forms(draw) -> dict[str, object]:
    """Return values of a form of which some were changed."""
    names = draw(some.lists(some.sampled_from(sorted(FORM)), max_size=9, unique=True))
    return {name: draw(typed(FORM[name])) for name in names}


@settings(max_examples=200, deadline=None)
@given(values=forms(), pilot=some.booleans(), parts=some.sets(some.sampled_from(sorted(PARTS))))
def test_any_input_is_a_configuration_or_one_line(values, pilot, parts):
    table = written(values, pilot=pilot, parts=parts)
    try:
        config = judged(table)
    except ConfigError as error:
        assert str(error) and "\n" not in str(error)
        assert section_named(str(error)) in SECTIONS
        return
    assert Config.from_table(tomllib.loads(toml_text(table))) == config
    code = python_text(table, Path("runs/x"))
    said = next(x for x in ast.parse(code).body if isinstance(x, ast.Assign))
    assert isinstance(said.value, ast.Call)
    assert Config.from_table(ast.literal_eval(said.value.args[0])) == config


def test_a_draft_goes_through_the_form_unchanged():
    draft = first_draft()
    values = {key: held(control, draft.table) for key, control in FORM.items()}
    again = Config.from_table(written(values, pilot=True, parts=PARTS))
    before = Config.from_table(draft.table)
    assert PilotSpec.of(again) == PilotSpec.of(before)  # a default may be said or not
    assert again.model_copy(update={"pilot": before.pilot}) == before


def test_the_commented_file_of_init_can_be_loaded():
    assert judged(draft_of_text(template(), "init").table).rounds == 20


def test_built_in_data_says_who_holds_it():
    table = draft_of_text("rounds = 3", "a text").table
    assert table["data"]["clients"]["by"] == "key"


def test_keys_of_another_partition_are_not_written():
    values = {"data.clients.by": "iid", "data.clients.alpha": 0.5, "data.clients.count": 7}
    assert written(values, pilot=False)["data"]["clients"] == {"by": "iid", "count": 7}


@pytest.mark.parametrize(
    ("values", "words", "section"),
    [
        ({"work.lr": 0.0}, "work.lr", "training"),
        ({"upload.noise": 1.0}, "noise needs clip", "clients"),
        ({"data.text": "{a}", "data.prompt": "{b}"}, "data: give prompt", "data"),
        ({"data.clients.by": "dirichlet"}, "needs label", "data"),
        ({"adapter.rank": 0}, "adapter.rank", "model"),
        ({"evaluation.metrics": ["choice"]}, "data.choices", "measure"),
        ({"pilot.trust": 1.0}, "pilot: trust", "pilot"),
        ({"pilot.bounds": {"lr": [1.0, 2.0]}}, "pilot.bounds.lr", "pilot"),
        ({"rounds": 0}, "rounds", "training"),
        (
            {"data.clients.by": "iid", "data.clients.count": 4, "cohort.size": 5},
            "cohort.size is 5 but only 4",
            "clients",
        ),
        (
            {
                "data.clients.by": "key",
                "data.clients.key": "client",
                "data.count": 3,
                "data.source": "organisations",
                "cohort.size": 4,
            },
            "cohort.size is 4 but only 3",
            "clients",
        ),
    ],
)
def test_an_error_is_one_line_at_its_section(values, words, section):
    with pytest.raises(ConfigError) as caught:
        judged(written(values, pilot=True))
    assert words in str(caught.value)
    assert section_named(str(caught.value)) == section


def test_a_cohort_of_more_than_were_counted_is_refused():
    table = written({"data.clients.by": "key", "data.clients.key": "k"}, pilot=False)
    judged(table)  # how many hold that key is not known yet
    with pytest.raises(ConfigError, match=r"cohort.size is \d+ but only 1 client"):
        judged(table, 1)


@pytest.mark.parametrize("part", list(PARTS))
def test_a_table_of_the_pilot_is_on_as_by_default_or_not_there(part):
    name = part.rpartition(".")[2]
    assert written({}, pilot=True, parts=[part])["pilot"][name] == {}
    assert name not in written({}, pilot=True)["pilot"]
    assert "pilot" not in written({}, pilot=False, parts=[part])


@pytest.mark.parametrize("text", ["rounds = ", "rounds = 0", "nonsense = 1", "[pilot]\nx = 1"])
def test_a_text_that_is_no_configuration_is_refused(text):
    with pytest.raises(ConfigError, match=r"\Athe text|\Apilot"):
        draft_of_text(text, "the text")


def test_every_key_has_its_place_in_the_form():
    assert {section_of(c) for c in FORM.values()} == set(SECTIONS)
    assert section_of(Control("new_table.key", "text")) == "training"


def test_settings_of_an_algorithm_are_controls_too():
    schema = {"properties": {"mu": {"type": "number", "minimum": 0, "default": 0.01}}}
    (mu,) = settings_of(schema)
    assert (mu.key, mu.kind, mu.default, mu.least) == ("algorithm.mu", "number", 0.01, 0)
    assert written({"algorithm.name": "fedprox", "algorithm.mu": 1.0}, [mu], pilot=False)[
        "algorithm"
    ] == {"name": "fedprox", "mu": 1.0}


def test_settings_without_a_control_are_kept():
    table = written({"algorithm.name": "fedprox"}, pilot=False, kept={"mu": 0.5})
    assert table["algorithm"] == {"name": "fedprox", "mu": 0.5}


def test_half_a_surrogate_pair_is_refused_in_a_line():
    with pytest.raises(ConfigError, match="surrogate"):
        toml_text({"data": {"prompt": "\ud800"}})
