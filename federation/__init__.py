"""Federated fine-tuning of language models: the core.

Public names are loaded when they are first used, so that ``import federation`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federation.algorithms.algorithm import Algorithm as Algorithm
    from federation.algorithms.algorithm import fedavg as fedavg
    from federation.algorithms.algorithm import run_round as run_round
    from federation.config import Config as Config
    from federation.experiment import resume as resume
    from federation.experiment import run_experiment as run_experiment
    from federation.plan import LocalWork as LocalWork
    from federation.plan import RoundPlan as RoundPlan
    from federation.runs.run import Run as Run
    from federation.training.engine import LocalEngine as LocalEngine

_HOME = {
    "Algorithm": "algorithms.algorithm",
    "Config": "config",
    "LocalEngine": "training.engine",
    "LocalWork": "specs",
    "RoundPlan": "plan",
    "Run": "runs.run",
    "fedavg": "algorithms.algorithm",
    "resume": "experiment",
    "run_experiment": "experiment",
    "run_round": "algorithms.algorithm",
}

__all__ = [
    "Algorithm",
    "Config",
    "LocalEngine",
    "LocalWork",
    "RoundPlan",
    "Run",
    "fedavg",
    "resume",
    "run_experiment",
    "run_round",
]


def __getattr__(name: str) -> object:
    """Import a public name from the module it lives in."""
    if name not in _HOME:
        raise AttributeError(f"module 'federation' has no attribute {name!r}")
    return getattr(import_module(f"federation.{_HOME[name]}"), name)
