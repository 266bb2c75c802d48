"""Schemas that every server with grammar-constrained decoding accepts."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from llm_tools.errors import SchemaError

REFUSED = {
    "uniqueItems": "no server enforces distinct items",
    "multipleOf": "grammars cannot count",
    "anyOf": "a union; give the absent value a value of its own",
    "oneOf": "a union; give each kind a schema of its own",
    "allOf": "a conjunction of schemas",
    "not": "a negation",
    "prefixItems": "a tuple with a schema per place; use a list or named fields",
    "contains": "a condition on some items",
    "patternProperties": "free keys; use a list of named fields",
    "propertyNames": "free keys; use a list of named fields",
    "format": "formats differ between servers; use a pattern",
}
LENGTHS = {"minLength", "maxLength"}


@lru_cache(maxsize=64)
def decodable(schema: type[BaseModel]) -> dict[str, Any]:
    """Check that a schema can be enforced while a model writes, and return it as JSON Schema.

    What is refused is what vLLM's grammars (xgrammar) or the strict mode of the OpenAI protocol
    refuse: unions (so optional fields too), uniqueItems, multipleOf, formats, free keys, a pattern
    together with a length, fields with a default, and extra keys.

    Args:
        schema: a pydantic class with ``extra="forbid"``, every field required.

    Returns:
        Its JSON Schema; not to be changed.

    Raises:
        SchemaError: names the first class and field that cannot be enforced.
    """
    whole = schema.model_json_schema()
    for name, part in [(schema.__name__, whole), *whole.get("$defs", {}).items()]:
        for place, why in _faults(name, part):
            raise SchemaError(f"schema {place}: {why}; servers refuse it, declare it without")
    return whole


def _faults(place: str, part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for keyword in REFUSED.keys() & part.keys():
        yield place, f"{keyword} ({REFUSED[keyword]})"
    if "pattern" in part and part.keys() & LENGTHS:
        yield place, "a pattern together with a length (say the length in the pattern)"
    if not part.keys() & {"type", "$ref", "enum", "const"}:
        yield place, "no type (anything would be allowed)"
    if part.get("type") == "object":
        yield from _faults_of_object(place, part)
    if part.get("type") == "array":
        yield from _faults(f"{place}[]", part.get("items", {}))


def _faults_of_object(place: str, part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if part.get("additionalProperties") is not False:
        yield place, 'free keys (set extra="forbid" in its model_config, or use named fields)'
    required = part.get("required", ())
    for name, inner in part.get("properties", {}).items():
        yield from _faults(f"{place}.{name}", inner)
        if name not in required:
            yield f"{place}.{name}", "a default (every field has to be written)"
