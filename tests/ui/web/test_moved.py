"""What a decision moved is said wherever decisions are shown."""

from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import words
from tests.ui.web.recorded import config, of_round, start
from ui.web import decided, moved
from ui.web.charts import curves
from ui.web.one_decision import breakable
from ui.web.shell import JOINER

UNIFORM = {"rule": "uniform", "candidates": 2, "exploration": 0.1, "exclude": []}
BOUNDS = {
    "rules": ["uniform", "power_of_choice"],
    "exploration": 0.1,
    "most_excluded": 1,
    "population": 4,
    "current": UNIFORM,
}
TURNED = UNIFORM | {"rule": "power_of_choice", "exclude": ["c3"]}


def chosen(path, rounds=2):
    """A run whose pilot turns nothing but how clients are chosen, in the last round."""
    cfg = config(rounds, work={"lr": 0.01, "steps": 4})
    with RunWriter.create(path, cfg.model_dump_json()) as writer:
        writer.append(start(writer, cfg))
        for n in range(rounds):
            for record in of_round(n, ("a", "b", "c"), {}):
                if record.kind == "decision":
                    now = TURNED if n == rounds - 1 else UNIFORM
                    proposal = {"values": {}, "rationale": "far apart", "source": "heuristic"}
                    told = {
                        "selection": now | {"due": 0, "explored": 0},
                        "selection_bounds": BOUNDS,
                        "proposal": proposal | {"selection": now if now is TURNED else None},
                        "shadows": {"fixed@1": {}, "choosing@1": {"selection": TURNED}},
                    }
                    record = record.model_copy(update={"details": record.details | told})
                writer.append(record)
    return Run.open(path)


def test_another_rule_for_choosing_clients_is_a_change(tmp_path):
    run = chosen(tmp_path / "chosen")
    first, last = decided.rows(run)
    assert first.changed == ""
    assert last.changed == "chosen by uniform → power_of_choice, excluded nobody → c3"
    assert last.notable
    assert list(curves.decision_frame(run)["round"]) == [2]


def test_an_edit_of_the_first_round_is_a_change_against_the_configuration(tmp_path):
    run = chosen(tmp_path / "chosen", 1)
    edited = run.history.decisions[0]
    applied = {"lr": 0.002, "steps": 4.0, "cohort_size": 3.0}
    edited = edited.model_copy(update={"details": edited.details | {"applied": applied}})
    assert moved.moves(run, edited)[0] == "lr 0.01 → 0.002"
    by_rule = edited.model_copy(update={"details": {}, "work": {"lr": 0.002, "steps": 4}})
    assert moved.moves(run, by_rule) == []  # a schedule is no change


def test_the_page_says_what_was_proposed_besides_knobs(open_page, runs):
    chosen(runs / "chosen")
    app = open_page("decisions", run="chosen")
    said = words(app)
    assert "clients chosen by power" in said and "leave everything" not in said
    others = said.replace("\\", "").replace(JOINER, "").splitlines()
    assert "| knob | applied | fixed@1 | choosing@1 |" in others
    power = breakable("power_of_choice")
    assert f"| clients chosen by | {power} | uniform | {power} |" in others
    assert power.replace("\u200b", "") == "power_of_choice" and power.count("\u200b") == 2
