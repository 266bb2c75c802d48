"""The local engine obeys the laws, whatever shares a pass and whatever the algorithm."""

import pytest

from federation.algorithms.catalogue import fedavg, local, scaffold
from federation.specs import LocalWork
from federation.training import base
from tests.laws import engine_laws, laws
from tests.laws.toy_world import CASES

KEPT = {"keep_optimizer": True}
WORKS = {"adamw": engine_laws.ADAMW, "sgd": engine_laws.SGD}
KEPT_WORKS = {name: work.model_copy(update=KEPT) for name, work in WORKS.items()}
PLAIN_SGD = engine_laws.SGD_WITHOUT_MOMENTUM

every_chunk = pytest.mark.parametrize("chunk", engine_laws.CHUNKS)
every_stack = pytest.mark.parametrize("chunk", [chunk for chunk in engine_laws.CHUNKS if chunk > 1])
every_work = pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
every_kept_work = pytest.mark.parametrize("work", KEPT_WORKS.values(), ids=KEPT_WORKS)
every_law = pytest.mark.parametrize("law", laws.ALWAYS, ids=lambda law: law.__name__)


@every_law
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_law_in_stacks_of_two(case, law) -> None:
    law(engine_laws.engine_world(), case.make(), 2)


@every_law
@pytest.mark.parametrize("chunk", [0, 1], ids=["all in one pass", "one by one"])
@pytest.mark.parametrize("algorithm", [fedavg, scaffold, local])
def test_law_in_every_grouping(algorithm, chunk: int, law) -> None:
    law(engine_laws.engine_world(), algorithm(), chunk)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.still])
def test_null_round_changes_nothing(name: str) -> None:
    laws.null_round_changes_nothing(engine_laws.engine_world(), CASES[name].make(), 2)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.plain])
def test_one_client_is_plain_training(name: str) -> None:
    laws.one_client_is_plain_training(engine_laws.engine_world(), CASES[name].make(), 2)


@every_kept_work
@every_chunk
@pytest.mark.parametrize("mu", [0.0, engine_laws.MU])
def test_rounds_of_one_client_are_plain_training(mu: float, work: LocalWork, chunk: int) -> None:
    engine_laws.rounds_of_one_client_are_plain_training(mu, work, chunk)


@pytest.mark.parametrize("work", [*WORKS.values(), PLAIN_SGD], ids=[*WORKS, "unclipped sgd"])
@every_chunk
def test_every_client_of_a_cohort_is_plain_training(work: LocalWork, chunk: int) -> None:
    engine_laws.cohort_is_plain_training(work, chunk)


@every_work
def test_full_parameters_are_plain_training(work: LocalWork) -> None:
    engine_laws.full_parameters_are_plain_training(work)


@every_kept_work
@every_stack
def test_batched_is_sequential(work: LocalWork, chunk: int) -> None:
    engine_laws.batched_is_sequential(fedavg(), work, chunk)


@every_work
@every_chunk
def test_idle_clients_change_nothing(work: LocalWork, chunk: int) -> None:
    engine_laws.idle_clients_change_nothing(fedavg(), work, chunk)


@every_work
@every_chunk
def test_clones_are_one(work: LocalWork, chunk: int) -> None:
    engine_laws.clones_are_one(fedavg(), work, chunk)


@every_kept_work
@every_chunk
def test_moments_have_an_owner(work: LocalWork, chunk: int) -> None:
    engine_laws.memory_has_an_owner(fedavg(), work, chunk)


@every_chunk
@pytest.mark.parametrize("algorithm", [scaffold, local])
def test_memory_has_an_owner(algorithm, chunk: int) -> None:
    engine_laws.memory_has_an_owner(algorithm(), PLAIN_SGD, chunk)


@every_kept_work
@every_chunk
def test_base_is_frozen(work: LocalWork, chunk: int) -> None:
    engine_laws.base_is_frozen(fedavg(), work, chunk)


@every_kept_work
@every_chunk
def test_any_round_can_be_replayed_alone(work: LocalWork, chunk: int) -> None:
    engine_laws.any_round_can_be_replayed_alone(fedavg(), work, chunk)


@pytest.mark.parametrize("multiple", [3, 16])
def test_rows_that_belong_to_nobody_change_nothing(
    multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 there are such; laws are exact in float64 alone."""
    monkeypatch.setattr(base, "multiple_for", lambda dtype: multiple)
    work, chunk = KEPT_WORKS["sgd"], len(engine_laws.CLIENTS)
    engine_laws.cohort_is_plain_training(PLAIN_SGD, chunk)
    engine_laws.batched_is_sequential(fedavg(), work, chunk)
    engine_laws.idle_clients_change_nothing(fedavg(), work, chunk)
    engine_laws.any_round_can_be_replayed_alone(fedavg(), work, chunk)
