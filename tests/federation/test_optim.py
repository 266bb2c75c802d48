"""Local optimizers are torch's, row by row."""

import pytest
import torch
from torch import Tensor

from federation.address import torch_generator
from federation.specs import LocalWork
from federation.training.optim import OPTIMIZERS, adamw_update, clip_rows, sgd_update

C, P, STEPS = 3, 7, 5
WORKS = {
    "adamw": LocalWork(lr=0.03, optimizer="adamw", beta1=0.8, beta2=0.95, eps=1e-3),
    "adamw, decay": LocalWork(lr=0.03, optimizer="adamw", weight_decay=0.2),
    "sgd": LocalWork(lr=0.1, optimizer="sgd"),
    "sgd, momentum": LocalWork(lr=0.1, optimizer="sgd", momentum=0.9),
}


def draw(purpose: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_generator("optim", purpose)).double()


def torch_optimizer(parameter: Tensor, work: LocalWork) -> torch.optim.Optimizer:
    if work.optimizer == "adamw":
        betas = (work.beta1, work.beta2)
        return torch.optim.AdamW([parameter], work.lr, betas, work.eps, work.weight_decay)
    return torch.optim.SGD([parameter], work.lr, work.momentum)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_rows_are_torchs(work: LocalWork) -> None:
    params_C, grads_SC = draw("params", C, P), draw("grads", STEPS, C, P)
    rows = [row.clone().requires_grad_() for row in params_C]
    optimizers = [torch_optimizer(row, work) for row in rows]
    init, update = OPTIMIZERS[work.optimizer]
    state = init(params_C)
    for s in range(STEPS):
        active = C - (s >= 3)  # the last client has finished: its row and its state rest
        update(params_C[:active], grads_SC[s, :active].clone(), head(state, active), work)
        for row, optimizer, grad in list(zip(rows, optimizers, grads_SC[s], strict=True))[:active]:
            row.grad = grad.clone()
            optimizer.step()
        want_C = torch.stack([row.detach() for row in rows])
        torch.testing.assert_close(params_C, want_C, rtol=0, atol=1e-12)


def head(state: dict[str, Tensor], clients: int) -> dict[str, Tensor]:
    return {group: x_C[:clients] for group, x_C in state.items()}


def test_sgd_decays_decoupled() -> None:
    """Weight decay shrinks the parameters and never enters the velocity."""
    work = LocalWork(lr=0.1, optimizer="sgd", momentum=0.5, weight_decay=0.3)
    params_C, state = torch.ones(1, 2).double(), OPTIMIZERS["sgd"].init(torch.ones(1, 2).double())
    sgd_update(params_C, torch.zeros(1, 2).double(), state, work)
    assert not state["velocity"].any()
    torch.testing.assert_close(params_C, torch.full((1, 2), 1 - 0.1 * 0.3).double())


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_state_is_a_row_of_each_client(work: LocalWork) -> None:
    params_C = draw("params", C, P)
    for x_C in OPTIMIZERS[work.optimizer].init(params_C).values():
        assert len(x_C) == C
        assert x_C.dtype == params_C.dtype


def test_no_gradient_moves_nobody() -> None:
    params_C = draw("params", C, P)
    before = params_C.clone()
    work = WORKS["adamw"]
    adamw_update(params_C, torch.zeros(C, P).double(), OPTIMIZERS["adamw"].init(params_C), work)
    assert torch.equal(params_C, before)


def test_clip_is_of_each_row() -> None:
    grad_C = draw("grads", C, P) * torch.tensor([[0.0], [0.01], [100.0]])
    clipped_C = clip_rows(grad_C.clone(), 2.0)
    assert torch.equal(clipped_C[:2], grad_C[:2])  # shorter ones stay, to the bit; zero stays zero
    assert clipped_C[2].norm().item() == pytest.approx(2.0, rel=1e-12)
    torch.testing.assert_close(clipped_C[2] / 2, grad_C[2] / grad_C[2].norm())


def test_clip_is_torchs_but_for_its_epsilon() -> None:
    grad_C = draw("grads", C, P) * 10
    rows = [torch.zeros(P).double().requires_grad_() for _ in range(C)]
    for row, grad in zip(rows, grad_C, strict=True):
        row.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_([row], 2.0)
    want_C = torch.stack([row.grad for row in rows])
    torch.testing.assert_close(clip_rows(grad_C, 2.0), want_C, rtol=1e-6, atol=0)


def test_clip_hides_no_divergence() -> None:
    grad_C = torch.tensor([[1.0, torch.nan], [torch.inf, 1.0], [3.0, 4.0]])
    clipped_C = clip_rows(grad_C, 1.0)
    assert not clipped_C[:2].isfinite().all(1).any()
    torch.testing.assert_close(clipped_C[2], torch.tensor([0.6, 0.8]))
