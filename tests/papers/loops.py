"""The papers' equations as plain loops over named clients, in NumPy and float64.

Nothing here is shared with the implementation: no clients axis, no wrappers, no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Vector = np.ndarray


@dataclass(frozen=True)
class Client:
    """f(w) = 1/2 (w - b)^T H (w - b), held by a client with n examples."""

    H: np.ndarray
    b: Vector
    n: float

    def gradient(self, w: Vector) -> Vector:
        return self.H @ (w - self.b)


@dataclass(frozen=True)
class Story:
    """A federation over some rounds: who takes part with how many local steps, and how."""

    clients: dict[str, Client]
    rounds: list[dict[str, int]]
    start: Vector
    lr: float
    momentum: float = 0.0


def sgd(story: Story, name: str, w: Vector, steps: int, pull: Callable[[Vector], Vector]) -> Vector:
    """Make local steps; ``pull`` is what the algorithm adds to the gradient."""
    velocity = np.zeros_like(w)
    for _ in range(steps):
        g = story.clients[name].gradient(w) + pull(w)
        velocity = story.momentum * velocity + g
        w = w - story.lr * velocity
    return w


def nothing(w: Vector) -> Vector:
    return np.zeros_like(w)


def shares(story: Story, cohort: dict[str, int]) -> dict[str, float]:
    n = sum(story.clients[name].n for name in cohort)
    return {name: story.clients[name].n / n for name in cohort}


def mean_model(
    story: Story, cohort: dict[str, int], w: Vector, pull: Callable[[Vector], Vector] = nothing
) -> Vector:
    """Average the clients' models: the server line of McMahan et al.'s algorithm 1."""
    average = np.zeros_like(w)
    for name, p in shares(story, cohort).items():
        average += p * sgd(story, name, w, cohort[name], pull)
    return average


def fedavg(story: Story) -> Vector:
    w = story.start
    for cohort in story.rounds:
        w = mean_model(story, cohort, w)
    return w


def fedprox(story: Story, mu: float) -> Vector:
    w = story.start
    for cohort in story.rounds:
        sent = w
        w = mean_model(story, cohort, sent, lambda v, sent=sent: mu * (v - sent))
    return w


def fedavgm(story: Story, lr: float, beta: float) -> Vector:
    w, v = story.start, np.zeros_like(story.start)
    for cohort in story.rounds:
        v = beta * v + (mean_model(story, cohort, w) - w)
        w = w + lr * v
    return w


def diloco(story: Story, lr: float, momentum: float) -> Vector:
    """SGD with Nesterov momentum, as torch.optim documents it, on the outer gradient."""
    w, buffer = story.start, np.zeros_like(story.start)
    for cohort in story.rounds:
        outer_gradient = w - mean_model(story, cohort, w)
        buffer = momentum * buffer + outer_gradient
        w = w - lr * (outer_gradient + momentum * buffer)
    return w


def fedopt(story: Story, kind: str, lr: float, beta1: float, beta2: float, tau: float) -> Vector:
    """Reddi et al., algorithm 2: FedAdagrad, FedYogi, FedAdam."""
    x, m, v = story.start, np.zeros_like(story.start), np.full_like(story.start, tau**2)
    for cohort in story.rounds:
        delta = mean_model(story, cohort, x) - x
        m = beta1 * m + (1 - beta1) * delta
        if kind == "adagrad":
            v = v + delta**2
        elif kind == "yogi":
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        elif kind == "adam":
            v = beta2 * v + (1 - beta2) * delta**2
        x = x + lr * m / (np.sqrt(v) + tau)
    return x


def scaffold(story: Story, lr: float) -> tuple[Vector, Vector, dict[str, Vector]]:
    """Karimireddy et al., algorithm 1, option II; returns x, c and every c_i."""
    x, c = story.start, np.zeros_like(story.start)
    c_i = {name: np.zeros_like(c) for name in story.clients}
    N = len(story.clients)
    for cohort in story.rounds:
        dx, dc = np.zeros_like(x), np.zeros_like(c)
        for name, K in cohort.items():
            y = sgd(story, name, x, K, lambda w, own=c_i[name], c=c: c - own)
            c_plus = c_i[name] - c + (x - y) / (K * story.lr)
            dx += (y - x) / len(cohort)
            dc += (c_plus - c_i[name]) / len(cohort)
            c_i[name] = c_plus
        x = x + lr * dx
        c = c + len(cohort) / N * dc
    return x, c, c_i


def fednova(story: Story, mu: float = 0.0) -> Vector:
    """Wang et al., equation 6, with a_i written out gradient by gradient."""
    x = story.start
    for cohort in story.rounds:
        p = shares(story, cohort)
        d, tau_eff = np.zeros_like(x), 0.0
        for name, steps in cohort.items():
            y = sgd(story, name, x, steps, lambda w, x=x: mu * (w - x))
            norm = np.abs(coefficients(steps, story.momentum, story.lr * mu)).sum()
            d += p[name] * (x - y) / (story.lr * norm)
            tau_eff += p[name] * norm
        x = x - tau_eff * story.lr * d
    return x


def coefficients(steps: int, momentum: float, lr_mu: float) -> np.ndarray:
    """The vector a: coefficients of each step's gradient in (x - y) / lr, step by step."""
    velocity, moved = np.zeros(steps), np.zeros(steps)
    for k in range(steps):
        velocity = momentum * velocity - lr_mu * moved
        velocity[k] += 1
        moved = moved + velocity
    return moved


def deltas(story: Story, cohort: dict[str, int], w: Vector) -> list[Vector]:
    return [sgd(story, name, w, steps, nothing) - w for name, steps in cohort.items()]


def robust(story: Story, aggregate: Callable[[list[Vector]], Vector]) -> Vector:
    """Yin et al., algorithm 1, and Blanchard et al., equation 1, with changes for gradients."""
    w = story.start
    for cohort in story.rounds:
        w = w + aggregate(deltas(story, cohort, w))
    return w


def median(vectors: list[Vector]) -> Vector:
    """Yin et al., definition 1: g_k is the (usual, one-dimensional) median of x_k^i."""
    out = np.zeros_like(vectors[0])
    for k in range(len(out)):
        values = sorted(vector[k] for vector in vectors)
        m = len(values)
        out[k] = values[m // 2] if m % 2 else (values[m // 2 - 1] + values[m // 2]) / 2
    return out


def trimmed_mean(vectors: list[Vector], beta: float) -> Vector:
    """Yin et al., definition 2: the largest and smallest beta fraction of x_k^i is removed."""
    m, out = len(vectors), np.zeros_like(vectors[0])
    removed = round(beta * m)
    for k in range(len(out)):
        kept = sorted(vector[k] for vector in vectors)[removed : m - removed]
        out[k] = sum(kept) / ((1 - 2 * beta) * m)
    return out


def krum_scores(vectors: list[Vector], f: int) -> list[float]:
    """Blanchard et al., section 4: s(i) = sum over the n - f - 2 closest of |V_i - V_j|^2."""
    n, scores = len(vectors), []
    for i in range(n):
        away = sorted(float(((vectors[i] - vectors[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(away[: n - f - 2]))
    return scores


def multi_krum(vectors: list[Vector], f: int, m: int) -> Vector:
    """Blanchard et al.: the mean of the m vectors of lowest score; m = 1 is Krum."""
    scores = krum_scores(vectors, f)
    best = sorted(range(len(vectors)), key=scores.__getitem__)[:m]
    return sum(vectors[i] for i in best) / m
