"""A form as data: what a JSON schema says of every key becomes a control, values become a table.

Knows JSON schemas as pydantic writes them; knows no key by name and nothing of drawing.  A control
carries what is declared once beside the key: type, bounds, choices, default and meaning.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal[
    "switch",
    "integer",
    "number",
    "choice",
    "several",
    "words",
    "text",
    "range",
    "pairs",
    "ranges",
]
Table = dict[str, Any]
Schema = Mapping[str, Any]
LARGEST = 2**53 - 1  # a browser's numbers are whole up to here


@dataclass(frozen=True)
class Control:
    """One key of a table, as a form shows it.

    Attributes:
        key: dotted.
        kind: what its values are; a ``range`` is a lowest and a highest number, ``pairs`` are names
            with a number or a text each, ``ranges`` names with a range each.
        default: value when it is left out; None: there is none.
        meaning: in a few words.
        least, most: bounds of a number.
        above, below: whether a number has to be more than ``least``, less than ``most``.
        options: what it may be, where that is a choice.
        optional: whether it may be left out although it has no default.
        word: a word that may stand in place of a number or a list.
        template: whether one text with a field in braces may stand in place of a list.
        when: key and those of its values with which this one is of use; None: always.
        of: what the values of pairs are.
        nothing: what it means to leave it out, in a few words.
    """

    key: str
    kind: Kind
    default: Any = None
    meaning: str = ""
    least: float | None = None
    most: float | None = None
    above: bool = False
    below: bool = False
    options: tuple[str, ...] = ()
    optional: bool = False
    word: str = ""
    template: bool = False
    when: tuple[str, frozenset[str]] | None = None
    of: Literal["number", "text"] = "number"
    nothing: str = ""

    @property
    def table(self) -> str:
        """The table that it is a key of; empty: of the outermost one."""
        return self.key.rpartition(".")[0]

    @property
    def bounds(self) -> str:
        """What a number may be, for people."""
        parts = []
        if self.least is not None:
            parts.append(f"{'above' if self.above else 'at least'} {number_text(self.least)}")
        if self.most is not None and self.most < LARGEST:
            parts.append(f"{'below' if self.below else 'at most'} {number_text(self.most)}")
        return ", ".join(parts)


def number_text(number: float) -> str:
    """Write a number for people: whole ones whole, with commas."""
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e12 else f"{number:g}"


def controls(
    schema: Schema, prefix: str = "", elsewhere: Collection[str] = (), defs: Schema | None = None
) -> list[Control]:
    """Return a control for every key of a schema, tables in it included.

    Args:
        schema: of an object, with ``$defs`` where it refers to others.
        prefix: before the keys, such as ``"pilot."``.
        elsewhere: keys, with the prefix, that are shown otherwise.
        defs: of the schema that this one is a part of.
    """
    shared: Schema = schema.get("$defs", {}) if defs is None else defs
    found: list[Control] = []
    for name, described in schema.get("properties", {}).items():
        if (key := prefix + name) not in elsewhere:
            found += of_property(key, described, elsewhere, shared)
    return found


def of_property(
    key: str, described: Schema, elsewhere: Collection[str], defs: Schema
) -> Iterator[Control]:
    """Yield the controls of one property: one, or those of the table that it is."""
    variants = [resolved(x, defs) for x in described.get("oneOf", ())]
    if variants:
        yield from of_variants(key, variants, elsewhere, defs)
        return
    whole = {**described, **resolved(described, defs)}
    parts = [resolved(x, defs) for x in described.get("anyOf", ())]
    inner = next((x for x in (whole, *parts) if "properties" in x), None)
    if inner is not None:
        yield from controls(inner, f"{key}.", elsewhere, defs)
    else:
        yield one(key, whole, parts or [whole])


def of_variants(
    key: str, variants: list[Schema], elsewhere: Collection[str], defs: Schema
) -> Iterator[Control]:
    """Yield the controls of a table of several kinds: which kind, then the keys of each."""
    kinds = {x["properties"]["kind"]["const"]: x for x in variants}
    first = variants[0]["properties"]["kind"]
    meaning = first.get("description", "")
    yield Control(f"{key}.kind", "choice", next(iter(kinds)), meaning, options=tuple(kinds))
    for kind, variant in kinds.items():
        for control in controls(variant, f"{key}.", {*elsewhere, f"{key}.kind"}, defs):
            yield replace(control, when=(f"{key}.kind", frozenset({kind})))


def resolved(schema: Schema, defs: Schema) -> Schema:
    """Follow a reference."""
    return defs[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def one(key: str, whole: Schema, parts: list[Schema]) -> Control:
    """Return the control of a property that is no table.

    Args:
        key: its name.
        whole: the property, with default and description.
        parts: what it may be: itself, or the alternatives.
    """
    kinds = {kind_of(part): part for part in parts if part.get("type") != "null"}
    words = [part["const"] for part in parts if "const" in part]
    main = main_kind(kinds)
    part = kinds.get(main, whole)
    least, most = part.get("minimum"), part.get("maximum")
    under, over = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    inner = part.get("additionalProperties", {})
    return Control(
        key,
        main,
        default=whole.get("default"),
        meaning=whole.get("description", ""),
        least=least if under is None else under,
        most=most if over is None else over,
        above=under is not None,
        below=over is not None,
        options=tuple(map(str, choices(part))),
        optional=any(x.get("type") == "null" for x in parts),
        word=str(words[0]) if words and main != "choice" else "",
        template=main == "words" and "text" in kinds,
        of="text" if isinstance(inner, Mapping) and inner.get("type") == "string" else "number",
    )


ORDER: tuple[Kind, ...] = (
    "ranges", "range", "pairs", "several", "words", "number", "integer", "switch", "choice", "text"
)  # fmt: skip
"""Where a key may be several things, the one that a control is made for."""
PLAIN: dict[str, Kind] = {"boolean": "switch", "integer": "integer", "number": "number"}


def main_kind(kinds: Collection[str]) -> Kind:
    """Say which of several kinds a control is made for."""
    for kind in ORDER:
        if kind in kinds:
            return kind
    return "text"


def kind_of(part: Schema) -> Kind:
    """Say what kind of value a part of a schema describes."""
    if choices(part) or "const" in part:
        return "several" if part.get("type") == "array" else "choice"
    if part.get("type") == "object":
        inner = part.get("additionalProperties")
        return "ranges" if isinstance(inner, Mapping) and "prefixItems" in inner else "pairs"
    if part.get("type") == "array":
        return "range" if "prefixItems" in part else "words"
    return PLAIN.get(str(part.get("type")), "text")


def choices(part: Schema) -> list[Any]:
    """Return what a value, or an item of a list, is chosen from; numbers too, as they are."""
    items = part.get("items", {}) if part.get("type") == "array" else part
    return list(items.get("enum", ()))


def chosen(control: Control, value: object) -> object:
    """Turn what a widget holds into what a table says; None: the key is left out."""
    if value is None:
        return control.word or None
    if control.kind == "words" and isinstance(value, list | tuple):
        return listed(control, [str(x) for x in value])
    if control.kind == "text":
        return None if control.optional and value == "" else value
    if control.kind == "choice" and isinstance(value, str) and control.options:
        return int(value) if value.isdecimal() else value
    if control.kind in ("pairs", "ranges") and not value:
        return None if not control.default else value
    return value


def listed(control: Control, words: list[str]) -> object:
    """Return a list, or what may stand in its place."""
    if len(words) == 1 and words[0] == control.word:
        return control.word
    if len(words) == 1 and control.template and words[0].startswith("{"):
        return words[0]
    return words


def table_of(
    form: Iterable[Control], values: Mapping[str, object], keep: Collection[str] = ()
) -> Table:
    """Return the table that a form's values make: what differs from the defaults, and no more.

    Args:
        form: its controls.
        values: dotted key -> value; what is missing is as by default.
        keep: keys that are written although they are as by default.
    """
    found: Table = {}
    form = list(form)
    there = {c.key: chosen(c, values.get(c.key, c.default)) for c in form}
    for control in form:
        value = there[control.key]
        if value is None or not of_use(control, there):
            continue
        if control.key in keep or not same(value, control.default):
            put(found, control.key, value)
    return found


def of_use(control: Control, values: Mapping[str, object]) -> bool:
    """Tell whether a key is of any use with the values of the others."""
    return control.when is None or values.get(control.when[0]) in control.when[1]


def same(value: object, default: object) -> bool:
    """Tell whether a value is the default: lists and tuples alike, true and 1 not."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def put(table: Table, key: str, value: object) -> None:
    """Write a value under a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value


def got(table: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Read what stands under a dotted key."""
    at: Any = table
    for part in key.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return default
        at = at[part]
    return at


def held(control: Control, table: Mapping[str, Any]) -> Any:
    """Return what a widget is to show of a table: of lists a list, None where nothing is set."""
    value = got(table, control.key, control.default)
    if value is None or (value == control.word and control.kind != "words"):
        return None
    if control.kind in ("words", "several"):
        return [value] if isinstance(value, str) else [str(x) for x in value]
    if control.kind == "number":
        return float(value)
    if control.kind == "choice":
        return str(value)
    return value
