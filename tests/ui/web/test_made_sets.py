"""Made-up sets: what is asked for, how each stands, what its card says, what the gate is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.synthesis.profile import Profile
from agents.synthesis.publish import publish
from federation.config import Config
from federation.errors import ConfigError
from federation.runs import storage
from ui.web import jobs, made_sets, new_data
from ui.web.card_figures import GROUPS, figures, kept, refusals
from ui.web.charts.gate import gate_chart, gate_frame
from ui.web.draft import judged
from ui.web.made_sets import CLIENT, GLOBAL, Order

TABLE = {"clients": {"a": {"domain": "bank", "size": 12}, "b": {"domain": "shop", "size": 6}}}
GATE = {
    "admitted": True, "metric": "nll", "seeds": [0, 1, 2], "without": [2.0, 2.1, None],
    "having": [1.5, 1.6, None], "gain": 0.5, "low": 0.1, "high": 0.9, "confidence": 0.95,
}  # fmt: skip


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Make a small set for real."""
    folder = tmp_path_factory.mktemp("made")
    real = folder / "real.txt"
    real.write_text("a very private sentence\n" * 3)
    found = publish(
        Profile.from_table(TABLE), folder / "set.jsonl", seed=0, cache=folder, private=[real]
    )
    return json.loads(json.dumps(found | {"rows_text": (folder / "set.jsonl").read_text()}))


def begun(runs: Path, card: dict[str, Any]) -> made_sets.MadeSet:
    """Begin a set, and put in its place what its job would have made."""
    job = made_sets.begin(runs, "one", TABLE, Order(seed=3))
    folder = runs / ".data" / "one"
    (folder / "set.jsonl").write_text(card["rows_text"])
    (folder / "set.card.json").write_text(json.dumps(card))
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 0}')
    return made_sets.read(runs, "one")


def test_what_is_asked_for_adds_up():
    asked = made_sets.asked_for(TABLE, Order())
    assert [(c["client"], c["examples"]) for c in asked] == [("a", 12), ("b", 6)]


@pytest.mark.parametrize(
    ("change", "order", "words"),
    [
        ({"clients": {}}, Order(), "clients"),
        ({"clients": {"a": {"domain": "moon", "size": 3}}}, Order(), "moon"),
        ({"clients": {"a": {"domain": "bank", "size": 0}}}, Order(), "size"),
        ({"votes": {"epsilon": 1.0}}, Order(), "private"),
        ({"language": "German"}, Order(), "English"),
        ({}, Order(model="openai:x@http://127.0.0.1:1/v1"), "labels"),
    ],
)
def test_a_profile_that_cannot_be_made_is_refused_in_a_line(change, order, words):
    with pytest.raises(ConfigError, match=words) as caught:
        made_sets.asked_for({**TABLE, **change}, order)
    assert "\n" not in str(caught.value)


def test_every_key_of_a_profile_has_a_control():
    keys = {c.key for c in (*GLOBAL, *CLIENT)}
    assert {"language", "votes.epsilon", "gate.metric", "domain", "labels", "length"} <= keys
    assert all(c.meaning for c in (*GLOBAL, *CLIENT))


def test_a_set_is_begun_once_and_stands_where_it_stands(tmp_path, started, card):
    made = begun(tmp_path, card)
    assert (made.status, made.card["rows"]) == ("made", 18)
    assert len(made_sets.rows_of(made)) == 18 and made_sets.rows_of(made, 2)[0]["client"] == "a"
    assert made_sets.names(tmp_path) == ["one"]
    with pytest.raises(ConfigError, match="already"):
        made_sets.begin(tmp_path, "one", TABLE, Order())
    with pytest.raises(ConfigError, match="name"):
        made_sets.begin(tmp_path, "../x", TABLE, Order())
    with pytest.raises(ConfigError, match="no set"):
        made_sets.read(tmp_path, "two")


def test_a_set_that_failed_says_why(tmp_path, started):
    job = made_sets.begin(tmp_path, "one", TABLE, Order())
    assert made_sets.read(tmp_path, "one").status == "making"
    (job.folder / jobs.LOG).write_text("fedpilot: there was no room\n")
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 2}')
    made = made_sets.read(tmp_path, "one")
    assert (made.status, made.said) == ("failed", "there was no room")


