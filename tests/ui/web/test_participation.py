"""What is drawn of clients is bounded, however long a run is and however many there are."""

import json
from unittest.mock import patch

from federation.runs.records import EvaluationRecord
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import words
from tests.ui.web.recorded import config, record, write
from ui.web import participation
from ui.web.figures import judged_rows


def test_lengths_of_updates_are_those_of_the_newest_whole_rounds(tmp_path):
    run = Run.open(record(tmp_path / "one"))  # two clients report in rounds 3 and 6, else three
    newest = participation.lengths(run, 6)
    assert [round for round, _, _ in newest] == [5, 5, 5, 6, 6]
    everything = participation.lengths(run)
    assert everything[-5:] == newest and len(everything) == 16
    assert [client for r, client, _ in everything if r == 1] == list(run.history.rounds[0].clients)
    assert [r for r, _, _ in participation.lengths(run, 1)] == [6, 6]


def test_a_page_of_a_long_run_of_many_clients_stays_small(open_page, runs):
    cfg = config(200)
    with patch("os.fsync"), RunWriter.create(runs / "long", cfg.model_dump_json()) as writer:
        write(writer, cfg, 100, population=400, cohort=20)
    assert not open_page("clients", run="long").dataframe  # what draws tables is slow to load
    app = open_page("clients", run="long", parts="true")
    assert [len(x.value) for x in app.dataframe] == [300]
    assert "The 300 of 400 that took part most" in words(app)
    assert "older ones are not drawn" in words(app)
    sent = sum(chart.proto.ByteSize() for chart in app.get("vega_lite_chart"))
    assert sent < 200_000, json.dumps(sent)


def test_on_how_many_rows_a_claim_rests_is_said(open_page, runs):
    cfg = config(2, evaluation={"max_examples": 40})
    own = {"nll": 1.0, "nll_worst_decile": 1.5, "nll_std": 0.1}
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        write(writer, cfg, 2)
        assert judged_rows(Run.open(runs / "one")) == "at most 40 rows"  # not noted
        for subject in ("federated", "local"):
            writer.append(
                EvaluationRecord(
                    round=1, subject=subject, split="clients", metrics=own, rows=37,
                    per_client={"nll": {"client-0": 1.0, "client-1": 1.0}},
                )
            )  # fmt: skip
    run = Run.open(runs / "one")
    assert judged_rows(run, "clients") == "37 rows"
    app = open_page("clients", run="one", parts="true")
    assert "judged on 37 rows of all their tests together" in words(app)
    (fair,) = [m for m in app.metric if m.label == "Loss on own tests"]
    assert "37 rows" in fair.help
