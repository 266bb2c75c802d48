"""Where names and tables of a configuration become values, once."""

from federation.algorithms import catalogue, transforms
from federation.algorithms.algorithm import Algorithm
from federation.config import Config
from federation.specs import LoRASpec
from federation.training.base import Base
from federation.training.full import FullParameters
from federation.training.local import Trainable
from federation.training.lora import LoRA

UNKEYED = "a key that protects nothing"  # stands in until a run has drawn its own
CENTRALISED = "centralised"  # FedAvg with one client that holds everything


def build_algorithm(config: Config, secret: str = UNKEYED) -> Algorithm:
    """Build the configured algorithm and wrap it in what happens to updates on their way.

    Args:
        config: the run's configuration.
        secret: key of the privacy noise, if there is any.

    Raises:
        ConfigError: if the algorithm or a setting of it is unknown, or it refuses the configured
            work.
    """
    name = "fedavg" if config.algorithm.name == CENTRALISED else config.algorithm.name
    algorithm = catalogue.build(name, config.algorithm.settings)
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
    return algorithm


def build_trainable(config: Config, base: Base) -> Trainable:
    """Put what is trained on the base."""
    if isinstance(config.adapter, LoRASpec):
        return LoRA(base, config.adapter)
    return FullParameters(base)
