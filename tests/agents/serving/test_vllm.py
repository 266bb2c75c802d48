"""A real vLLM server: adapters of three rounds, decisions by grammar, and a pilot that asks it.

``make test-vllm`` makes an environment for it and runs these tests.
"""

import json
import math
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.experiment import run_experiment
from agents.facts import Observation
from agents.guard import rule_on
from agents.policies.model import Adviser
from agents.proposals import Answer
from agents.serving import opening, records
from agents.serving.health import Known, check, side_by_side
from agents.serving.opening import ServeSpec, Serving, serving
from agents.serving.records import Kept, Served
from benchmarks.pilot.searchers import WITHOUT_MODEL, Asking, Stepwise
from benchmarks.pilot.table import read
from benchmarks.pilot.tune import CELLS, MOST, score
from federation import releases
from federation.config import Config
from federation.runs import journal
from federation.runs.run import Run
from llm_tools import OpenAISpec, ServerError, adapters, chat_model
from tests.agents.histories import history, seen

PYTHON = os.environ.get("FEDPILOT_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1800),  # for all of it on a busy machine; a quiet one takes minutes
    pytest.mark.skipif(
        not PYTHON, reason="FEDPILOT_VLLM_PYTHON names no interpreter with vLLM: make test-vllm"
    ),
]

DECISIONS, TOGETHER = 100, 8
FALLING = [3.0, 2.7, 2.4, 2.1]
KEY = "sk-of-the-test"
CONFIG = {
    "seed": 1,
    "rounds": 3,
    "model": {"base": "nano", "dtype": "float32"},
    "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear"},
    "data": {"examples": 200, "count": 4, "max_tokens": 96},
    "work": {"steps": 3, "batch_size": 4, "lr": 0.02},
    "cohort": {"size": 3},
    "engine": {"threads": 1, "chunk": 3},
    "evaluation": {"every": 3, "max_examples": 16},
}
# nano reads 1,024 tokens; what a pilot shows and may be told takes more, and it writes nonsense
# anyway.
LONGER = 'hf-overrides={"max_position_embeddings": 4096}'
# On a processor a request with a seed ends vLLM 0.32 if its prompt is read in parts.
WHOLE = f"max-num-batched-tokens={4096 * TOGETHER}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Three rounds of nano whose adapters differ."""
    return run_experiment(Config.from_table(CONFIG), folder / "run", cache=folder / "cache")


