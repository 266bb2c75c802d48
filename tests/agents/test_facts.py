"""What a pilot is told, and what it is never told."""

import math

from agents import facts
from federation.runs.records import RoundRecord
from tests.agents.histories import CLIENTS, history, seen, validated


def test_facts_are_the_figures_of_the_record():
    observation = seen(history([3.0, 2.5]))
    values = {fact.id: fact.value for fact in observation.facts}
    assert values["loss@0"] == 3.0
    assert values["loss@1"] == 2.5
    assert values["lr@1"] == 0.01
    assert values["cohort_size@1"] == 3
    assert observation.series("loss") == {0: 3.0, 1: 2.5}
    assert (observation.round, observation.rounds_left) == (2, 5)
    assert observation.sources == {"heuristic": 2}


def test_no_name_of_a_client_is_in_what_is_seen():
    text = seen(history([3.0, 2.5])).model_dump_json()
    assert not [client for client in CLIENTS if client in text]


def test_figures_of_too_few_clients_are_left_out():
    few = history([3.0], clients=("only",))
    names = {fact.name for fact in seen(few).facts}
    assert {"loss", "update_norm", "diverged"}.isdisjoint(names)
    assert "reported" in names


def test_the_test_set_never_steers():
    found = history([3.0])
    validated(found, 0, 2.0, split="test")
    assert "validation_loss" not in {fact.name for fact in seen(found).facts}
    validated(found, 0, 2.1)
    assert seen(found).series("validation_loss") == {0: 2.1}


def test_a_client_without_a_step_has_no_loss_and_one_that_diverged_is_counted():
    found = history([3.0, 2.0])
    idle_and_busy = RoundRecord(
        round=1,
        clients=CLIENTS,
        loss=dict(zip(CLIENTS, (2.0, math.nan, 4.0), strict=True)),
        missing={"ward-d": "diverged: its update is not finite", "ward-e": "late"},
    )
    found.add(idle_and_busy)
    observation = seen(found, round=2)
    assert observation.series("loss")[1] == 3.0
    assert observation.series("diverged") == {0: 0.0, 1: 1.0}


def test_the_hash_tells_observations_apart_and_is_the_same_when_made_again():
    assert seen(history([3.0, 2.5])).sha256 == seen(history([3.0, 2.5])).sha256
    assert seen(history([3.0, 2.5])).sha256 != seen(history([3.0, 2.51])).sha256


def test_what_comes_after_a_round_is_not_seen_before_it():
    early = seen(history([3.0]), round=1, rounds=9)
    late = seen(history([3.0, 2.0, 1.0]), round=1, rounds=9)
    assert early == late


def test_facts_of_a_round_are_made_once_and_observations_are_the_same(monkeypatch):
    made, told = [], {}
    real = facts.facts_of_round

    def counted(record, *others):
        made.append(record.round)
        return real(record, *others)

    found = history([3.0, 2.5, math.nan, 2.0, 1.5])
    validated(found, 1, 2.75)
    plain = [seen(found, round=n) for n in range(1, 6)]
    monkeypatch.setattr(facts, "facts_of_round", counted)
    assert [seen(found, round=n, told=told) for n in range(1, 6)] == plain
    assert made == [0, 1, 2, 3, 4]
    for observation in plain:  # before and after their texts were put together
        assert observation.sha256 == facts.digest(observation.model_dump(mode="json"))
