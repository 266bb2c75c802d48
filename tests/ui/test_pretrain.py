"""``fedpilot pretrain``, and what the other commands say of the directory it makes."""

from pathlib import Path

import pytest

from federation.runs.run import Run
from tests.ui.conftest import Call

RECIPE = """\
rounds = 3
block = 32
[epochs]
tinystories = 1.0
[model]
vocabulary = 320
hidden = 16
layers = 1
heads = 2
intermediate = 16
context = 64
[work]
steps = 2
batch_size = 2
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recipe, and beside it the texts."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tinystories").mkdir()
    stories = "\n".join(f"Ann had {i} cakes. Bob ate {i % 7}." for i in range(60))
    (folder / "tinystories" / "tiny_stories_944k.txt").write_text(stories)
    path = folder / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def made(call: Call, recipe: Path, tmp_path: Path) -> Path:
    out = tmp_path / "runs" / "made"
    said = call("pretrain", recipe, "--data", recipe.parent, "--out", out)
    assert said.code == 0, said.err
    assert [line for line in said.err.splitlines() if "round 3 of 3: loss" in line]
    assert str(out / "model") in said.out and (out / "progress.png").is_file()
    return out


def test_show_and_runs_say_what_a_pretraining_came_to(call: Call, made: Path):
    run = Run.open(made)
    shown = call("show", made, "--json").json
    assert shown["status"] == "finished" and shown["algorithm"] == "diloco"
    assert (shown["rounds"], shown["rounds_planned"]) == (3, 3)
    assert shown["tokens"] == sum(x.record.tokens for x in run.rounds) > 0
    losses = [x.record.loss for x in run.rounds]
    means = [sum(loss.values()) / len(loss) for loss in losses]
    assert [x["loss"] for x in shown["history"]] == pytest.approx(means)
    assert shown["training_loss"] == pytest.approx(means[-1])
    text = call("show", made).out
    for words in ("finished", "from scratch", "tinystories", f"3 of 3, {shown['tokens']:,} tokens"):
        assert words in text
    assert str(made / "model") in text and f"{means[-1]:.3f}" in text
    listed = call("runs", made.parent)
    assert listed.code == 0 and f"{means[-1]:.3f}" in listed.out and "3/3" in listed.out
    assert call("runs", made.parent, "--json").json[0]["tokens"] == shown["tokens"]


def test_a_stopped_pretraining_is_resumed(
    call: Call, recipe: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from federation.session import Session

    real, out = Session.play, tmp_path / "stopped"

    def stop_after_one(session: Session) -> None:
        if session.writer.next_round == 1:
            raise KeyboardInterrupt
        real(session)

    monkeypatch.setattr(Session, "play", stop_after_one)
    said = call("pretrain", recipe, "--data", recipe.parent, "--out", out)
    assert said.refused(130).endswith(f"fedpilot resume {out}")
    monkeypatch.undo()
    assert "stopped" in call("show", out).out and f"fedpilot resume {out}" in call("show", out).out
    said = call("resume", out)
    assert said.code == 0 and "round 3 of 3" in said.err and "round 1 of 3" not in said.err
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (made / weights).read_bytes()


def test_the_same_command_on_a_finished_pretraining_changes_nothing(
    call: Call, recipe: Path, made: Path
):
    journal = (made / "journal.jsonl").read_bytes()
    assert call("pretrain", recipe, "--data", recipe.parent, "--out", made).code == 0
    assert call("resume", made).code == 0
    assert (made / "journal.jsonl").read_bytes() == journal


def test_mistakes_are_one_line(call: Call, recipe: Path, made: Path, tmp_path: Path):
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace("rounds = 3", "rounds = 4"))
    given = ("--data", recipe.parent, "--out", made)
    call("pretrain", other, *given).refused(2, str(made), "rounds was 3 and is 4", "--out")
    nowhere = ("--data", tmp_path / "nowhere", "--out", tmp_path / "new")
    call("pretrain", recipe, *nowhere).refused(3, "nowhere", "--data")
    call("eval", made).refused(2, str(made), "no test set", "model.base")
    call("export", made, "--to", tmp_path / "adapter").refused(2, str(made))
    assert not (tmp_path / "new").exists()
