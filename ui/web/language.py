"""One visual language: how a decision's source and a run's status look wherever they appear.

Colours are Okabe and Ito's or near them; because colour alone is not enough for everybody, every
source has a shape and an icon of its own as well.
"""

from typing import Literal, NamedTuple

Colour = Literal["red", "orange", "yellow", "blue", "green", "violet", "gray"]


class Look(NamedTuple):
    """How something is shown.

    Attributes:
        word: what people call it.
        icon: a Material symbol.
        badge: colour of its badge, by Streamlit's names.
        hue: colour of its marks in charts, readable on white and on black.
        shape: of its marks, by Vega's names.
    """

    word: str
    icon: str
    badge: Colour
    hue: str
    shape: str


SOURCES = {
    "llm": Look("language model", ":material/neurology:", "violet", "#A0528A", "diamond"),
    "optimizer": Look("optimizer", ":material/query_stats:", "blue", "#2A86C8", "circle"),
    "heuristic": Look("rule", ":material/rule:", "green", "#0F9A72", "square"),
    "human": Look("person", ":material/person:", "orange", "#D9741A", "triangle-up"),
    "replay": Look("replay", ":material/replay:", "gray", "#7B8A97", "cross"),
    "fallback": Look("fallback", ":material/support:", "red", "#D0453A", "triangle-down"),
}
"""Who decides -> how that looks."""

STATUSES = {
    "starting": Look("starting", ":material/hourglass_top:", "blue", "#2A86C8", "circle"),
    "running": Look("running", ":material/play_circle:", "blue", "#2A86C8", "circle"),
    "paused": Look("paused", ":material/pause_circle:", "yellow", "#B58900", "circle"),
    "waiting": Look("waits for you", ":material/person_alert:", "orange", "#D9741A", "circle"),
    "finished": Look("finished", ":material/check_circle:", "green", "#0F9A72", "circle"),
    "stopped": Look("stopped", ":material/stop_circle:", "gray", "#7B8A97", "circle"),
    "interrupted": Look("interrupted", ":material/power_off:", "orange", "#D9741A", "circle"),
    "failed": Look("failed", ":material/error:", "red", "#D0453A", "circle"),
    "damaged": Look("damaged", ":material/broken_image:", "red", "#D0453A", "circle"),
}
"""Status of a run -> how that looks."""

SUBJECTS = {
    "base": Look("base model", ":material/circle:", "gray", "#7B8A97", "circle"),
    "local": Look("each client alone", ":material/home:", "orange", "#D9741A", "square"),
    "federated": Look("federated", ":material/hub:", "blue", "#2A86C8", "circle"),
    "centralised": Look("centralised", ":material/database:", "green", "#0F9A72", "triangle-up"),
}
"""Whose model -> how that looks, the same in every chart."""

VERDICTS = {
    "better": Look("better", ":material/trending_up:", "green", "#0F9A72", "triangle-up"),
    "worse": Look("worse", ":material/trending_down:", "red", "#D0453A", "triangle-down"),
    "inconclusive": Look("inconclusive", ":material/help:", "gray", "#7B8A97", "circle"),
}
"""What a comparison proves -> how that looks."""

METRICS = {
    "nll": "loss, nats per token",
    "nll_per_byte": "loss, nats per byte",
    "bits_per_byte": "loss, bits per byte",
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "choice_accuracy": "choice accuracy",
}
"""Figure -> what people call it, with its unit; what is not named here is shown as it is."""

LOWER_IS_BETTER = frozenset({"nll", "nll_per_byte", "bits_per_byte", "perplexity"})