def test_the_gate_gets_the_same_rows_and_has_the_last_word(tmp_path, started, card):
    made = begun(tmp_path, card)
    job = made_sets.judge(tmp_path, made, made_sets.demo_gate("exact_match"))
    assert str(made.folder / "gated.jsonl") in job.args and job.args[5] == "3"
    gate = Config.from_toml(job.args[job.args.index("--gate") + 1])
    assert gate.rounds == 3 and not gate.pilot and "exact_match" in gate.evaluation.metrics
    assert made_sets.read(tmp_path, "one").status == "judging"
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 0}')
    (made.folder / "gated.card.json").write_text(json.dumps(card | {"gate": GATE}))
    (made.folder / "gated.jsonl").write_text(card["rows_text"])
    now = made_sets.read(tmp_path, "one")
    assert now.status == "admitted" and now.rows == made.folder / "gated.jsonl"
    (made.folder / "gated.jsonl").rename(made.folder / "gated.rejected.jsonl")
    rejected = {**GATE, "admitted": False}
    (made.folder / "gated.card.json").write_text(json.dumps(card | {"gate": rejected}))
    assert made_sets.read(tmp_path, "one").status == "rejected"


def test_what_is_there_counts_though_its_process_has_not_ended(tmp_path, started, card):
    made_sets.begin(tmp_path, "one", TABLE, Order())
    folder = tmp_path / ".data" / "one"
    (folder / "set.jsonl").write_text(card["rows_text"])
    (folder / "set.card.json").write_text(json.dumps(card))
    made = made_sets.read(tmp_path, "one")
    assert made.status == "made"
    made_sets.judge(tmp_path, made, made_sets.demo_gate("exact_match"))
    assert made_sets.read(tmp_path, "one").status == "judging"
    (folder / "gated.jsonl").write_text(card["rows_text"])
    (folder / "gated.card.json").write_text(json.dumps(card | {"gate": GATE}))
    assert made_sets.read(tmp_path, "one").status == "admitted"


def test_a_gate_that_was_stopped_can_be_asked_again(tmp_path, started, card):
    made = begun(tmp_path, card)
    job = made_sets.judge(tmp_path, made, made_sets.demo_gate("nll"))
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 130}')
    (made.folder / "gated.rejected.jsonl").write_text("half")
    now = made_sets.read(tmp_path, "one")
    assert now.status == "made" and now.rows == made.folder / "set.jsonl"
    again = made_sets.judge(tmp_path, now, made_sets.demo_gate("nll"))
    assert again.args.count("--gate") == 1
    assert not (made.folder / "gated.rejected.jsonl").exists()


def test_a_set_can_be_asked_of_the_gate_again_and_every_verdict_stays(tmp_path, started, card):
    made = begun(tmp_path, card)
    for n, admitted in ((1, False), (2, True)):
        gate = {**GATE, "admitted": admitted, "gain": float(n)}
        spec = {"seeds": 2 + n, "metric": "exact_match"}
        job = made_sets.judge(tmp_path, made, made_sets.demo_gate("exact_match"), spec)
        out = Path(job.args[job.args.index("--out") + 1])
        profile = Profile.from_toml(Path(job.args[1]))
        assert (profile.gate.seeds, profile.gate.metric) == (2 + n, "exact_match")
        assert job.args.count("--gate") == 1 and not out.exists()
        assert made_sets.read(tmp_path, "one").status == "judging"
        out.with_suffix(".card.json").write_text(json.dumps(card | {"gate": gate}))
        rows = out if admitted else out.with_suffix(".rejected.jsonl")
        rows.write_text(card["rows_text"])
        (job.folder / jobs.LOG).write_text("fedpilot: the gate did not admit the set\n")
        storage.atomic_write(
            job.folder / jobs.ENDED, b'{"code": 0}' if admitted else b'{"code": 3}'
        )
        made = made_sets.read(tmp_path, "one")
        assert made.status == ("admitted" if admitted else "rejected")
        assert made.rows == rows and made.card["gate"]["gain"] == n and not made.said
    assert [gate["gain"] for gate in made.earlier] == [1.0]
    assert Profile.from_toml(made.folder / "profile.toml").gate.seeds == 3  # as it was asked for


