"""When a round is undone, and how far knobs may be turned afterwards.

A round diverged if its training loss is no number, or lies above a declared multiple of the best
loss so far, which is smoothed over rounds.  Then the state, what clients keep and the knobs are
those of the last good round again; the next round is played with them, without asking a policy; and
a value that led there is not reached again: the limit moves half the way, by ratio, to what was
good.  A state may have been spoilt by the round before the one that shows it; so when the next
round diverges too, one round further back is gone.

Everything follows from the journal.
"""

import math
from collections.abc import Mapping
from statistics import fmean

from agents.knobs import KNOBS
from federation.runs.history import RETAINED, History
from federation.runs.records import RollbackRecord, RoundRecord

SMOOTHED = 3
"""Rounds over which a loss is averaged before the best is sought."""

Values = Mapping[str, float]


def mean_loss(record: RoundRecord) -> float:
    """Return the mean training loss of the clients of a round; NaN if nobody made a step."""
    losses = [loss for loss in record.loss.values() if not math.isnan(loss)]
    return fmean(losses) if losses else math.nan


def limit(history: History, factor: float) -> float | None:
    """Return the training loss above which a round counts as diverged; None before a good round."""
    losses = [mean_loss(record) for n, record in history.rounds.items() if is_good(history, n)]
    losses = [loss for loss in losses if math.isfinite(loss)]
    smoothed = [fmean(losses[max(0, n - SMOOTHED + 1) : n + 1]) for n in range(len(losses))]
    return factor * min(smoothed) if smoothed else None


def is_good(history: History, round: int) -> bool:
    """Tell whether a round was played and not undone."""
    return round in history.rounds and round not in history.rollbacks


def undone(
    history: History, factor: float, round: int, loss: float, failure: str
) -> RollbackRecord | None:
    """Say whether a round is to be undone, and to which one.

    Args:
        history: what the records before the end of the round mean together.
        factor: multiple of the best smoothed loss that is too much.
        round: the round.
        loss: mean training loss of its clients; NaN if it is no number.
        failure: why the server could make no state of it; empty if it could.
    """
    most = limit(history, factor)
    if failure:
        reason = failure
    elif not math.isfinite(loss):
        reason = "its training loss is no number"
    elif most is not None and loss > most:
        reason = f"its training loss {loss:.4g} is above {most:.4g}"
    else:
        return None
    return RollbackRecord(
        round=round, to=target(history, round), loss=loss, limit=most, reason=reason
    )


def target(history: History, round: int) -> int | None:
    """Return the round whose state holds again; None if no good one was played.

    The last good one, or one more back for every round before this one that was undone in a row, as
    far as states are kept.
    """
    row = 0
    while round - 1 - row in history.rollbacks:
        row += 1
    first = history.fork.round if history.fork else 0  # a fork has no older state of its parent
    oldest = max(first, round - RETAINED)
    held = [standing(history, n) for n in range(round - 1, oldest - 1, -1)]
    back = sorted({n for n in held if n is not None}, reverse=True)
    return back[min(row, len(back) - 1)] if back else None


def standing(history: History, round: int) -> int | None:
    """Return the good round whose state holds after a round; None for the first state."""
    return history.rollbacks[round].to if round in history.rollbacks else round


def narrowed(
    outer: Mapping[str, tuple[float, float]],
    history: History,
    applied: Mapping[int, Values],
    configured: Values,
) -> dict[str, tuple[float, float]]:
    """Draw the outer limits of knobs in, half the way by ratio from what failed to what was good.

    Args:
        outer: knob -> lowest and highest value of any round.
        history: what the records mean together.
        applied: round -> what was applied in it.
        configured: what holds before the first round.
    """
    limits = dict(outer)
    for round, back in history.rollbacks.items():
        good = configured if back.to is None else applied[back.to]
        for name, (least, most) in limits.items():
            was, failed = good[name], applied[round][name]
            middle = math.sqrt(was * failed)
            whole = KNOBS[name].whole
            if failed > was:
                limits[name] = (least, min(most, math.floor(middle) if whole else middle))
            elif failed < was:
                limits[name] = (max(least, math.ceil(middle) if whole else middle), most)
    return limits