@pytest.fixture(scope="module")
def served(run: Run):
    """One server for all tests of this file; its key is the environment's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPILOT_API_KEY", KEY)
        spec = ServeSpec.of(start=1500.0, options=(LONGER, WHOLE, f"max-num-seqs={TOGETHER}"))
        began = time.monotonic()
        with serving(run, spec) as found:
            print(f"vLLM answers after {time.monotonic() - began:.0f} s")
            yield found


def test_every_round_is_served_and_repeated_prompts_are_answered_by_it(served: Serving):
    bridge = served.bridge
    assert bridge.most == 0.01
    for round in range(3):
        record = bridge.publish(round)
        assert isinstance(record, Served), record
        assert record.distance < 1e-3
        params = bridge.source.run.state(round)["params"]
        local = releases.next_log_probs(bridge.source, params, bridge.prompts)
        for name in ("fed", f"fed@r{round + 1}"):
            for b, prompt in enumerate(bridge.prompts):
                top = adapters.next_log_probs(bridge.server, name, prompt)
                assert len(top) == adapters.SHOWN
                assert all(math.isclose(local[b][t], p, abs_tol=0.01) for t, p in top.items())
    assert adapters.names(bridge.server) == ["base", "fed@r1", "fed", "fed@r2", "fed@r3"]
    said = side_by_side(bridge.server, "How do I reset my password?\n", max_tokens=24)
    assert said["base"] != said["fed"]


def test_the_rounds_can_be_told_apart(served: Serving):
    bridge = served.bridge
    states = [bridge.source.run.state(round)["params"] for round in range(3)]
    said = [releases.next_log_probs(bridge.source, params, bridge.prompts) for params in states]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (said[one] - said[other]).abs().mean() > 10 * bridge.most


def test_an_adapter_that_is_not_the_rounds_never_becomes_fed(served: Serving, monkeypatch):
    bridge = served.bridge
    before = bridge.publish(1)
    planted = bridge.source.run.state(0)["params"]
    save = releases.save_adapter
    monkeypatch.setattr(releases, "save_adapter", lambda to, _, *rest: save(to, planted, *rest))
    monkeypatch.setattr(bridge, "folder", bridge.folder / "planted")
    record = bridge.publish(2)
    assert isinstance(record, Kept), record
    assert "nats off round 3" in record.reason
    assert record.serving == 1
    params = bridge.source.run.state(1)["params"]
    known = Known("round 2", releases.next_log_probs(bridge.source, params, bridge.prompts))
    assert check(bridge.server, "fed", bridge.prompts, known, [], bridge.most) < 1e-3
    assert isinstance(before, Served)


def test_a_damaged_adapter_file_is_refused_before_it_is_loaded(served: Serving):
    bridge = served.bridge
    record = bridge.publish(0)
    assert isinstance(record, Served)
    bridge.publish(1)
    file = bridge.folder / record.folder / "adapter_model.safetensors"
    whole = file.rename(file.with_name("whole"))  # vLLM has it mapped: its bytes have to stay
    file.write_bytes(whole.read_bytes()[:-4] + b"\0\0\0\0")
    again = bridge.publish(0)
    whole.rename(file)
    assert isinstance(again, Kept)
    assert "is not the adapter it is named after" in again.reason


def test_the_trap_is_there_and_the_check_finds_it(served: Serving, folder: Path):
    """Other files under the same path: vLLM goes on with what it kept for repeated prompts."""
    bridge = served.bridge
    one, other = (releases.release(bridge.source, r, bridge.folder) for r in (0, 2))
    shutil.copytree(one.folder, folder / "same")
    known = [
        Known(x.name, releases.next_log_probs(bridge.source, x.params, bridge.prompts))
        for x in (one, other)
    ]
    adapters.load(bridge.server, "same", folder / "same")
    check(bridge.server, "same", bridge.prompts, known[0], [], bridge.most)
    for file in other.folder.iterdir():
        Path(shutil.copy(file, folder)).replace(folder / "same" / file.name)
    adapters.load(bridge.server, "same", folder / "same", replace=True)
    with pytest.raises(ServerError, match=r"nats off fed@r3"):
        check(bridge.server, "same", bridge.prompts, known[1], [], bridge.most)
    adapters.unload(bridge.server, "same")


def test_back_to_an_earlier_round(served: Serving):
    bridge = served.bridge
    last, back = bridge.publish(2), bridge.publish(0)
    assert isinstance(last, Served)
    assert isinstance(back, Served)
    assert back.distance < 1e-3
    assert bridge.current is not None
    assert bridge.current.round == 0


def test_what_the_turn_in_place_costs(served: Serving):
    """Reported, not judged: under ``fed`` vLLM reads the folder again at every step."""
    bridge = served.bridge
    bridge.publish(0)
    for name in ("fed@r1", "fed", "fed@r1", "fed"):
        began = time.monotonic()
        adapters.continuation(bridge.server, name, "Once upon a time", 64)
        print(f"{name}: {time.monotonic() - began:.2f} s for at most 64 tokens")


def decided(served: Serving, name: str, count: int) -> list[tuple[Observation, dict[str, Any]]]:
    """Ask for decisions, drawn under seeds: one after the loss fell and one after it rose, each."""
    served.bridge.publish(1)
    before = [seen(history(losses)) for losses in (FALLING, FALLING[::-1])]

    def decide(i: int) -> tuple[Observation, Answer]:
        spec = OpenAISpec(
            model=name,
            url=served.bridge.server.url,
            seed=i // 2,
            temperature=1.0,
            max_tokens=1024,
            timeout_s=600,
        )
        observation = before[i % 2]
        return observation, Adviser(chat_model(spec, key=KEY), name, 900.0).decide(observation)

    with ThreadPoolExecutor(TOGETHER) as pool:
        found = list(pool.map(decide, range(count)))
    assert [answer.failure for _, answer in found if answer.proposal is None] == []
    tries = [int(str(answer.trace["attempts"])) for _, answer in found]
    print(f"{count} decisions of {name}: {sum(tries) - count} were asked for again")
    told = [said(answer) for _, answer in found]
    for (observation, answer), own in zip(found, told, strict=True):
        ruling = rule_on(answer, observation)
        assert ruling.verdict == ("abstained" if own["abstain"] else "accepted"), ruling
    return [(observation, own) for (observation, _), own in zip(found, told, strict=True)]


def said(answer: Answer) -> dict[str, Any]:
    """Read what was answered; vLLM's grammar lets tabs and line breaks into texts."""
    return json.loads(str(answer.trace["raw"]), strict=False)


