"""The benchmark of those who steer: planted faults, its table whole, its report, whom it asks."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import BaseModel

from agents.claims import Claim
from agents.facts import fact
from benchmarks.pilot import command, report
from benchmarks.pilot import table as runs
from benchmarks.pilot.asked import Asked
from benchmarks.pilot.diagnose import outlier
from benchmarks.pilot.exclude import KINDS, Evidence, Outcome, caught
from benchmarks.pilot.explanations import Checked, mutations
from benchmarks.pilot.parts import QUICK, Effort, Grid, Part
from benchmarks.pilot.scenarios import ROUNDS
from benchmarks.pilot.trying import Trial, Tried
from benchmarks.pilot.tune import CELLS
from benchmarks.pilot.worlds import FLIPPER, RARE, RIDER, SELDOM, TEST, Riding, rows
from federation.errors import ConfigError
from federation.plan import Reports
from federation.runs.records import Effect
from llm_tools import CallFailed, Failure, OpenAISpec, ask
from tests.tiny_tables import made_up
from ui.main import main

# faults


def test_a_planted_federation_is_wrong_where_it_says():
    made = list(rows(3, [FLIPPER]))
    wrong = {row["client"] for row in made if row["answer"] != row["desk"]}
    assert wrong == {FLIPPER}
    assert all(row["answer"] != row["desk"] for row in made if row["client"] == FLIPPER)
    rare = {row["client"] for row in made if row["desk"] in SELDOM} - {"test"}
    assert rare == set(RARE) and sum(row["client"] == "test" for row in made) == TEST


def of_two(*rows: list[float]) -> Reports:
    figures = torch.ones(2, dtype=torch.float64)
    delta = torch.tensor(rows)
    return Reports(("client-1", RIDER), {"delta": delta}, figures, figures, figures, figures)


def test_a_free_rider_reports_no_change_and_others_are_left_alone():
    honest = of_two([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    found = Riding({RIDER: "nothing"})({"params": torch.zeros(3)}, honest)
    assert torch.equal(found.tree_C["delta"][0], honest.tree_C["delta"][0])
    assert not found.tree_C["delta"][1].any() and found.norm_C.tolist() == [1.0, 0.0]
    assert found.loss_C[0] == 1.0 and found.loss_C[1] > 1.0


def test_a_free_rider_makes_noise_as_long_as_an_update_or_copies_what_the_model_became():
    honest = of_two([3.0, 4.0, 0.0], [4.0, 5.0, 6.0])
    noise = Riding({RIDER: "noise"})
    first, second = (noise({"params": torch.zeros(3)}, honest) for _ in range(2))
    assert first.norm_C[1] == pytest.approx(5.0) == float(first.tree_C["delta"][1].norm())
    assert not torch.equal(first.tree_C["delta"], second.tree_C["delta"]), "drawn anew"
    assert torch.equal(first.loss_C, honest.loss_C)
    copy, before = Riding({RIDER: "copy"}), torch.tensor([1.0, 0.0, 2.0])
    copy({"params": before}, honest)
    found = copy({"params": before + torch.tensor([0.0, 7.0, 1.0])}, honest)
    assert found.tree_C["delta"][1].tolist() == [0.0, 7.0, 1.0]
    assert torch.equal(found.tree_C["delta"][0], honest.tree_C["delta"][0])


def test_who_stands_out_is_named_and_nobody_where_all_are_alike():
    alike = {f"c{i}": [1.0 + 0.01 * i, 1.0] for i in range(9)}
    assert outlier(alike, "both") is None
    assert outlier(alike | {"x": [0.2, 0.2]}, "low") == "x"
    assert outlier(alike | {"x": [0.2, 0.2]}, "high") is None


def test_a_mutated_claim_states_another_number_and_is_refused():
    facts = {"loss@1": fact("loss", 0.584, "nats per token", 1)}
    claim = Claim(kind="change", text="Round 2: training loss 0.584 nats.", cites=("loss@1",))
    (changed,) = mutations(claim)
    assert changed.text == "Round 2: training loss 5.584 nats."
    from agents.claims import unsupported

    assert not unsupported(claim, facts) and unsupported(changed, facts)
    assert Checked(numbers=4, wrong=1).precision == 0.75


# exclusions and trials


def effect(mean: float, half: float = 0.01) -> Effect:
    return Effect(mean=mean, low=mean - half, high=mean + half, values=(mean,))


def judged(**effects: list[float]) -> list[str]:
    known = Evidence(None, None, {})  # type: ignore[arg-type]
    known.effects = {name: [effect(x) for x in own] for name, own in effects.items()}
    return known.spoilers()


def test_a_spoiler_is_named_once_it_was_judged_twice_and_stands_out():
    rest = {f"c{i}": [0.1 + 0.01 * i] * 2 for i in range(6)}
    assert judged(**rest, bad=[-0.5, -0.4], worse=[-0.9, -0.9]) == ["worse", "bad"]
    assert judged(**rest, bad=[-0.5]) == [], "once is not enough"
    assert judged(**rest, bad=[-0.5, 0.5]) == [], "its mean interval reaches zero"
    assert judged(**{f"c{i}": [-0.1 - 0.01 * i] * 2 for i in range(6)}) == [], "all are alike"
    assert judged(a=[0.1] * 2, b=[0.1] * 2, bad=[-0.5] * 2) == [], "too few to tell"


def test_exclusions_are_counted_by_what_clients_are():
    outcomes = [Outcome(1.0, 1.0, {"flipper": 3, "rare-1": 4}), Outcome(1.0, 1.0, {"flipper": 2})]
    assert [caught(outcomes, kind) for kind in KINDS] == [(2, 4), (0, 6), (1, 4), (0, 18)]


def test_refusals_are_counted_by_what_a_move_would_have_done():
    moves = [Trial(True, 0.5), Trial(False, 0.5), Trial(True, 0.0), Trial(False, -0.5)]
    moves += [Trial(True, math.inf), Trial(False, 0.19)]
    found = Tried([True, False], [0.1, -0.1], {"null": moves})
    assert found.floor == pytest.approx(0.196)
    assert found.counts("null") == {"harmless": [1, 3], "harmful": [2, 3]}


# the table


def test_the_table_is_whole():
    table = runs.read()
    assert table.validation.shape == (6, 3, 48, ROUNDS)
    stored = pq.read_table(runs.FILE)
    groups = {
        (a, b, c)
        for a, b, c in zip(
            *(stored.column(n).to_pylist() for n in ("scenario", "seed", "configuration")),
            strict=True,
        )
    }
    assert len(groups) == 864 and stored.num_rows == 864 * ROUNDS
    diverged = stored.column("diverged").to_numpy(zero_copy_only=False)
    for losses in (table.validation, table.test):
        assert np.array_equal(~np.isfinite(losses).reshape(-1), diverged)
    assert runs.FILE.stat().st_size < 5e6
    assert table.label["versions"].keys() >= {"torch", "transformers", "numpy"}


def test_a_changed_value_is_seen(tmp_path):
    stored = pq.read_table(runs.FILE)
    losses = stored.column("validation").to_pylist()
    losses[100] += 0.001
    at = stored.schema.get_field_index("validation")
    changed = stored.set_column(at, "validation", pa.array(losses, pa.float32()))
    pq.write_table(changed, tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="damaged"):
        runs.read(tmp_path / "t.parquet")


def test_a_table_of_other_scenarios_is_refused(tmp_path, monkeypatch):
    runs.read(runs.FILE)
    monkeypatch.setattr(runs, "design", lambda: "0" * 64)
    with pytest.raises(ConfigError, match="other scenarios"):
        runs.read.__wrapped__(runs.FILE)


def test_a_missing_table_says_how_to_write_it(tmp_path):
    with pytest.raises(ConfigError, match=r"python -m benchmarks\.pilot\.table"):
        runs.read(tmp_path / "none.parquet")


# the report


def a_part(name: str, **figures: object) -> Part:
    zero = {"mean": 0.0, "low": -1.0, "high": 1.0, "count": 18}
    counts = {"wins": 1, "ties": 2, "losses": 3, "verdict": "no lift"}
    own = {"null": zero | counts, "hybrid+null": zero | counts}
    base = {"lift": own, "best_without_model": "tpe", "harmful": {"hybrid+null": [1, 4]}}
    return Part(name, f"Track {name}", ["Words."], (), {**base, "tokens": {}, **figures})


def test_no_lift_is_printed_as_such():
    text = report.document([a_part("tune")], Effort(), "fedpilot bench pilot", None)
    assert "**no lift** over tpe" in text and "harmful decisions 1/4 (25%)" in text
    assert "No language model was scored" in text
    lifted = a_part("tune").figures["lift"]
    names = ["llm:scripted:x", "hybrid+scripted:x"]
    more = dict.fromkeys(names, lifted["null"])
    figures = {
        "lift": lifted | more,
        "lift_over_null": more,
        "asked": dict.fromkeys(names, 9),
        "failures": {names[0]: 7},
        "tokens": dict.fromkeys(names, 1234),
    }
    text = report.document([a_part("tune", **figures)], Effort(), "", None)
    assert "llm:scripted:x" in text and "No language model" not in text
    assert "2 answers of 9 questions, 1,234 tokens; no lift over the null model" in text


def test_a_table_is_markdown_and_what_is_not_finite_is_null():
    shown = Grid("Title", ["a", "b"], [["x", "1"]]).markdown()
    assert shown == "Title\n\n| a | b |\n|---|---:|\n| x | 1 |"
    part = Part("x", "X", [], (), {"bad": math.nan, "list": [math.inf, 1.0]})
    found = json.loads(report.as_json([part], "", None))["tracks"]["x"]
    assert found["figures"] == {"bad": None, "list": [None, 1.0]}


def test_tracks_are_taken_over_from_a_report(tmp_path, monkeypatch, capsys):
    grid = Grid("Title", ["a", "b"], [["x", "1"]])
    old = [replace(a_part("tune"), grids=(grid,)), Part("select", "Old", ["Old words."])]
    file = tmp_path / "old.json"
    file.write_text(report.as_json(old, "", None))
    monkeypatch.setattr(
        command,
        "played",
        lambda name, effort, command: Part(name, "New", ["New words."], command=command),
    )
    monkeypatch.setattr(command, "the_table", made_up)
    assert main(["bench", "pilot", "--track", "select", "--take", str(file), "--json"]) == 0
    tracks = json.loads(capsys.readouterr().out)["tracks"]
    assert tracks["select"]["heading"] == "New"
    assert Part.of("tune", tracks["tune"]).markdown() == old[0].markdown()
    file.write_text("{}")
    assert main(["bench", "pilot", "--track", "select", "--take", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_report_is_put_together_from_its_parts(tmp_path, monkeypatch, capsys):
    """The last file that has a track holds, nothing is played, and each says what played it."""
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    tracks = [Part(name, f"Old {name}", ["Words."], command="old") for name in command.TRACKS]
    tracks[:2] = [replace(a_part(name), command="old") for name in command.TRACKS[:2]]
    whole.write_text(report.as_json(tracks, "", None))
    one = replace(a_part("online"), heading="New online", command="fedpilot bench pilot --track x")
    part.write_text(report.as_json([one], "", None))
    monkeypatch.setattr(command, "played", None)
    monkeypatch.setattr(command, "the_table", made_up)
    files = ["--take", str(whole), "--take", str(part), "--note", "Served so."]
    assert main(["bench", "pilot", *files]) == 0
    text = capsys.readouterr().out
    assert text.endswith("\n\nServed so.\n")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")][2] == "New online"
    assert "`fedpilot bench pilot --take whole.json --take part.json`" in text
    assert "- Old canary: `old`\n" in text
    assert "- New online: `fedpilot bench pilot --track x`" in text


def test_the_command_repeats_itself():
    args = command.parse(["--track", "tune", "--quick", "--out", "x/bench.md", "--json"])
    assert command.command(args) == (
        "fedpilot bench pilot --track tune --quick --out docs/bench.md --json"
    )


def test_a_model_that_cannot_be_used_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "the_table", made_up)
    assert main(["bench", "pilot", "--track", "tune", "--model", "nonsense"]) == 2
    shown = capsys.readouterr().err
    assert "--model" in shown and shown.count("\n") == 1


@pytest.fixture
def tuned(tmp_path, monkeypatch, capsys):
    """Score a model that always answers the same; give its spec and the figures."""

    def scored(answer):
        file = tmp_path / "model.jsonl"
        file.write_text((json.dumps({"answer": answer}) + "\n") * 2000)
        monkeypatch.setattr(command, "the_table", made_up)
        monkeypatch.setattr(command, "QUICK", replace(QUICK, calibrations=2))
        monkeypatch.setattr("benchmarks.pilot.tune.CELLS", CELLS[::3])
        spec = f"scripted:{file}"
        words = ["bench", "pilot", "--quick", "--json", "--track", "tune", "--model", spec]
        assert main(words) == 0
        figures = json.loads(capsys.readouterr().out)["tracks"]["tune"]["figures"]
        return spec, figures

    return scored


SAYS = {"rationale": "as is", "lr": 0.008, "steps": 2, "cohort_size": 3}
"""The default, as a model alone is asked for a trial; an adviser is asked whether it abstains."""


def test_a_model_alone_has_to_propose(tuned):
    spec, figures = tuned(SAYS)
    alone, hybrid = f"llm:{spec}", f"hybrid+{spec}"
    assert figures["failures"] == {hybrid: figures["asked"][hybrid]}
    assert figures["abstained"] == figures["repeated"] == {}
    # A model that always names the default finds nothing, and cannot be worse than it.
    assert figures["areas"][alone] == pytest.approx(figures["areas"]["default"])


@pytest.mark.parametrize(("abstains", "counted"), [(True, "abstained"), (False, "repeated")])
def test_an_adviser_without_news_leaves_the_trial_to_the_optimizer(tuned, abstains, counted):
    spec, figures = tuned(SAYS | {"abstain": abstains})
    hybrid = f"hybrid+{spec}"
    assert hybrid not in figures["failures"] and figures["asked"][hybrid] > 0
    assert figures[counted] == {hybrid: figures["asked"][hybrid]}
    assert figures["areas"][hybrid] == pytest.approx(figures["areas"]["tpe"])


class Teller:
    """Stands where a chat model stands: says what it is told to, or fails."""

    def __init__(self, *says: str | CallFailed) -> None:
        self.says, self.asked = list(says), 0

    async def ainvoke(self, messages, **how):
        self.asked += 1
        said = self.says.pop(0)
        if isinstance(said, CallFailed):
            raise said
        return SimpleNamespace(text=said, usage_metadata={"input_tokens": 7, "output_tokens": 2})


class Word(BaseModel, extra="forbid"):
    word: str


def told(place: Path, teller: Teller, question: str = "?", most: int | None = None):
    spec = OpenAISpec(model="m", url="http://127.0.0.1:1/v1")
    return ask(Asked(spec, teller, place, most), question, Word)


def test_what_a_model_said_is_kept_and_it_is_not_asked_again(tmp_path):
    first, none = told(tmp_path, Teller('{"word": "yes"}')), Teller()
    again = told(tmp_path, none)
    assert first.value == again.value == Word(word="yes") and none.asked == 0
    assert (again.tokens_in, again.tokens_out, again.model) == (7, 2, "m")
    other = told(tmp_path, Teller('{"word": "no"}'), "another question")
    assert other.value == Word(word="no")


def test_a_spoilt_answer_is_kept_and_mending_it_too(tmp_path):
    teller = Teller("no JSON", '{"word": "mended"}')
    assert told(tmp_path, teller).attempts == 2
    again = told(tmp_path, Teller())
    assert again.value == Word(word="mended") and (again.attempts, again.tokens_in) == (2, 14)
    cut = CallFailed(Failure.TOO_LARGE, "cut off", "on and on", (7, 64))
    for teller in (Teller(cut), Teller()):
        found = told(tmp_path, teller, "long")
        assert (found.failure, found.raw, found.tokens_out) == ("too_large", "on and on", 64)


def test_a_server_that_fails_is_not_scored_and_no_more_is_asked_than_allowed(tmp_path):
    with pytest.raises(ConfigError, match=r"its server failed .unreachable"):
        told(tmp_path, Teller(CallFailed(Failure.UNREACHABLE, "refused")))
    assert told(tmp_path, Teller('{"word": "yes"}')).value == Word(word="yes"), "nothing was kept"
    with pytest.raises(ConfigError, match=r"--calls: 1 requests"):
        told(tmp_path, Teller("no JSON", "no JSON"), "other", most=1)
    for file in tmp_path.iterdir():
        file.write_text("{")
    with pytest.raises(ConfigError, match=r"is damaged; delete it"):
        told(tmp_path, Teller())


@pytest.mark.slow
def test_a_quick_run_writes_the_report_and_its_figures(tmp_path, monkeypatch):
    out = tmp_path / "bench.md"
    assert main(["bench", "pilot", "--quick", "--json", "--out", str(out)]) == 0
    text, figures = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    assert [line[3:5] for line in text.splitlines() if line.startswith("## T")] == [
        f"T{n}" for n in range(1, 9)
    ]
    assert list(figures["tracks"]) == list(command.TRACKS)
    assert "mean nothing" in text and str(Path.home()) not in text
    tracks = {name: part["figures"] for name, part in figures["tracks"].items()}
    diagnosed = tracks["diagnose"]
    assert diagnosed["precision"] == 1.0 and diagnosed["refused"] == diagnosed["mutated"] > 0
    endured = tracks["robust"]
    assert all(x["worse"] <= 0 and x["clean"] for x in endured.values())
    sources = {kind: set(x["sources"]) for kind, x in endured.items()}
    assert sources.pop("keeps everything") == {"llm"}
    assert set(map(frozenset, sources.values())) == {frozenset({"fallback"})}
    for kind in ("drawn answers", "empty words"):
        assert not tracks["synthesis"][kind]["admitted"]
    assert os.environ.get("OMP_NUM_THREADS") == "1"
