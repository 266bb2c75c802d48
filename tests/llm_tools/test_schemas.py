"""What grammar decoders refuse is refused here first, by the name of the field."""

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from llm_tools import SchemaError, decodable


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Strict):
    low: float = Field(ge=0, le=1)


class Good(Strict):
    number: float = Field(gt=0, le=1, description="a number")
    whole: int = Field(ge=1, le=9)
    text: str = Field(min_length=1, max_length=80)
    fact: str = Field(pattern=r"^F[0-9]{1,3}$")
    kind: Literal["a", "b"]
    one: Literal["only"]
    rank: Literal[1, 8, 16]
    colour: Colour
    flag: bool
    facts: list[Annotated[str, Field(pattern=r"^F[0-9]{1,3}$")]] = Field(min_length=1, max_length=5)
    inner: Inner
    inners: list[Inner] = Field(max_length=3)


def test_what_every_server_takes():
    schema = decodable(Good)
    assert schema == Good.model_json_schema()
    assert set(schema["required"]) == set(Good.model_fields)


class Cat(Strict):
    kind: Literal["cat"]


class Dog(Strict):
    kind: Literal["dog"]


class Loose(BaseModel):
    x: int


REFUSED = {
    "union": (int | str, ...),
    "optional": (int | None, ...),
    "kinds": (Annotated[Cat | Dog, Field(discriminator="kind")], ...),
    "distinct": (set[int], ...),
    "multiple": (int, Field(multiple_of=5)),
    "pair": (tuple[int, str], ...),
    "free_keys": (dict[str, int], ...),
    "any": (Any, ...),
    "day": (date, ...),
    "exact": (Decimal, ...),
    "pattern_and_length": (str, Field(pattern="^a+$", max_length=5)),
    "default": (int, 3),
    "in_list": (list[int | None], ...),
    "list_of_any": (list, ...),
    "loose": (Loose, ...),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_servers_refuse_is_named(name):
    schema = create_model("Wrong", __base__=Strict, good=(int, ...), **{name: REFUSED[name]})
    with pytest.raises(SchemaError) as error:
        decodable(schema)
    place = "Loose" if name == "loose" else f"Wrong.{name}"
    if name == "multiple":
        assert "multipleOf" in str(error.value)
    assert str(error.value).startswith(f"schema {place}")
    assert "\n" not in str(error.value)


def test_a_nested_class_is_named():
    inner = create_model("Inside", __base__=Strict, bad=(int | None, ...))
    outer = create_model("Outside", __base__=Strict, inner=(inner, ...))
    with pytest.raises(SchemaError, match=r"schema Inside\.bad"):
        decodable(outer)


def test_extra_keys_have_to_be_forbidden():
    with pytest.raises(SchemaError, match=r'schema Loose: .*extra="forbid"'):
        decodable(Loose)
