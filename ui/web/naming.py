"""What clients are called on a page: their names, or pseudonyms where others may look on.

The switch stands in the URL (``?names=pseudonyms``); with ``FEDPILOT_SHARED=1`` there is none and
every page knows pseudonyms only: those of the run that it is about, in texts too.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from agents.copilot.names import Names, numbered
from agents.made_up import of_details
from federation.runs.run import Run
from ui.web.forms import got

SHARED = "FEDPILOT_SHARED"
Choice = Literal["names", "pseudonyms"]


@dataclass(frozen=True)
class Naming:
    """How clients are called.

    Attributes:
        pseudonyms: client -> pseudonym; None where names are shown.
        names: what replaces names in texts; None where names are shown.
    """

    pseudonyms: dict[str, str] | None = None
    names: Names | None = None

    @classmethod
    def of(cls, run: Run, choice: Choice) -> "Naming":
        """Call the clients of a run by their names or by pseudonyms."""
        return cls() if choice == "names" else cls.hidden([run])

    @classmethod
    def hidden(cls, runs: Iterable[Run], more: Iterable[str] = ()) -> "Naming":
        """Call the clients of runs by pseudonyms: a client that several of them have, by one.

        Args:
            runs: whose clients they are.
            more: clients of which these runs say nothing.
        """
        found = list(runs)
        asked = dict.fromkeys(c for run in found for c in Names.of(run).clients.values())
        others = {*more, *(c for run in found for c in told_of(run))}.difference(asked)
        names = Names(numbered("c", asked) | numbered("n", sorted(others)), {})
        return cls({client: short for short, client in names.clients.items()}, names)

    @property
    def hides(self) -> bool:
        """Whether names are kept back."""
        return self.pseudonyms is not None

    def client(self, name: str) -> str:
        """Return what a client is called; one of which a run says nothing is unknown."""
        return name if self.pseudonyms is None else self.pseudonyms.get(name, "unknown")

    def text(self, text: str) -> str:
        """Replace the names in a text."""
        return text if self.names is None else self.names.hidden(text)


NAMES = Naming()
"""Every client by its name."""


def told_of(run: Run) -> set[str]:
    """Return the clients that are judged, configured or were to have made-up rows, asked or not."""
    found = {c for e in run.evaluations for figures in e.per_client.values() for c in figures}
    filled = (of_details(decision.details) for decision in run.history.decisions.values())
    return found.union(configured(run), *(one.asked for one in filled if one))


def configured(run: Run) -> set[str]:
    """Return the clients that a configuration names: those left out, and the one tested on."""
    left_out = got(run.config, "cohort.exclude", [])
    names = [
        *(left_out if isinstance(left_out, list) else []),
        got(run.config, "data.clients.test_key"),
    ]
    return {name for name in names if isinstance(name, str)}


def shared() -> bool:
    """Tell whether pages may know pseudonyms only."""
    return os.environ.get(SHARED, "0") not in ("", "0")


def pick_names(run: Run) -> Naming:
    """Let a person choose how clients are called, where that is theirs to choose."""
    if shared():
        st.badge(
            "pseudonyms", icon=":material/visibility_off:", color="gray",
            help=f"this server is shared ({SHARED}=1): no client is named",
        )  # fmt: skip
        return Naming.of(run, "pseudonyms")
    choice = st.segmented_control(
        "Clients by", ["names", "pseudonyms"], default="names", key="names", bind="query-params",
        required=True, help="pseudonyms are the copilot's: c1, c2, ... in the order of "
        "the journal; n1, n2, ... were not asked yet",
    )  # fmt: skip
    return Naming.of(run, "pseudonyms" if choice == "pseudonyms" else "names")
