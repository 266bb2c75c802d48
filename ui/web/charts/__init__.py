"""Pictures: pure functions from what a journal says to Altair charts; none knows Streamlit."""

import altair as alt


@alt.theme.register("fedpilot", enable=True)
def painted() -> alt.theme.ThemeConfig:
    """Have charts painted: marks that are elements of a page cost a browser seconds.

    A painting ends at its edge, so there is room for the half of a label at the end of an axis:
    a label stands at its tick, the last as all others.
    """
    return {
        "usermeta": {"embedOptions": {"renderer": "canvas"}},
        "padding": {"top": 6, "right": 14, "bottom": 4},
        "config": {"axis": {"labelFlush": False}},
    }
