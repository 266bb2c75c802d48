"""``fedpilot synthesize`` as a person meets it."""

import json
import stat
from pathlib import Path

import pytest

from agents.synthesis import gate
from agents.synthesis.gate import Verdict
from tests.agents.made_up import baker, private_file
from tests.tiny_worlds import World
from tests.ui.conftest import Call

PROFILE = """
[clients.a]
domain = "bank"
size = 12
labels = {"lost card" = 3, amount = 1}
[clients."b [bold]"]
domain = "hospital"
size = 6
"""
BAKERY = """
[clients.shop-1]
domain = "bakery"
size = 6
labels = {bread = 2, cake = 1}
[writer]
batch = 4
"""


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(PROFILE)
    return tmp_path


def test_an_example_is_written_and_can_be_made(call: Call, at: Path):
    assert call("synthesize", "--init", "x.toml").code == 0
    said = call("synthesize", "x.toml", "--out", "sets/x.jsonl")
    assert said.code == 0, said.err
    assert len((at / "sets" / "x.jsonl").read_text().splitlines()) == 200
    call("synthesize", "--init", "x.toml").refused(2, "x.toml exists", "--init OTHER.toml")


def test_a_set_is_told_of_and_lies_beside_its_card(call: Call, at: Path):
    said = call("synthesize", "p.toml", "--out", "set.jsonl")
    assert said.code == 0 and "18 made-up rows" in said.out and "b [bold]" in said.out
    assert "none was read; none of it shaped the set" in said.out
    assert "0: equal, 1: nothing in common" in " ".join(said.out.split())
    assert "distinct 1, 2: share of words" in (at / "set.card.md").read_text()
    assert "gate     not asked for" in said.out
    assert (at / "set.card.md").read_text().startswith("# set.jsonl\n")
    read = json.loads((at / "set.card.json").read_text())
    other = call("synthesize", "p.toml", "--out", "other.jsonl", "--json")
    assert other.json == read | {"path": "other.jsonl"}
    assert (at / "set.jsonl").read_bytes() == (at / "other.jsonl").read_bytes()
    assert call("synthesize", "p.toml", "--out", "third.jsonl", "--seed", "1").code == 0
    assert (at / "set.jsonl").read_bytes() != (at / "third.jsonl").read_bytes()


def test_what_cannot_be_used_is_one_line(call: Call, at: Path):
    call("synthesize", "p.toml").refused(2, "--out FILE.jsonl")
    call("synthesize", "p.toml", "--out", "set.csv").refused(2, "ends in .jsonl")
    call("synthesize", "no.toml", "--out", "s.jsonl").refused(2, "synthesize --init no.toml")
    (at / "bake.toml").write_text(BAKERY)
    call("synthesize", "bake.toml", "--out", "s.jsonl", "--model", "gpt").refused(2, "--model")
    url = "openai:m@http://example.org/v1"
    call("synthesize", "p.toml", "--out", "s.jsonl", "--model", url).refused(2, "clients.b [bold]")
    call("synthesize", "p.toml", "--out", "s.jsonl", "--private", "no.jsonl").refused(3, "no.jsonl")
    call("synthesize", "p.toml", "--out", "s.jsonl", "--seed", "x").refused(2, "--seed")
    call("synthesize", "p.toml", "--out", "s.jsonl", "--gate", "no.toml").refused(2, "no.toml")
    assert not list(at.glob("s.*"))
    call("synthesize", "p.toml", "--out", "s.jsonl")
    call("synthesize", "p.toml", "--out", "s.jsonl").refused(2, "s.jsonl exists")


def test_votes_are_paid_for_and_said(call: Call, at: Path):
    private = private_file(at)
    (at / "p.toml").write_text(PROFILE + "[votes]\nepsilon = 4\nrounds = 1\ncandidates = 2\n")
    call("synthesize", "p.toml", "--out", "set.jsonl").refused(2, "[votes]", "--private")
    said = call("synthesize", "p.toml", "--out", "set.jsonl", "--private", private)
    assert said.code == 0, said.err
    assert "epsilon 4.000 at delta 1e-05 for each of 4 clients" in said.out
    assert stat.S_IMODE((at / "set.noise.key").stat().st_mode) == 0o600


def test_a_scripted_model_writes_what_is_asked_for(call: Call, at: Path):
    (at / "p.toml").write_text(BAKERY)

    class Asked:
        def __init__(self, number: int, label: str) -> None:
            self.content = f"Their label: {label}\nThis is set {number}"

    lines = [baker([Asked(*x)]) for x in ((1, "bread"), (2, "cake"))]
    script = "".join(json.dumps({"answer": line}) + "\n" for line in lines)
    (at / "script.jsonl").write_text(script)
    said = call("synthesize", "p.toml", "--out", "set.jsonl", "--model", "scripted:script.jsonl")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in (at / "set.jsonl").read_text().splitlines()]
    assert sorted(row["label"] for row in rows) == ["bread"] * 4 + ["cake"] * 2
    assert "4 rows of 'bread' for shop-1" in said.err


def test_too_little_is_said(call: Call, at: Path):
    (at / "p.toml").write_text(BAKERY)
    (at / "script.jsonl").write_text('{"answer": "no"}\n')
    said = call("synthesize", "p.toml", "--out", "set.jsonl", "--model", "scripted:script.jsonl")
    said.refused(3, "not a single row could be made: ")
    answer = {"rows": [{"instruction": "Bake.", "context": "", "response": "Now."}]}
    (at / "script.jsonl").write_text(json.dumps({"answer": answer}) + "\n")
    said = call("synthesize", "p.toml", "--out", "set.jsonl", "--model", "scripted:script.jsonl")
    assert said.code == 0, said.err
    assert "missing: 3 of 4 rows of 'bread' for shop-1" in said.out
    assert "missing: 2 of 2 rows of 'cake' for shop-1" in said.out
    assert "failed: " in said.out


@pytest.mark.parametrize("admitted", [True, False])
def test_the_gates_verdict_is_the_exit_code(
    call: Call, at: Path, world: World, monkeypatch: pytest.MonkeyPatch, admitted: bool
):
    low = 0.1 if admitted else -0.1
    found = Verdict(admitted, "nll", (0, 1, 2), (2.0,) * 3, (1.8,) * 3, 0.2, low, 0.5, 0.95)
    monkeypatch.setattr(gate, "judge", lambda *_, **__: found)
    config = at / "gate.toml"
    names = '{question = "instruction", answer = "response", kind = "label"}'
    text = world.config.read_text().replace("[data]\n", f"[data]\nextra_fields = {names}\n", 1)
    config.write_text(text)
    said = call("synthesize", "p.toml", "--out", "set.jsonl", "--gate", config)
    if admitted:
        assert said.code == 0 and "gain in nll +0.2000, 95% interval +0.1000" in said.out
    else:
        said.refused(3, "did not admit", "set.rejected.jsonl", "-0.1000 to +0.5000")
    assert (at / "set.jsonl").exists() is admitted