def test_a_gate_that_fails_later_takes_no_verdict_back(tmp_path, started, card):
    made = begun(tmp_path, card)
    (made.folder / "gated.card.json").write_text(json.dumps(card | {"gate": GATE}))
    (made.folder / "gated.jsonl").write_text(card["rows_text"])
    job = made_sets.judge(tmp_path, made, made_sets.demo_gate("nll"))
    (job.folder / jobs.LOG).write_text("fedpilot: there was no room\n")
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 2}')
    now = made_sets.read(tmp_path, "one")
    assert (now.status, now.said) == ("admitted", "there was no room")
    assert now.rows == made.folder / "gated.jsonl"


def test_a_set_alone_is_an_experiment(tmp_path, started, card):
    made = begun(tmp_path, card)
    config = judged(made_sets.alone(made))
    assert (config.data.source, config.data.extra) == (str(made.rows), None)


REAL = {
    "rounds": 3, "pilot": {"policy": "heuristic", "synthetic": {}},
    "data": {
        "source": "mine.jsonl", "prompt": "{question} {note}", "response": "{answer}",
        "clients": {"by": "key", "key": "site", "label": "label"},
    },
}  # fmt: skip


def test_beside_real_data_the_experiment_stays_what_it_is(tmp_path, started, card):
    made = begun(tmp_path, card)
    config = judged(made_sets.beside(made, REAL))
    assert (config.rounds, config.data.source) == (3, "mine.jsonl")
    assert config.data.extra == str(made.rows) and "synthetic" not in config.pilot
    assert config.data.extra_fields == {
        "question": "instruction", "note": "context", "answer": "response", "site": "client",
    }  # fmt: skip
    assert "synthetic" in REAL["pilot"]  # what was given is not changed
    new_data.check_extra(config.data)
    built_in = made_sets.beside(made, {"data": {"source": "organisations"}})
    assert "extra_fields" not in built_in["data"]


def test_extra_rows_without_a_field_or_without_an_owner_are_refused(tmp_path, started, card):
    made = begun(tmp_path, card)
    table = made_sets.beside(made, REAL)
    table["data"]["extra_fields"] = {"question": "nothing of the kind"}
    with pytest.raises(ConfigError, match=r"data\.extra: .*'question'"):
        new_data.check_extra(judged(table).data)
    with pytest.raises(ConfigError, match="only clients by key"):
        judged({**table, "data": {**table["data"], "clients": {"by": "iid"}}})


def test_a_run_on_other_fields_can_judge_a_set(tmp_path, started, card):
    made = begun(tmp_path, card)
    gate = made_sets.gate_of(REAL, "nll")
    assert gate["data"]["extra_fields"]["site"] == "client" and "extra" not in gate["data"]
    made_sets.judge(tmp_path, made, gate)


def test_every_figure_of_a_card_has_a_meaning(card):
    assert card["diversity"] and card["leakage"]
    for group in GROUPS:
        for figure in figures(card, group):
            assert figure.meaning and figure.good, figure
    assert [f.value for f in kept(card)] == ["18 of 18", "0.000"]
    assert all(f.verdict == "good" for f in kept(card))


def test_a_leak_is_bad_and_a_new_figure_is_shown_by_its_name():
    card = {"leakage": {"near_copies": 2, "canary_hits": 0, "new_thing": 0.5}}
    found = figures(card, "leakage")
    assert [f.verdict for f in found] == ["bad", "good", ""]
    assert found[2].name == "New thing"
    assert list(refusals({"refused": {"canary": 3}})) == ["3 rows refused: canary"]


def test_pairs_that_diverged_are_not_drawn():
    assert len(gate_frame(GATE)) == 4
    assert gate_chart(GATE).to_dict()["layer"]
