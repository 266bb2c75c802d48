"""What can be otherwise in a round: which changes there are, and which of them need training."""

import math

import pytest

from federation.changes import Change
from federation.config import Config, set_key
from federation.errors import ConfigError


def config(*settings: str) -> Config:
    table: dict = {}
    for one in settings:
        set_key(table, one)
    return Config.from_table(table)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ([], {"scale_lr": 0.5}),
        ([], {"steps": 1}),
        ([], {"algorithm": "fedprox:mu=1.0"}),
        (["upload.clip=0.1"], {"clip": 0.2}),
        (["upload.bits=8"], {"clip": 0.2}),
        (["algorithm.name=scaffold", 'work.optimizer="sgd"'], {"algorithm": "median"}),
    ],
)
def test_what_clients_do_otherwise_is_trained(settings, change):
    assert not Change.of(**change).spares_training(config(*settings))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": ("a",), "reweight": {"a": 2.0}}, "a is dropped and reweighted"),
        ({"clip": 0.0}, "what-if: clip must be a finite number above 0"),
        ({"reweight": {"a": -1.0}}, "what-if: reweight.* above 0"),
        ({"scale_lr": math.nan}, "what-if: scale_lr must be a finite number above 0.*, got nan"),
    ],
)
def test_changes_that_contradict_themselves_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        Change.of(**change)


def test_everybodys_rows_together_are_no_way_to_combine_reports():
    """Taken for what it is built of, it would be judged as FedAvg and told as centralised."""
    with pytest.raises(ConfigError, match="centralised trains one model on everybody's rows"):
        Change(algorithm="centralised").built(config())
    one = config("algorithm.name=centralised", "cohort.size=1")
    assert Change(clip=1.0).built(one).quorum == 1
