"""What we are measured against: a sequential PEFT loop, as fast as we know to write one.

One client after another on one model that was loaded once; parameters are copied in place; the
examples are tokenised already and padded inside their batch alone.  No mask is passed: padding is
on the right and attention is causal, so the model takes its fastest path.

Shape suffixes: C clients, P flat parameters.
"""

import time
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.settings import CHOICES, Peer
from benchmarks.work import Work
from federation.training.base import DTYPES
from federation.training.batches import Batch
from federation.training.local import batch_at


class PeftLoop:
    """A model with PEFT's adapters and the round of a setting."""

    def __init__(self, work: Work, peer: Peer) -> None:
        """Load the base and put adapters on it."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(
            work.model, dtype=DTYPES[peer.dtype], attn_implementation=peer.attention
        )
        spec = work.setting.lora
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=spec.rank,
            lora_alpha=int(spec.alpha),
            target_modules=list(spec.targets) if isinstance(spec.targets, tuple) else spec.targets,
        )
        wide = peer.adapter != "bfloat16"
        self.model = get_peft_model(base, config, autocast_adapter_dtype=wide)
        self.body, self.head = base.base_model, base.lm_head
        self.adapter = {
            name.replace(".default.", "."): parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        self.work, self.peer = work, peer

    def train(self) -> tuple[Tensor, Tensor]:
        """Train every client; return its parameters ``(C, P)`` and its mean loss ``(C,)``."""
        clients = [self.train_client(client) for client in self.work.rows]
        layout = self.work.layout
        params_C = torch.stack([layout.flatten(params) for params, _ in clients])
        return params_C, torch.stack([loss for _, loss in clients])

    def train_client(self, client: str) -> tuple[dict[str, Tensor], Tensor]:
        """Train one client from the initial adapter; return a copy of its own and its loss."""
        with torch.no_grad():
            for name, parameter in self.adapter.items():
                parameter.copy_(self.work.adapter[name])
        optimizer = self.optimizer()
        losses = []
        schedule = self.work.schedules[client]
        for step in range(len(schedule)):
            batch = batch_at(self.work.tokens, [schedule], step)
            optimizer.zero_grad()
            with self.context():
                loss = self.loss(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        trained = {name: parameter.detach().clone() for name, parameter in self.adapter.items()}
        return trained, torch.stack(losses).double().mean()

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the supervised tokens."""
        ids = batch.ids_CBT[0]
        if self.peer.logits == "all":
            labels = torch.full_like(ids, -100)
            labels.view(-1)[batch.where + 1] = batch.target
            return self.model(input_ids=ids, labels=labels, use_cache=False).loss
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        logits = self.head(hidden.flatten(0, 1)[batch.where])
        return F.cross_entropy(logits.float(), batch.target)

    def context(self) -> AbstractContextManager[object]:
        """Return what the forward pass runs under."""
        if self.peer.adapter == "autocast":
            return torch.autocast("cpu", torch.bfloat16)
        return nullcontext()

    def optimizer(self) -> torch.optim.AdamW:
        """Start an optimizer, as every client does."""
        kind = self.peer.optimizer
        return torch.optim.AdamW(
            list(self.adapter.values()),
            lr=self.work.setting.lr,
            eps=self.work.setting.eps,
            weight_decay=0,
            foreach=True if kind == "foreach" else None,
            fused=True if kind == "fused" else None,
        )


def fastest(work: Work, start: Peer) -> Peer:
    """Find the fastest loop: one choice after another, each tried with the best so far."""
    best, best_seconds = start, trial_seconds(work, start)
    for name, options in CHOICES.items():
        for option in options:
            if option != getattr(best, name):
                other = Peer.model_validate({**best.model_dump(), name: option})
                seconds = trial_seconds(work, other)
                if seconds < best_seconds:
                    best, best_seconds = other, seconds
    return best


def trial_seconds(work: Work, peer: Peer, repeats: int = 3) -> float:
    """Return the fastest of a few trainings of one client, after one to warm up."""
    loop = PeftLoop(work, peer)
    client = next(iter(work.rows))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loop.train_client(client)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
