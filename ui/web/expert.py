"""A process that knows torch, so that the server need not: it answers questions about experiments.

One question a line comes in as JSON, one answer a line goes out: ``{"answer": ...}`` or
``{"error": "one line"}``.  It ends when nobody can ask any more.
"""

import json
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.config import Config
from federation.errors import ConfigError, FedpilotError

if TYPE_CHECKING:
    from federation.algorithms.algorithm import Algorithm
    from federation.training.base import Base

Answer = dict[str, Any]
PROBE = 100_000
"""Values of an update that is rehearsed; what travels grows in proportion."""
SEEN = 20  # models and tokenizers that are remembered


def algorithms(_: Mapping[str, Any]) -> Answer:
    """Return name -> JSON schema of its settings, and what it is."""
    from federation.algorithms.catalogue import ALGORITHMS, settings_schema

    return {
        name: {"schema": settings_schema(name), "about": about(factory)}
        for name, factory in ALGORITHMS.items()
    }


def about(function: Callable[..., object]) -> str:
    """Return the first line of a docstring."""
    return (function.__doc__ or "").strip().split("\n")[0]


def check(question: Mapping[str, Any]) -> Answer:
    """Refuse what a run would refuse before it reads data; else say how large everything is.

    Returns:
        ``parameters`` of the base, ``base_bytes``, ``trained`` parameters, bytes ``down`` and
        ``up`` of a client and a round, ``kept`` bytes of a client between rounds, ``modules``
        that an adapter can sit on, and ``context`` in tokens; nothing of a model that is not on
        this machine yet.
    """
    from federation.training.build import build_algorithm

    config = Config.from_table(question["table"])
    check_pilot(config)
    algorithm = build_algorithm(config)
    if (base := outline(config.model.base)) is None:
        return {}
    return sizes(config, algorithm, base)


def sizes(config: Config, algorithm: "Algorithm", base: "Base") -> Answer:
    """Say how large everything is that is loaded, trained and sent."""
    import torch

    from federation.training.base import resolve_device, resolve_dtype
    from federation.training.build import rehearsed
    from federation.tree import nbytes

    parameters = sum(p.numel() for p in base.model.parameters())
    trained = trained_parameters(config, base)
    params = torch.zeros(min(trained, PROBE))
    scale = trained / max(1, len(params))
    state = algorithm.init(params)
    kept = sum(x.numel() * x.element_size() for x in algorithm.memory(params).values())
    dtype = resolve_dtype(config.model.dtype, resolve_device(config.model.device))
    return {
        "parameters": parameters,
        "base_bytes": parameters * dtype.itemsize,
        "trained": trained,
        "down": round(nbytes(algorithm.sent(state)) * scale),
        "up": round(nbytes(rehearsed(algorithm, params, config.work)) * scale),
        "kept": round(kept * scale),
        "modules": modules(base),
        "context": getattr(base.model.config, "max_position_embeddings", None),
    }


def check_pilot(config: Config) -> None:
    """Refuse a pilot that cannot be built; whom it asks is asked nothing."""
    from agents.knobs import KNOBS
    from agents.spec import PilotSpec, build_policy

    if (spec := PilotSpec.of(config)) is None:
        return
    knobs = len(spec.bounds) or 1
    build_policy(getattr(spec, "proposer", spec.policy), knobs, spec)
    for name in spec.shadows:
        build_policy(name, min(knobs, len(KNOBS)))


@lru_cache(SEEN)
def outline(name: str) -> "Base | None":
    """Load a base model without its weights: names and shapes alone.

    Returns:
        None of a model of the hub that is not on this machine; nobody is asked for it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from federation.training.base import Base, load_tokenizer, loading, model_source

    source = model_source(name)
    try:
        with loading(name), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
        return Base(name, model, load_tokenizer(name), (), False)
    except ConfigError:
        if Path(source).is_dir():
            raise
        return None


def trained_parameters(config: Config, base: "Base") -> int:
    """Count what a configuration trains on a base."""
    from federation.specs import LoRASpec
    from federation.training.lora import choose_targets, features

    if not isinstance(config.adapter, LoRASpec):
        return sum(p.numel() for p in base.model.parameters())
    names = choose_targets(base, config.adapter.targets)
    sizes = (sum(features(base.model.get_submodule(name))) for name in names)
    return config.adapter.rank * sum(sizes)


def modules(base: "Base") -> list[str]:
    """Name the kinds of modules that an adapter can sit on."""
    from federation.training.lora import choose_targets

    return sorted({name.rsplit(".", 1)[-1] for name in choose_targets(base, "all-linear")})


def example(question: Mapping[str, Any]) -> Answer:
    """Render one row as a configuration says, and cut it into tokens.

    Returns:
        ``tokens`` as texts, ``prompt`` how many of them are not learnt, ``truncated`` whether some
        were cut off, ``whole`` tokens of the row before that, ``text`` of prompt and response.
    """
    from federation.data.dataset import templates, with_defaults
    from federation.data.tokens import encode, sequence_format

    config = Config.from_table(question["table"])
    spec, tokenizer = with_defaults(config.data), outline_tokenizer(config.model.base)
    parsed = templates(spec, tokenizer)
    form = sequence_format(tokenizer, parsed, spec.max_tokens, spec.separator)
    parsed.check(tuple(question["fields"]))
    shown = parsed.render(question["row"], question["origin"])
    prompt = shown.prompt + form.separator if parsed.prompt else ""
    both = encode(tokenizer, [prompt, shown.response])
    joined = form.join(*both)
    return {
        "tokens": [tokenizer.decode([i]) for i in joined.ids],
        "prompt": joined.prompt_len,
        "truncated": joined.truncated,
        "whole": len(form.bos) + sum(map(len, both)) + len(form.end),
        "text": [prompt, shown.response],
    }


@lru_cache(SEEN)
def outline_tokenizer(name: str) -> Any:
    """Load the tokenizer of a base model."""
    from federation.training.base import load_tokenizer

    return load_tokenizer(name)


def study(question: Mapping[str, Any]) -> Answer:
    """Refuse what a study would refuse before it reads data; whom it asks is asked nothing."""
    from agents.study.conduct import check_arms
    from agents.study.search import check_installed
    from agents.study.spec import from_table

    spec = from_table(question["table"], "the study")
    if spec.search:
        check_installed(spec.search)
    check_arms(spec)
    return {}


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "algorithms": algorithms,
    "check": check,
    "example": example,
    "study": study,
}


def answered(line: str) -> Answer:
    """Answer one question."""
    question = json.loads(line)
    try:
        return {"answer": QUESTIONS[question["ask"]](question)}
    except FedpilotError as error:
        return {"error": str(error)}


def main() -> int:
    """Answer until there are no more questions."""
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(answered(line)), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
