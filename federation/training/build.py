"""Where names and tables of a configuration become values, once."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from federation.algorithms import catalogue, transforms
from federation.algorithms.algorithm import Algorithm
from federation.algorithms.settings import CENTRALISED, AlgorithmSpec
from federation.config import Config
from federation.errors import ConfigError
from federation.plan import RoundPlan
from federation.runs.peft_files import load_adapter
from federation.specs import LocalWork, LoRASpec
from federation.training.base import Base
from federation.training.full import FullParameters
from federation.training.local import Trainable
from federation.training.lora import LoRA
from federation.tree import Tree

UNKEYED = "a key that protects nothing"  # stands in until a run has drawn its own


def build_algorithm(config: Config, secret: str = UNKEYED) -> Algorithm:
    """Build the configured algorithm and wrap it in what happens to updates on their way.

    Args:
        config: the run's configuration.
        secret: key of the privacy noise, if there is any.

    Raises:
        ConfigError: if the algorithm or a setting of it is unknown, or it refuses the configured
            work, or its reports cannot be protected or compressed as configured, or it needs more
            reports than clients are asked for one.
    """
    algorithm = plain_algorithm(config)
    upload = config.upload
    if upload.noise is not None and upload.clip is not None:
        algorithm = transforms.add_noise(
            algorithm, upload.clip, upload.noise, config.cohort.size, secret
        )
    elif upload.clip is not None:
        algorithm = transforms.clip_updates(algorithm, upload.clip)
    if upload.top_k is not None:
        algorithm = transforms.top_k(algorithm, upload.top_k)
    if upload.bits is not None:
        algorithm = transforms.quantize(algorithm, upload.bits)
    algorithm.check(config.work)
    if config.cohort.size < algorithm.quorum:
        raise ConfigError(
            f"algorithm.name = {config.algorithm.name!r} needs {algorithm.quorum} reports a round"
            f" as it is set, and cohort.size is {config.cohort.size}; raise it, or lower"
            " algorithm.byzantine"
        )
    rehearsed(algorithm, torch.zeros(1), config.work)
    return algorithm


def with_settings(config: Config, settings: Mapping[str, float]) -> Config:
    """Return a configuration whose algorithm has other settings."""
    spec = config.algorithm
    other = AlgorithmSpec.of(spec.name, {**spec.settings, **settings})
    return config.model_copy(update={"algorithm": other})


def plain_algorithm(config: Config) -> Algorithm:
    """Build the configured algorithm alone.

    Raises:
        ConfigError: if a setting of it is unknown.
    """
    name = config.algorithm.name
    name = "fedavg" if name == CENTRALISED else name
    return catalogue.build(name, config.algorithm.settings)


def rehearsed(algorithm: Algorithm, params: Tensor, work: LocalWork) -> Tree:
    """Return the report of one client that changed nothing: as large as every other, without C.

    Args:
        algorithm: with what happens to updates on their way.
        params: ``(P,)``.
        work: what clients do.

    Raises:
        ConfigError: if what the algorithm reports cannot be protected or compressed as configured.
    """
    kept_C = {group: x[None] for group, x in algorithm.memory(params).items()}
    sent = algorithm.sent(algorithm.init(params))
    plan = RoundPlan(0, 1, ("client",), work)
    report_C, _ = algorithm.report(torch.zeros_like(params)[None], sent, kept_C, plan)
    return {group: x_C[0] for group, x_C in report_C.items()}


def build_trainable(config: Config, base: Base) -> Trainable:
    """Put what is trained on the base."""
    if isinstance(config.adapter, LoRASpec):
        return LoRA(base, config.adapter)
    return FullParameters(base)


def first_params(trainable: Trainable, seed: int, base_dir: Path) -> Tensor:
    """Return the parameters ``(P,)`` that training starts from: drawn, or those of an adapter."""
    if isinstance(trainable, LoRA) and trainable.spec.start is not None:
        return load_adapter(base_dir / Path(trainable.spec.start).expanduser(), trainable)
    return trainable.initial(seed)
