"""Arms beside the control, seed by seed.  Light: nothing here imports torch."""

from collections.abc import Iterator, Mapping

from agents.study.ledger import Ledger, Study
from agents.study.spec import StudySpec


def folder(arm: str, seed: int) -> str:
    """Name the run of an arm under a seed."""
    return f"{arm}-seed-{seed}"


def improvements(ledger: Ledger | Study, figures: Mapping[str, float]) -> dict[str, list[float]]:
    """Pair every arm with the control.

    Args:
        ledger: the study.
        figures: folder of a run -> its figure.

    Returns:
        Arm -> improvement under each seed that both have run, in the order of the seeds.
    """
    spec = ledger.spec
    return {
        name: [one for _, one in pairs(spec, name, figures)]
        for name in ledger.told.arms
        if name != spec.control
    }


def pairs(spec: StudySpec, arm: str, figures: Mapping[str, float]) -> Iterator[tuple[int, float]]:
    """Yield the seeds that an arm and the control have run, and the improvement under each."""
    for seed in spec.seeds:
        own, other = folder(arm, seed), folder(spec.control, seed)
        if own in figures and other in figures:
            yield seed, spec.metric.improvement(figures[own], figures[other])
