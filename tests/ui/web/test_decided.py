"""What pages say of decisions, made of records alone."""

import pytest

from agents.copilot.acting import ProposeArgs
from federation.errors import ConfigError
from federation.runs.run import Run
from tests.ui.web.made_uichat import asked, config, open_run, steered
from ui.web import asking, decided
from ui.web.answer_forms import fields_of, filled
from ui.web.charts import decisions as charts


@pytest.fixture
def run(tmp_path):
    return Run.open(steered(tmp_path / "steered"))


def test_rows_say_who_changed_what_and_whether_it_came_as_expected(run):
    rows = decided.rows(run)
    assert [r.round for r in rows] == list(range(1, 9))
    assert rows[1].changed == "lr 0.0045 → 0.005625"
    assert (rows[4].source, rows[4].verdict) == ("fallback", "refused")
    assert [r.hit for r in rows] == [True] * 6 + [False, True]
    assert rows[0].changed == "lr 0.005 → 0.0045"  # against the configuration
    assert all(r.notable for r in rows)


def test_what_was_seen_is_made_again_and_a_changed_record_is_noticed(run):
    for n in range(8):
        assert decided.look_again(run, n).matches is True
    decision = run.history.decisions[3]
    lied = decision.model_copy(update={"details": {**decision.details, "observation_sha256": "0"}})
    run.history.decisions[3] = lied
    seen = decided.look_again(run, 3)
    assert seen.matches is False and "another hash" in seen.why


def test_what_comes_after_a_decision_changes_nothing_of_what_was_seen(run):
    facts = decided.look_again(run, 2).observation
    assert facts is not None and {f.round for f in facts.facts} == {0, 1}
    rows = [(row["id"], row["round"]) for row in decided.fact_rows(facts)]
    assert ("loss@1", 2) in rows and ("loss@0", 1) in rows


def test_others_stand_beside_what_was_applied(run):
    before = {"lr": 0.01, "steps": 4.0, "cohort_size": 3.0}
    others = decided.others(run.history.decisions[4], before)
    assert others.policies == ["applied", "fixed@1", "plateau@1"]
    lr = next(row for row in others.rows if row["knob"].startswith("lr"))
    assert lr["fixed@1"] == "0.01" and lr["applied"] != lr["fixed@1"]


def test_a_fact_names_its_round_as_people_count():
    assert decided.round_of("loss@3") == 4
    assert decided.with_round("loss@3") == "loss@3 (round 4)"
    assert decided.with_round("loss") == "loss"
    assert decided.round_of("loss") is None and decided.round_of("loss@x") is None


def test_a_fact_is_marked_on_the_loss(run):
    plain = charts.loss_with(run, 99, "x").to_dict()
    marked = charts.loss_with(run, 4, "loss@3").to_dict()
    assert len(marked["layer"]) == len(plain["layer"]) + 1
    frame = charts.expectation_frame(decided.rows(run))
    assert list(frame["round"]) == list(range(1, 9))


def test_an_answer_has_one_id_for_two_clicks_and_others_for_other_answers(tmp_path):
    from federation.runs.writer import RunWriter

    cfg = config()
    with RunWriter.create(tmp_path / "r", cfg.model_dump_json()) as writer:
        open_run(writer, cfg, 2)
        question = asked(cfg, writer, 2)
    one = asking.answered(question, "edit", {"lr": 0.005}, "somebody")
    assert one.id == asking.answered(question, "edit", {"lr": 0.005}, "somebody").id
    assert one.id != asking.answered(question, "edit", {"lr": 0.006}, "somebody").id
    again = question.model_copy(update={"since": "later"})
    assert one.id != asking.answered(again, "edit", {"lr": 0.005}, "somebody").id
    with pytest.raises(ConfigError):
        asking.answered(question, "perhaps", {}, "somebody")
    fields = {field.name: field for field in asking.edit_fields(question)}
    assert set(fields) == {"lr", "steps"} and fields["lr"].value == 0.008
    assert (fields["steps"].kind, fields["steps"].low, fields["steps"].high) == ("integer", 2, 8)


def test_a_form_is_what_the_schema_says():
    schema = ProposeArgs.model_json_schema()
    fields = fields_of(schema, {"lr": 0.004, "evidence": ["loss@1"]})
    kinds = {field.name: field.kind for field in fields}
    assert kinds == {
        "lr": "number",
        "steps": "integer",
        "cohort_size": "integer",
        "evidence": "words",
        "why": "text",
    }
    values = filled(fields, {"lr": 0.004, "steps": 3.0, "evidence": "loss@1, loss@2", "why": ""})
    assert values["evidence"] == ["loss@1", "loss@2"] and values["steps"] == 3
    assert ProposeArgs.model_validate(values).lr == 0.004
    nested = fields_of({"properties": {"clients": {"type": "array", "items": {"$ref": "#"}}}}, {})
    with pytest.raises(ConfigError, match="no JSON"):
        filled(nested, {"clients": "[{"})
