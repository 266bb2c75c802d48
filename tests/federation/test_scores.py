"""Figures of sets, by definition, by hand, and as the packages that others use have them."""

import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from federation.address import generator
from federation.evaluation import scores
from federation.evaluation.scores import worst_decile


def test_likelihood_metrics_by_definition():
    columns = {
        "nats": np.array([2.0, 10.0]),
        "tokens": np.array([1.0, 5.0]),
        "bytes": np.array([4.0, 20.0]),
    }
    figures = scores.metrics(columns)
    assert figures == pytest.approx(
        {
            "nll": 2.0,
            "nll_per_byte": 0.5,
            "bits_per_byte": 0.5 / math.log(2),
            "perplexity": math.exp(2),
        }
    )
    # A uniform guess among 256 bytes costs eight bits each.
    even = {"nats": np.array([math.log(256) * 3]), "tokens": np.ones(1), "bytes": np.array([3.0])}
    assert scores.metrics(even)["bits_per_byte"] == pytest.approx(8)
    lost = {"nats": np.array([9000.0]), "tokens": np.ones(1), "bytes": np.zeros(1)}
    assert scores.metrics(lost)["perplexity"] == math.inf
    assert math.isnan(scores.metrics(lost)["bits_per_byte"])


def test_the_worst_decile_is_high_in_loss_and_low_in_accuracy():
    values = generator("shuffle").permutation(np.arange(20.0))
    assert worst_decile("nll", values) == 18.5
    assert worst_decile("exact_match", values) == 0.5
    assert worst_decile("choice_accuracy", values[:3]) == values[:3].min()
    assert worst_decile("nll", np.arange(11.0)) == 9.5  # two of eleven
    assert math.isnan(worst_decile("nll", np.array([1.0, math.nan])))


def test_exact_match_ignores_white_space_around_and_nothing_else():
    assert scores.exact_match(" yes\n", "yes") == 1
    assert scores.exact_match("Yes", "yes") == scores.exact_match("y es", "yes") == 0


def test_rouge_l_is_that_of_the_package():
    assert scores.rouge_l("the cat", "The cat sat.") == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))
    pairs = [
        ("a b c d", "b d a c"),
        ("police kill the gunman", "police killed the gunman"),
        ("", "a"),
    ]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for prediction, reference in pairs:
        expected = scorer.score(reference, prediction)["rougeL"].fmeasure
        assert scores.rouge_l(prediction, reference) == pytest.approx(expected, abs=1e-12)
