"""A schema becomes controls, and their values a table: nothing is lost, nothing is made up."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from federation.config import Config
from federation.specs import Names as Words
from federation.specs import Spec
from ui.web.forms import Control, chosen, controls, held, number_text, of_use, table_of


class Inner(Spec):
    size: int = Field(default=3, ge=1, le=9, description="how many")


class Left(Spec):
    kind: Literal["left"] = Field(default="left", description="which way")
    far: float = Field(default=1.0, gt=0, lt=2)


class Right(Spec):
    kind: Literal["right"] = "right"


class Toy(Spec):
    on: bool = False
    limit: float | None = Field(default=None, gt=0)
    chunk: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    targets: Literal["all"] | Words = ("a", "b")
    answers: str | Words = ()
    span: tuple[int, int] = (1, 5)
    bounds: dict[str, tuple[float, float]] = Field(default={})
    shares: dict[str, float] = Field(default={})
    inner: Inner = Field(default_factory=lambda: Inner.model_validate({}))
    way: Annotated[Left | Right, Field(discriminator="kind")] = Field(default_factory=Left)


TOY = {c.key: c for c in controls(Toy.model_json_schema())}


@pytest.mark.parametrize(
    ("key", "kind", "word", "optional"),
    [
        ("on", "switch", "", False),
        ("limit", "number", "", True),
        ("chunk", "integer", "auto", False),
        ("targets", "words", "all", False),
        ("answers", "words", "", False),
        ("span", "range", "", False),
        ("bounds", "ranges", "", False),
        ("shares", "pairs", "", False),
        ("inner.size", "integer", "", False),
        ("way.kind", "choice", "", False),
        ("way.far", "number", "", False),
    ],
)
def test_every_type_has_its_control(key, kind, word, optional):
    control = TOY[key]
    assert (control.kind, control.word, control.optional) == (kind, word, optional)


def test_bounds_and_meaning_are_those_of_the_field():
    assert TOY["inner.size"].bounds == "at least 1, at most 9"
    assert TOY["inner.size"].meaning == "how many"
    assert TOY["way.far"].bounds == "above 0, below 2"
    assert TOY["way.kind"].options == ("left", "right")


def test_what_belongs_to_another_variant_is_left_out():
    values = {"way.kind": "right", "way.far": 1.5}
    assert table_of(TOY.values(), values) == {"way": {"kind": "right"}}
    assert not of_use(TOY["way.far"], values)


def test_only_what_differs_is_written_and_what_is_to_be_kept():
    assert table_of(TOY.values(), {}) == {}
    assert table_of(TOY.values(), {"inner.size": 4}) == {"inner": {"size": 4}}
    assert table_of(TOY.values(), {}, keep=["inner.size"]) == {"inner": {"size": 3}}


@pytest.mark.parametrize(
    ("key", "widget", "written"),
    [
        ("chunk", None, "auto"),
        ("targets", ["all"], "all"),
        ("targets", ["x"], ["x"]),
        ("answers", ["{options}"], "{options}"),
        ("answers", ["yes", "no"], ["yes", "no"]),
        ("limit", None, None),
        ("bounds", {}, None),
    ],
)
def test_widgets_hold_what_tables_say_otherwise(key, widget, written):
    assert chosen(TOY[key], widget) == written


@pytest.mark.parametrize("value", ["all", ["x", "y"]])
def test_what_is_held_is_written_again(value):
    assert chosen(TOY["targets"], held(TOY["targets"], {"targets": value})) == value


def test_every_key_of_the_configuration_has_one_control():
    form = controls(Config.model_json_schema(), elsewhere={"pilot"})
    keys = [c.key for c in form]
    assert len(keys) == len(set(keys)) > 80
    assert all(c.meaning for c in form)
    config = Config.model_validate({})
    for control in form:
        if control.when in (None, ("adapter.kind", frozenset({"lora"}))):
            value = config
            for part in control.key.split("."):
                value = getattr(value, part)
            plain = list(value) if isinstance(value, tuple) else value
            assert plain == control.default, control.key


def test_numbers_for_people():
    assert [number_text(x) for x in (1_000_000, 0.001, 5.0)] == ["1,000,000", "0.001", "5"]
    assert Control("x", "integer", most=2.0**53).bounds == ""
