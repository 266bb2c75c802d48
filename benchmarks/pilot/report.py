"""The report of the pilot's benchmark: headline, tracks, and what all of it was made with."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.pilot.parts import Effort, Part
from benchmarks.pilot.scores import Interval, written

INTRODUCTION = """\
# Who steers a federation, scored

Everything here is played offline by the core's own rounds on a small base model and made-up
messages: who is at fault, which configuration is best and what a rule would have done are known.
Figures compare policies with each other; they say nothing about large models or real text.
A policy that uses a language model is compared with the best one that uses none, on the same
(scenario, seed), and with a null model that draws its answers. Where the interval contains 0 there
is "no lift", where it lies below there is "harm"."""
TRIAL = "**A quick trial: it shows that everything works, and its figures mean nothing.**"
LIFTED = ("tune", "online")
UNITS = {"tune": "regret area", "online": "nats per token of final test loss"}


def document(
    parts: Sequence[Part],
    effort: Effort,
    command: str,
    label: Mapping[str, Any] | None,
    note: str = "",
) -> str:
    """Write the report.

    Args:
        parts: the tracks that were played.
        effort: how much was done.
        command: that repeats it.
        label: what the table of runs was made with, if a track read it.
        note: a line for its end.
    """
    blocks = [INTRODUCTION]
    if effort.quick:
        blocks.append(TRIAL)
    blocks += [headline(parts), *(part.markdown() for part in parts)]
    blocks.append(made_with(parts, command, label))
    return "\n\n".join([*blocks, *([note] if note else [])]) + "\n"


def headline(parts: Sequence[Part]) -> str:
    """Say what it came to for policies that ask a model, or for the null model in their place."""
    lines = ["## Headline"]
    scored = [part for part in parts if part.name in LIFTED]
    if not any(asking(part) for part in scored):
        lines.append(
            "No language model was scored; `--model openai:MODEL@http://127.0.0.1:8000/v1` scores"
            " one. What follows is the control: the null model in its place."
        )
    lines += ["\n".join(line for part in scored for line in lift_lines(part))]
    if not scored:
        lines[-1] = "Neither tuning track was played, so there is no lift to tell of."
    return "\n\n".join(lines)


def asking(part: Part) -> list[str]:
    """Name the policies of a track that ask a language model."""
    return [
        name
        for name in part.figures["lift"]
        if name.startswith(("llm:", "hybrid+")) and name != "hybrid+null"
    ]


def lift_lines(part: Part) -> list[str]:
    """Write a line for every policy that a model, or the null model, has a part in."""
    figures, lines = part.figures, []
    for name in ["null", "hybrid+null", *asking(part)]:
        own = figures["lift"].get(name)
        if own is None:  # it is the best there is itself
            continue
        bad, decided = figures["harmful"].get(name, (0, 0))
        harm = f"; harmful decisions {bad}/{decided} ({bad / decided:.0%})" if decided else ""
        lines.append(
            f"- {part.heading}, {name}: **{own['verdict']}** over"
            f" {figures['best_without_model']}, {written(read(own))} {UNITS[part.name]};"
            f" win/tie/loss {own['wins']}/{own['ties']}/{own['losses']}{harm}{asked(part, name)}"
        )
    return lines


def read(own: Mapping[str, Any]) -> Interval:
    """Read an interval as JSON has it."""
    ends = {key: math.nan if own[key] is None else own[key] for key in ("mean", "low", "high")}
    return Interval(**ends, count=own["count"])


def asked(part: Part, name: str) -> str:
    """Say what asking a model came to: answers, tokens, and lift over the null model."""
    questions = part.figures.get("asked", {}).get(name, 0)
    if not questions:
        return ""
    answers = questions - part.figures["failures"].get(name, 0)
    over = part.figures["lift_over_null"][name]
    instead = "" if answers else " (scored is what was done instead)"
    for key, words in (("abstained", "to abstain"), ("repeated", "to try again what was tried")):
        if count := part.figures.get(key, {}).get(name, 0):
            instead += f", {count} of them {words}"
    tokens = part.figures["tokens"][name]
    return (
        f"; {answers} answers of {questions} questions{instead}, {tokens:,} tokens;"
        f" {over['verdict']} over the null model, {written(read(over))}"
    )


def made_with(parts: Sequence[Part], command: str, label: Mapping[str, Any] | None) -> str:
    """Say how to repeat it and with what it was made."""
    lines = ["## Made with", f"`{command}`, Python {platform.python_version()}."]
    if own := [f"- {part.heading}: `{part.command}`" for part in parts if part.command]:
        lines += ["What plays a track alone:", "\n".join(own)]
    if label:
        versions = ", ".join(f"{name} {v}" for name, v in label["versions"].items())
        lines.append(
            "The table of runs (`python -m benchmarks.pilot.table`):"
            f" {versions}; {label['cpu']}, {label['threads']} thread; base"
            f" {label['base_sha256'][:12]}, design {label['design_sha256'][:12]}, values"
            f" {label['content_sha256'][:12]}."
        )
    return "\n\n".join(lines)


def as_json(parts: Sequence[Part], command: str, label: Mapping[str, Any] | None) -> str:
    """Write every track as JSON; what is not finite is null."""
    content = {
        "command": command,
        "table": dict(label or {}),
        "tracks": {part.name: part.json() for part in parts},
    }
    return json.dumps(finite(content), indent=1, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Replace what JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
