"""Colours and shapes of charts, from the one visual language; sizes that all charts share."""

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from ui.web.language import Look

HEIGHT = 280


def colours(looks: Mapping[str, Look], present: Iterable[str]) -> alt.Scale:
    """Map those that occur to their colours, in the language's order."""
    names = [name for name in looks if name in set(present)]
    return alt.Scale(domain=[looks[n].word for n in names], range=[looks[n].hue for n in names])


def shapes(looks: Mapping[str, Look], present: Iterable[str]) -> alt.Scale:
    """Map those that occur to their shapes, in the language's order."""
    names = [name for name in looks if name in set(present)]
    return alt.Scale(domain=[looks[n].word for n in names], range=[looks[n].shape for n in names])


def tips(*fields: str, **titles: str) -> list[alt.Tooltip]:
    """Name what is shown of a mark under the pointer; numbers to three decimal places by keyword.

    Args:
        fields: shown as they are, such as ``"round:Q"``.
        titles: field of numbers -> what it is called.
    """
    # Not as words: Altair takes milliseconds to find out what kind of channel a word is.
    plain = [alt.Tooltip(field) for field in fields]
    return plain + [
        alt.Tooltip(f"{field}:Q", format=".3f", title=title) for field, title in titles.items()
    ]


def below(title: str | None = None, **more: Any) -> alt.Legend:
    """Return a legend that takes no width from the picture."""
    return alt.Legend(title=title, orient="bottom", columns=2, symbolLimit=40, **more)
