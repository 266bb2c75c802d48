"""What a run's models say to a prompt: whose parameters speak, how long, and what is refused."""

import pytest
import torch

from federation import experiment
from federation.answers import Voices, Who
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.run import Run
from tests.tiny_worlds import tiny_world


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    world = tiny_world(tmp_path_factory.mktemp("voices"))
    config = Config.from_toml(world.config, ["work.lr=0.1", "evaluation.baselines=['local']"])
    run = experiment.run_experiment(config, world.folder / "run", cache=world.folder / "cache")
    return Voices.of(run.path)


def test_every_model_speaks_with_its_own_parameters(voices):
    assert voices.params(Who("base")) == (None, None, "")
    params, round, sha256 = voices.params(Who("federated"))
    assert params is not None and round == 2
    assert torch.equal(params, voices.run.state(2)["params"])
    assert sha256 == voices.run.history.rounds[2].checkpoint_sha256
    earlier, round, _ = voices.params(Who("federated", round=1))
    assert round == 1 and earlier is not None and not torch.equal(params, earlier)


def test_each_client_has_a_model_of_its_own(voices):
    alone = {c: voices.params(Who("local", client=c))[0] for c in ("client-0", "client-1")}
    assert not torch.equal(alone["client-0"], alone["client-1"])
    assert all(p is not None and p.abs().sum() > 0 for p in alone.values())


def test_an_answer_is_greedy_and_no_longer_than_wanted(voices):
    who = Who("federated")
    whole = voices.answer(who, "sum 0 and 3", 6, 60.0)
    short = voices.answer(who, "sum 0 and 3", 1, 60.0)
    assert 1 <= whole.tokens <= 6 and short.tokens == 1
    assert voices.answer(who, "sum 0 and 3", 6, 60.0).text == whole.text
    assert whole.text.startswith(short.text)
    assert (whole.round, bool(whole.sha256), whole.seconds > 0) == (2, True, True)
    base = voices.answer(Who("base"), "sum 0 and 3", 6, 60.0)
    assert (base.round, base.sha256) == (None, "")
    assert base.text != whole.text  # trained hard enough to speak otherwise


def test_examples_are_of_the_runs_own_test_set(voices):
    found = voices.examples(3, voices.run.path.parent / "cache")
    assert 1 <= len(found) <= 3
    for prompt, wanted in found:
        first, last = (int(word) for word in prompt.split()[1::2])
        assert int(wanted) == first + last


@pytest.mark.parametrize(
    ("who", "says"),
    [
        (Who("centralised"), "no baseline 'centralised'"),
        (Who("local", client="nobody"), "no client 'nobody' trained alone"),
        (Who("federated", round=9), "no checkpoint of round 10"),
    ],
)
def test_models_that_are_not_there_are_refused_in_a_line(voices, who, says):
    with pytest.raises(ConfigError, match=says) as caught:
        voices.answer(who, "sum", 2, 60.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(voices, prompt):
    with pytest.raises(ConfigError, match="prompt is empty"):
        voices.answer(Who("base"), prompt, 2, 60.0)


def test_a_run_without_a_round_is_waited_for(voices, tmp_path):
    from federation.answers import newest
    from tests.ui.web.recorded import record

    with pytest.raises(ConfigError, match="wait for its first round"):
        newest(Run.open(record(tmp_path / "new", done=0, end=None)), None)