@pytest.fixture(scope="module")
def decisions(served: Serving) -> list[tuple[Observation, dict[str, Any]]]:
    """What the base model decides."""
    return decided(served, "base", DECISIONS)


def within(found: list[tuple[Observation, dict[str, Any]]]) -> bool:
    """Tell whether all values lie within the bounds of their round."""
    return all(
        bound.low <= told[knob] <= bound.high
        for observation, told in found
        for knob, bound in observation.bounds.items()
    )


def test_every_decision_comes_back_within_its_bounds(decisions):
    assert len(decisions) == DECISIONS and within(decisions)
    rates = {told["lr"] for _, told in decisions}
    print(f"{len(rates)} different learning rates among them")
    assert len(rates) >= DECISIONS // 10  # drawn, not recited


def test_a_federated_model_decides_within_bounds_too(served: Serving):
    assert within(decided(served, "fed", DECISIONS // 10))


def test_its_decisions_do_not_depend_on_the_facts(decisions):
    """The null model in this sense, and not in that of an even draw: it leans to low rates."""
    turned = [
        (math.log2(told["lr"] / seen.bounds["lr"].current), told["abstain"])
        for seen, told in decisions
    ]
    fell, rose = np.array(turned[::2], float), np.array(turned[1::2], float)
    apart = np.abs(fell.mean(0) - rose.mean(0))
    error = np.sqrt((fell.var(0, ddof=1) + rose.var(0, ddof=1)) / len(fell))
    print(
        f"after a fall and a rise: log2 of the turn and abstentions {fell.mean(0)}, {rose.mean(0)}"
    )
    assert (apart <= 3 * error).all(), (apart, error)


def test_as_adviser_of_a_search_it_costs_no_more_than_noise(served: Serving):
    """On the benchmark's table of runs, one cell of every scenario."""
    table = read()
    cells = [i for i, (_, seed) in enumerate(CELLS) if seed == 0]
    url = f"{served.bridge.server.url}?temperature=1&seed=0"
    model = chat_model(f"openai:base@{url}", key=KEY)
    hybrid = Stepwise("tpe", partial(Asking, "openai:base@" + url, model))
    advised = score(hybrid, table, cells, 1)
    repeats = score(WITHOUT_MODEL["tpe"], table, cells, 8).curves.mean(axis=2)
    floor = 1.96 * math.sqrt(2 * repeats.var(axis=1, ddof=1).mean() / len(cells))
    cost = float(advised.areas(MOST).mean() - repeats.mean())
    print(
        f"{advised.asked} questions, {advised.abstained} abstentions, {advised.repeated} repeats,"
        f" {advised.overruled} trials overruled; cost {cost:.3f} of at most {floor:.3f}"
    )
    assert (advised.asked, advised.failures) == (len(cells) * (MOST - hybrid.warmup), 0)
    assert cost <= floor


def test_a_pilot_that_asks_it_stays_within_its_trust_region(served: Serving, folder: Path):
    pilot = {
        "policy": "llm",
        "model": f"openai:fed@{served.bridge.server.url}",
        "deadline": 900.0,
        "bounds": {"lr": [0.001, 0.1]},
    }
    config = Config.from_table(CONFIG | {"pilot": pilot, "rounds": 2})
    run = run_experiment(config, folder / "piloted", cache=folder / "cache")
    assert run.status == "finished"
    before = 0.02
    for decision in run.history.decisions.values():
        details: dict[str, Any] = dict(decision.details)
        assert details["asked"] == f"llm:{pilot['model']}@2"
        assert details["trace"]["attempts"] <= 3
        told = json.loads(details["trace"]["raw"], strict=False)
        assert before / 2 <= told["lr"] <= before * 2
        wanted = "abstained" if told["abstain"] else "accepted"
        assert (details["verdict"], decision.source) == (wanted, "llm")
        lr = details["applied"]["lr"]
        assert wanted != "accepted" or lr == pytest.approx(told["lr"])
        assert wanted != "abstained" or lr == before
        before = lr


def test_all_of_it_is_written_down(served: Serving, run: Run):
    path = run.path / records.SERVING
    assert records.problems(run.path) == []
    kinds = [entry.record.kind for entry in journal.read(path / records.JOURNAL)]
    assert kinds[0] == "serving.started"
    assert {"serving.served", "serving.kept"} <= set(kinds)
    everything = b"".join(x.read_bytes() for x in path.rglob("*") if x.is_file())
    assert KEY.encode() not in everything
    assert opening.vllm_python() == PYTHON
