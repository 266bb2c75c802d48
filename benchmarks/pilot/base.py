"""The base model of the scenarios: a Llama of one layer and 78,000 parameters, made in seconds.

The built-in `nano` is some 75 times larger, and a table takes 864 runs.  This one has read messages
of another town, where desks have each other's names and half of the answers follow nothing: what a
message is for here is left to the federation.  Made by a recipe from one seed, kept in the cache
folder.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.pilot.texts import elsewhere, write_rows
from federation.algorithms.algorithm import fedavg, run_round
from federation.config import Config
from federation.data.dataset import load_data
from federation.experiment import default_cache
from federation.plan import RoundPlan
from federation.pretraining.pretrain import initial_weights, llama_config
from federation.pretraining.recipe import Architecture
from federation.pretraining.vocabulary import train_tokenizer
from federation.specs import LocalWork
from federation.training.base import prepare
from federation.training.engine import LocalEngine
from federation.training.full import FullParameters
from federation.training.local import Task
from federation.training.memory import RamMemory

SEED, VERSION = 7, 4  # another recipe, another version: folders are named by it
ROWS = 4000
SHAPE = Architecture(vocabulary=700, hidden=64, layers=1, heads=4, intermediate=128, context=64)
WORK = LocalWork(lr=4e-3, steps=250, batch_size=64)


def folder() -> Path:
    """Return where everything that can be made again is kept."""
    return default_cache() / "bench-pilot"


def base_model() -> Path:
    """Return the folder of the base model; make it if it is not there."""
    place = folder() / f"base-{VERSION}"
    if not (place / "config.json").exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as made:
            make(Path(made))
            if not place.exists():
                shutil.copytree(made, made + "-whole")
                Path(made + "-whole").rename(place)
    return place


def make(place: Path) -> None:
    """Learn a vocabulary, train all parameters on rows of another town, write the folder."""
    from transformers import LlamaForCausalLM

    data = write_rows(folder() / f"base-{VERSION}.jsonl", elsewhere(SEED, ROWS))
    texts = (f"{x['message']}\n{x['answer']}" for x in elsewhere(SEED, ROWS))
    tokenizer = train_tokenizer(texts, SHAPE.vocabulary, SHAPE.context)
    shape = SHAPE.model_copy(update={"vocabulary": len(tokenizer)})
    base = prepare("base", LlamaForCausalLM(llama_config(shape)), tokenizer)
    config = Config.from_table(
        {"seed": SEED, "data": {"source": str(data), "text": "{message}\n{answer}"}}
    )
    corpus = load_data(config, tokenizer, Path.cwd(), folder()).corpus
    trainable = FullParameters(base)
    task = Task(base, trainable, fedavg(), corpus.tokens)
    everything = np.arange(len(corpus.tokens))
    engine = LocalEngine(task, lambda client: everything, RamMemory(), chunk=1)
    params = initial_weights(trainable.layout, shape.layers, SEED)
    plan = RoundPlan(0, 1, ("all",), WORK, seed=SEED)
    state, _ = run_round(task.algorithm, engine, {"params": params}, plan)
    model = LlamaForCausalLM(llama_config(shape))
    model.load_state_dict(trainable.layout.views(state["params"]), strict=False)
    model.float()
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
