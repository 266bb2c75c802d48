"""What travels: norms, noise, memory of what was not sent, expectations, and bytes."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.address import generator
from federation.algorithms import catalogue, packing, transforms
from federation.algorithms.algorithm import Algorithm, run_round, uniform_mean
from federation.algorithms.catalogue import fedavg, fednova, local, scaffold
from federation.errors import ConfigError
from federation.plan import RoundPlan
from federation.specs import LocalWork
from federation.tree import Tree, nbytes, rows
from tests.laws.toy_world import SECRET, toy_world

WORK = LocalWork(optimizer="sgd", lr=0.1, steps=3)


def plan(clients: int, round: int = 0, seed: int = 0) -> RoundPlan:
    names = tuple(f"client-{c}" for c in range(clients))
    return RoundPlan(round, clients, names, WORK, seed)


def sent_of(algorithm: Algorithm, size: int) -> Tree:
    return algorithm.sent(algorithm.init(torch.zeros(size)))


def report(
    algorithm: Algorithm, delta_C: torch.Tensor, kept_C: Tree | None = None, round: int = 0
) -> tuple[Tree, Tree]:
    """Let clients report deltas that local work would have left."""
    clients, size = delta_C.shape
    if kept_C is None:
        fresh = algorithm.memory(torch.zeros(size, dtype=delta_C.dtype))
        kept_C = {group: x.expand(clients, -1) for group, x in fresh.items()}
    return algorithm.report(delta_C, sent_of(algorithm, size), kept_C, plan(clients, round))


def deltas(clients: int, size: int, name: str = "delta") -> torch.Tensor:
    return torch.from_numpy(generator(name).standard_normal((clients, size), "float32"))


def combined(algorithm: Algorithm, delta_C: torch.Tensor, round: int = 0) -> torch.Tensor:
    report_C, _ = report(algorithm, delta_C, round=round)
    weight_C = torch.ones(len(delta_C), dtype=torch.float64)
    return algorithm.combine(report_C, weight_C)["delta"]


# ---------------------------------------------------------------- clip


@settings(deadline=None)
@given(st.floats(-100, 100), st.floats(1e-3, 1e3))
def test_clip_bounds_the_norm_and_keeps_the_direction(exponent, max_norm):
    delta_C = deltas(3, 11).double() * 10.0**exponent
    clipped_C = report(transforms.clip_updates(fedavg(), max_norm), delta_C)[0]["delta"]
    norm_C, before_C = clipped_C.norm(dim=1), delta_C.norm(dim=1)
    assert (norm_C <= max_norm * (1 + 1e-6)).all()
    torch.testing.assert_close(norm_C, before_C.clamp(max=max_norm))
    along_C = torch.cosine_similarity(clipped_C / norm_C[:, None], delta_C / before_C[:, None])
    torch.testing.assert_close(along_C, torch.ones(3).double())


def test_clip_keeps_zero_zero_and_what_is_not_finite_not_finite():
    bad = [[math.nan, 1.0], [math.inf, 1.0], [3e38, 3e38], [0.0, 0.0], [3.0, 4.0]]
    clip = transforms.clip_updates(fedavg(), 1.0)
    clipped_C = report(clip, torch.tensor(bad))[0]["delta"]
    assert clipped_C.isfinite().all(dim=1).tolist() == [False, False, True, True, True]
    torch.testing.assert_close(clipped_C[2:].norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, math.inf])
def test_clip_refuses_norms_that_bound_nothing(max_norm):
    with pytest.raises(ConfigError, match="max_norm must be positive and finite"):
        transforms.clip_updates(fedavg(), max_norm)


# ---------------------------------------------------------------- noise


def noised(multiplier: float = 0.5, max_norm: float = 2.0, cohort: float = 4.0) -> Algorithm:
    return transforms.add_noise(fedavg(), max_norm, multiplier, cohort, SECRET)


def bounds_every_client() -> None:
    """One client more or less moves the sum by at most the norm, whatever it sends."""
    for scale in (1e-30, 1.0, 1e30):
        algorithm, delta_C = noised(max_norm=2.0, cohort=4.0), deltas(5, 9) * scale
        weight_C = torch.tensor([1.0, 1.0, 1.0, 1.0, 1000.0])
        with_all = algorithm.combine({"delta": delta_C}, weight_C)["delta"] * 4
        without = algorithm.combine({"delta": delta_C[:4]}, weight_C[:4])["delta"] * 4
        assert (with_all - without).norm() <= 2.0 * (1 + 1e-6)


def test_one_client_moves_the_sum_by_at_most_the_norm():
    bounds_every_client()


def noise_has_its_size() -> None:
    """Noise has standard deviation multiplier * norm on the sum; other rounds draw other noise."""
    size = 40_000
    algorithm, state = noised(0.5, 2.0, 4.0), {"params": torch.zeros(size)}
    one, two = (
        algorithm.step(state, {"delta": torch.zeros(size)}, plan(3, round))["params"] * 4
        for round in (0, 1)
    )
    assert abs(float(one.std()) - 1.0) < 0.015
    assert abs(float(one.mean())) < 0.02
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.02


def test_noise_has_its_size_and_is_new_every_round():
    noise_has_its_size()


def test_noise_depends_on_the_secret_and_not_on_the_run_seed():
    state, zero = {"params": torch.zeros(8)}, {"delta": torch.zeros(8)}
    drawn = noised().step(state, zero, plan(3, seed=1))["params"]
    assert torch.equal(drawn, noised().step(state, zero, plan(3, seed=2))["params"])
    other = transforms.add_noise(fedavg(), 2.0, 0.5, 4.0, "another key of the server")
    assert not torch.equal(drawn, other.step(state, zero, plan(3, seed=1))["params"])


def fixed_denominator() -> None:
    """Without noise and with a wide norm this is the plain mean over the expected cohort."""
    algorithm = noised(multiplier=0.0, max_norm=1e6, cohort=4.0)
    for clients in (4, 3):  # one did not report: the denominator stays
        delta_C = deltas(clients, 9)
        torch.testing.assert_close(combined(algorithm, delta_C), delta_C.sum(dim=0) / 4)


def test_the_denominator_is_the_expected_cohort():
    fixed_denominator()


def test_quiet_and_wide_noise_is_uniform_fedavg():
    world = toy_world()
    quiet = transforms.add_noise(fedavg(), 1e6, 0.0, 5.0, SECRET)
    uniform = replace(fedavg(), combine=uniform_mean)
    got, wanted = (
        run_round(a, world.build(a, 0), a.init(world.params), world.plan(0, world.clients))[0]
        for a in (quiet, uniform)
    )
    torch.testing.assert_close(got["params"], wanted["params"], rtol=0, atol=1e-12)


def test_noise_refuses_what_it_cannot_protect():
    with pytest.raises(ConfigError, match="at least 16 characters"):
        transforms.add_noise(fedavg(), 1.0, 1.0, 4.0, "short")
    with pytest.raises(ConfigError, match="multiplier must be finite"):
        transforms.add_noise(fedavg(), 1.0, math.nan, 4.0, SECRET)
    with pytest.raises(ConfigError, match="expected_cohort must be positive"):
        transforms.add_noise(fedavg(), 1.0, 1.0, 0.0, SECRET)
    for unprotected in (scaffold(), fednova(), transforms.top_k(fedavg(), 0.5)):
        with pytest.raises(ConfigError, match="reports one 'delta' a client"):
            report(transforms.add_noise(unprotected, 1.0, 1.0, 4.0, SECRET), deltas(2, 4))


# ---------------------------------------------------------------- top-k


def nothing_is_lost() -> None:
    """What was sent over the rounds plus what waits is what local work did."""
    algorithm, kept_C = transforms.top_k(fedavg(), 0.25), None
    arrived_C, worked_C = torch.zeros(3, 10), torch.zeros(3, 10)
    for round in range(6):
        delta_C = deltas(3, 10, f"round {round}")
        report_C, kept_C = report(algorithm, delta_C, kept_C, round)
        arrived_C, worked_C = arrived_C + transforms.densify(report_C), worked_C + delta_C
        torch.testing.assert_close(arrived_C + kept_C["residual"], worked_C)
    assert (arrived_C != 0).sum() > 3 * 3  # not always the same places


def test_what_is_not_sent_waits():
    nothing_is_lost()


def test_top_k_sends_the_largest():
    delta_C = torch.tensor([[0.1, -5.0, 2.0, 0.0, -3.0], [1.0, 0.0, 0.0, 0.0, 0.5]])
    report_C, kept_C = report(transforms.top_k(fedavg(), 0.4), delta_C)
    wanted_C = torch.tensor([[0.0, -5.0, 0.0, 0.0, -3.0], [1.0, 0.0, 0.0, 0.0, 0.5]])
    assert torch.equal(transforms.densify(report_C), wanted_C)
    assert torch.equal(kept_C["residual"], delta_C - wanted_C)


def test_top_k_of_everything_is_the_algorithm_itself():
    delta_C = deltas(3, 10)
    whole = combined(transforms.top_k(fedavg(), 1.0), delta_C)
    assert torch.equal(whole, combined(fedavg(), delta_C))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan])
def test_top_k_refuses_other_fractions(fraction):
    with pytest.raises(ConfigError, match=r"fraction must be in \(0, 1\]"):
        transforms.top_k(fedavg(), fraction)


def test_wrong_nesting_is_refused_with_the_right_one():
    with pytest.raises(ConfigError, match=r"quantize\(top_k\(...\)\)"):
        report(transforms.top_k(transforms.quantize(fedavg(), 8), 0.5), deltas(2, 4))
    with pytest.raises(ConfigError, match="quantize once"):
        report(transforms.quantize(transforms.quantize(fedavg(), 8), 8), deltas(2, 4))


def test_an_algorithm_that_reports_nothing_sends_nothing():
    silent = transforms.quantize(transforms.top_k(local(), 0.5), 8)
    report_C, kept_C = report(silent, deltas(2, 4))
    assert nbytes(report_C) == 0
    assert kept_C.keys() == {"own", "residual"}


# ---------------------------------------------------------------- quantisation


def rounding_is_unbiased(bits: int) -> None:
    """The mean over many rounds is the value itself, within five standard errors."""
    trials, delta_C = 1000, deltas(1, 300) * torch.logspace(-3, 2, 300)
    algorithm = transforms.quantize(fedavg(), bits)
    mean = sum(combined(algorithm, delta_C, round).double() for round in range(trials)) / trials
    levels = packing.LEVELS[bits]
    largest = [delta_C[0, :256].abs().max(), delta_C[0, 256:].abs().max()]
    step = torch.cat([largest[0].expand(256), largest[1].expand(44)]) / levels
    assert ((mean - delta_C[0]).abs() < 5 * step / 2 / math.sqrt(trials)).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_unbiased(bits):
    rounding_is_unbiased(bits)


def stays_within_a_step(bits: int, size: int) -> None:
    """No value moves by a step of its block or more, and block maxima and zeros are exact."""
    delta_C = deltas(2, size).double()
    delta_C[1] = 0
    algorithm = transforms.quantize(fedavg(), bits)
    codes_C = report(algorithm, delta_C)[0]
    got_C = packing.unpack_blocks(codes_C["delta.codes"], codes_C["delta.scale"], bits).double()
    assert got_C.shape == delta_C.shape
    for block in range(0, size, packing.BLOCK):
        wanted, got = (x_C[0, block : block + packing.BLOCK] for x_C in (delta_C, got_C))
        step = wanted.abs().max() / packing.LEVELS[bits]
        assert (got - wanted).abs().max() <= step * (1 + 1e-6)
        top = wanted.abs().argmax()
        torch.testing.assert_close(got[top], wanted[top], rtol=1e-6, atol=0)
    assert not got_C[1].any()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [1, 2, 7, 255, 256, 257, 513])
def test_values_stay_within_a_step(bits, size):
    stays_within_a_step(bits, size)


@pytest.mark.parametrize("bits", [8, 4])
def test_only_the_row_that_is_not_finite_is_not_finite(bits):
    delta_C = torch.tensor([[1.0, math.nan, 2.0], [math.inf, 1.0, 0.0], [1.0, 2.0, 3.0]])
    wrapped = transforms.quantize(transforms.top_k(fedavg(), 0.5), bits)
    report_C, _ = report(wrapped, delta_C)
    assert report_C["delta.value.scale"].isfinite().tolist() == [[False], [False], [True]]


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_keep_their_range_at_the_ends_of_the_random_numbers(bits, uniform):
    for beyond, step in ((0.0, 0.0), (2**-30, 1.001 / packing.LEVELS[bits])):
        # Beyond one by less than float32 can tell: the scale has to be rounded upwards.
        x_C = torch.tensor([[1 + beyond, -1 - beyond, 0.0]], dtype=torch.float64)
        codes_C, scale_C = packing.pack_blocks(x_C, torch.full((1, 3), uniform), bits)
        got_C = packing.unpack_blocks(codes_C, scale_C, bits).double()
        torch.testing.assert_close(got_C, x_C, rtol=0, atol=step)
        assert got_C.abs().max() <= scale_C


def test_other_clients_rounds_and_seeds_round_otherwise():
    x_C = deltas(1, 50).expand(2, -1)
    drawn = [transforms.dither(x_C, plan(2, r, s), "delta") for r, s in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(row.tolist()) for two in drawn for row in two}) == 6


@pytest.mark.parametrize("bits", [1, 16, 8.5])
def test_other_widths_are_refused(bits):
    with pytest.raises(ConfigError, match="bits must be 4 or 8"):
        transforms.quantize(fedavg(), bits)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("size", [1000, 1001])
@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (lambda: fedavg(), lambda P: 4 * P),
        (lambda: transforms.clip_updates(fedavg(), 1.0), lambda P: 4 * P),
        (lambda: scaffold(), lambda P: 8 * P),
        (lambda: fednova(), lambda P: 4 * P + 4),
        (lambda: local(), lambda P: 0),
        (lambda: transforms.quantize(fedavg(), 8), lambda P: P + 4 * -(-P // 256)),
        (lambda: transforms.quantize(fedavg(), 4), lambda P: -(-P // 2) + 4 * -(-P // 256)),
        (lambda: transforms.top_k(fedavg(), 0.1), lambda P: 4 + 8 * -(-P // 10)),
        (lambda: transforms.top_k(scaffold(), 0.1), lambda P: 4 * P + 4 + 8 * -(-P // 10)),
        (
            lambda: transforms.quantize(transforms.top_k(fedavg(), 0.1), 8),
            lambda P: 4 + (4 + 1) * -(-P // 10) + 4,
        ),
        (
            lambda: transforms.quantize(scaffold(), 8),
            lambda P: 2 * (P + 4 * -(-P // 256)),
        ),
    ],
)
def test_uploaded_bytes_follow_their_formula(make, formula, size):
    """The report is what travels; every client's row of it costs the same."""
    report_C, _ = report(make(), deltas(3, size))
    assert [nbytes(rows(report_C, [c])) for c in range(3)] == [formula(size)] * 3


def test_downloaded_bytes_are_those_of_the_sent_groups():
    assert nbytes(sent_of(fedavg(), 1000)) == 4000
    assert nbytes(sent_of(scaffold(), 1000)) == 8000
    assert nbytes(sent_of(catalogue.fedadam(), 1000)) == 4000
