"""How good a small base model is: bits per byte on text it has never seen, and how fast it adapts.

    python -m benchmarks.nano MODEL --data FOLDER

Bits per byte of the held-out Dolly responses given their prompts (``client == -1``; the end of
sequence counts in the bits and has no byte; sequences are cut to the model's context as in fine-
tuning), and of wikitext-2 (test) read in blocks without overlap, the first token of a block not
scored; and the exact match that LoRA (rank 8, all linear layers, 100 steps of 16) reaches on
CLINC150's fifteen banking intents, at the learning rate that is best on its validation set.
"""

import argparse
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from federation.algorithms.algorithm import fedavg, run_round
from federation.config import EvaluationSpec
from federation.data.corpus import Corpus, tokenise
from federation.data.sources import Records
from federation.data.templates import parse_templates
from federation.data.tokens import SequenceFormat, Tokens, sequence_format
from federation.evaluation.evaluate import Evaluation, evaluate
from federation.evaluation.likelihood import example_nll
from federation.plan import RoundPlan
from federation.specs import LocalWork, LoRASpec
from federation.training.base import Base, load_base
from federation.training.engine import LocalEngine
from federation.training.local import Task
from federation.training.lora import LoRA
from federation.training.memory import RamMemory

RATES = (1e-3, 2e-3, 3e-3, 6e-3)  # learning rates of the adaptation


def bits_per_byte(base: Base, tokens: Tokens, rows: np.ndarray) -> float:
    """Return total bits over total bytes of rows."""
    values = example_nll(base, tokens, rows)
    return float(values["nats"].sum() / math.log(2) / values["bytes"].sum())


def rows_as_corpus(
    base: Base, rows: list[dict[str, object]], prompt: str, response: str, context: int, cache: Path
) -> tuple[Corpus, SequenceFormat]:
    """Tokenise rows for one base model."""
    records = Records(
        name="rows",
        read=lambda: ((f"row {i}", row) for i, row in enumerate(rows, start=1)),
        digest=lambda: json.dumps(rows),
    )
    templates = parse_templates(prompt=prompt, response=response)
    corpus = tokenise(records, templates, base.tokenizer, max_tokens=context, cache=cache)
    return corpus, sequence_format(base.tokenizer, templates, context, "\n")


def dolly(base: Base, folder: Path, context: int, cache: Path) -> float:
    """Bits per byte of the held-out Dolly responses given their prompts."""
    lines = (folder / "dolly" / "dolly15k_fedit10.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["client"] == -1]
    corpus, _ = rows_as_corpus(base, rows, "{instruction}\n{context}", "{response}", context, cache)
    return bits_per_byte(base, corpus.tokens, np.arange(len(corpus.tokens)))


def wikitext(base: Base, folder: Path, context: int, most: int = 200) -> float:
    """Bits per byte of wikitext-2 (test), the first ``most`` blocks of one context each."""
    text = (folder / "wikitext2" / "test.txt").read_text(encoding="utf-8")
    ids = np.array(base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    count = min(most, len(ids) // context)
    blocks = ids[: count * context].astype(np.int32)
    offsets = np.arange(count + 1, dtype=np.int64) * context
    size = [
        len(str(base.tokenizer.decode(block[1:])).encode())
        for block in blocks.reshape(count, context)
    ]
    ones = np.ones(count, dtype=np.int32)
    tokens = Tokens(blocks, offsets, ones, np.array(size, dtype=np.int32))
    return bits_per_byte(base, tokens, np.arange(count))


def banking(base: Base, folder: Path, cache: Path, steps: int = 100) -> dict[str, float]:
    """Exact match on CLINC150's banking intents before and after a short adaptation."""
    data = json.loads((folder / "intents" / "clinc150" / "data_full.json").read_text())
    domains = json.loads((folder / "intents" / "clinc150" / "domains.json").read_text())
    intents = set(domains["banking"])
    rows: list[dict[str, object]] = []
    for split in ("train", "val", "test"):
        rows += [
            {"text": text, "intent": intent.replace("_", " "), "split": split}
            for text, intent in data[split]
            if intent in intents
        ]
    corpus, form = rows_as_corpus(base, rows, "{text}", "{intent}", 128, cache)
    train, val, test = (
        np.array([i for i, row in enumerate(rows) if row["split"] == split])
        for split in ("train", "val", "test")
    )
    lora = LoRA(base, LoRASpec(rank=8, alpha=16, targets="all-linear"))
    task = Task(base, lora, fedavg(), corpus.tokens)
    spec = EvaluationSpec(metrics=("exact_match",), max_new_tokens=12)
    evaluation = Evaluation(task, corpus.examples, form, spec)

    def right(params: torch.Tensor | None, rows: np.ndarray) -> float:
        return evaluate(evaluation, params, rows)["exact_match"]

    def adapted(lr: float) -> torch.Tensor:
        engine = LocalEngine(task, lambda client: train, RamMemory(), chunk=1)
        work = LocalWork(lr=lr, steps=steps, batch_size=16, max_grad_norm=1.0)
        state = task.algorithm.init(lora.initial(0))
        state, _ = run_round(task.algorithm, engine, state, RoundPlan(0, 1, ("all",), work))
        return state["params"]

    by_lr = {lr: adapted(lr) for lr in RATES}
    validated = {lr: right(params, val) for lr, params in by_lr.items()}
    best = max(RATES, key=validated.__getitem__)
    return {
        "exact_match_before": right(None, test),
        "exact_match_after": right(by_lr[best], test),
        "adaptation_lr": best,
    }


def main() -> None:
    """Judge one model and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="'nano' or a folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of the public texts")
    arguments = parser.parse_args()
    base = load_base(arguments.model)
    context = int(base.model.config.max_position_embeddings)
    with TemporaryDirectory() as cache:
        figures: dict[str, object] = {
            "model": arguments.model,
            "dtype": str(base.dtype),
            "dolly_bits_per_byte": dolly(base, arguments.data, context, Path(cache)),
            "wikitext2_bits_per_byte": wikitext(base, arguments.data, min(context, 512)),
        }
        with torch.no_grad():
            figures |= banking(base, arguments.data, Path(cache))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
