"""Every command on a real, tiny run."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agents.spec import PilotSpec
from agents.study import spec as study
from federation.algorithms.settings import SETTINGS, settings_model
from federation.config import Config
from federation.runs.run import Run
from tests.tiny_worlds import World, rows, write_rows
from tests.ui.conftest import Call
from ui.arguments import COMMANDS
from ui.results import compared
from ui.template import template

RUN_KEYS = {"status", "rounds", "bytes_up", "bytes_down", "seconds", "evaluation"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("argv", [["--help"], ["runs"], ["init", "x.toml"], ["no-such-command"]])
def test_light_commands_import_nothing_heavy(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    root = str(Path(__file__).parents[2])
    heavy = python(
        f"import sys; sys.path.insert(0, {root!r})\n"
        "from ui.main import main\n"
        f"try: main({argv!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'matplotlib', 'pandas'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))"
    )
    assert heavy.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "algorithm.name=fedavgg"], "did you mean 'fedavg'?"),
        (["--set", "algorithm.mu=0.1"], "unknown setting 'mu'"),
        (["--out", "used"], "used is not empty"),
    ],
)
def test_what_is_plainly_wrong_is_refused_before_seconds_of_imports(
    more: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text("rounds = 1\n")
    Path("used").mkdir()
    Path("used/file").write_text("")
    root = str(Path(__file__).parents[2])
    said = python(
        f"import sys; sys.path.insert(0, {root!r}); sys.stderr = sys.stdout\n"
        "from ui.main import main\n"
        f"code = main({['run', 'x.toml', *more]!r})\n"
        "print('torch:', 'torch' in sys.modules, code)"
    )
    complaint, heavy = said.splitlines()
    assert words in complaint
    assert heavy == "torch: False 2"


@pytest.mark.parametrize("command", ["show", "verify", "runs"])
def test_reading_a_run_needs_no_torch(command: str, finished: Path):
    target = finished.parent if command == "runs" else finished
    root = str(Path(__file__).parents[2])
    said = python(
        f"import sys; sys.path.insert(0, {root!r})\n"
        "from ui.main import main\n"
        f"code = main([{command!r}, {str(target)!r}, '--json'])\n"
        "print('torch:', 'torch' in sys.modules, code)"
    )
    assert said.splitlines()[-1] == "torch: False 0"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    from ui.main import main

    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    help = capsys.readouterr().out
    assert {command.name for command in COMMANDS} <= set(help.split())


def test_a_run_leaves_adapter_plot_and_a_way_to_more(
    call: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    said = call("run", world.config, "--set", "rounds=1")
    assert said.code == 0
    out = tmp_path / "runs" / "tiny-1"
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    assert (out / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert said.out.splitlines()[-1].endswith("fedpilot show runs/tiny-1")
    rounds = [line for line in said.err.splitlines() if " round " in line]
    assert len(rounds) == 1 and "round 1 of 1: loss" in rounds[0] and "test set:" in rounds[0]
    assert call("run", world.config, "--set", "rounds=1").code == 0
    assert (tmp_path / "runs" / "tiny-2" / "config.json").is_file()


def test_the_table_compares_all_four_models(call: Call, finished: Path):
    table = call("show", finished).out
    for name in ("base model", "each client alone", "federated", "centralised"):
        assert name in table
    for words in ("exact match", "worst decile", "own test", "clients never trained on"):
        assert words in table
    assert max(map(len, table.splitlines())) < 100  # readable in a narrow terminal
    by_subject = {row.subject: row for row in compared(Run.open(finished))}
    assert list(by_subject) == ["base", "local", "federated", "centralised"]
    assert by_subject["federated"].bytes_up and by_subject["local"].bytes_up is None
    assert all(row.seconds for name, row in by_subject.items() if name != "base")


def test_show_gives_scripts_the_figures_of_the_journal(call: Call, finished: Path):
    shown, run = call("show", finished, "--json").json, Run.open(finished)
    assert [x["round"] for x in shown["history"]] == [1, 2, 3], "as people count"
    assert shown.keys() >= RUN_KEYS
    assert shown["status"] == "finished" and shown["rounds"] == 3
    assert shown["bytes_up"] == run.bytes_up > 0 and shown["bytes_down"] == run.bytes_down > 0
    assert shown["evaluation"].keys() == {"base", "federated", "local", "centralised"}
    assert shown["evaluation"] == run.figures("test")
    assert math.isfinite(shown["unseen"]["federated"]["nll"])


def test_json_has_no_number_for_what_diverged():
    from ui.results import mean, plain

    figures = plain({"federated": {"nll": math.nan, "perplexity": math.inf, "exact_match": 0.5}})
    assert json.loads(json.dumps(figures, allow_nan=False)) == {
        "federated": {"nll": None, "perplexity": None, "exact_match": 0.5}
    }
    assert mean({"a": 1.0, "b": math.nan}) is None and mean({}) is None
    assert mean({"a": 1.0, "b": 2.0}) == 1.5


def test_runs_lists_whole_and_damaged_runs(call: Call, finished: Path, copied: Path):
    listed = call("runs", finished.parent, "--json").json
    assert [(run["path"], run["status"]) for run in listed] == [(str(finished), "finished")]
    journal = copied / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"round":1', '"round":9', 1))
    said = call("runs", copied.parent)
    assert said.code == 0 and "damaged" in said.out


def test_eval_finds_the_figures_of_the_run_again(call: Call, finished: Path):
    again = call("eval", finished, "--json").json["evaluation"]
    recorded = Run.open(finished).figures("test")
    for subject in ("base", "federated"):
        assert again[subject] == pytest.approx(recorded[subject], rel=1e-5)


def test_eval_on_other_data_reads_all_of_it(call: Call, finished: Path, tmp_path: Path):
    other = [{"question": row["question"], "answer": row["answer"]} for row in rows(2, 8)]
    path = write_rows(tmp_path / "other.jsonl", other)
    said = call("eval", finished, "--data", path, "--json").json
    assert said["examples"] == 16 and said["evaluation"].keys() == {"base", "federated"}
    assert call("eval", finished, "--data", path).code == 0


def test_export_copies_the_adapter_and_overwrites_nothing(
    call: Call, finished: Path, tmp_path: Path
):
    out = tmp_path / "deep" / "adapter"
    assert call("export", finished, "--to", out).code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (finished / "adapter" / weights).read_bytes()
    call("export", finished, "--to", out).refused(2, str(out), "exists")


def test_an_adapter_is_loaded_as_exact_as_the_whole_model_is_written(world: World, tmp_path: Path):
    import shutil

    import transformers

    from ui.commands.export import loading

    base = shutil.copytree(world.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"dtype": "bfloat16"}
    (base / "config.json").write_text(json.dumps(config))
    found = {"transformers": transformers}
    exec(loading(tmp_path / "adapter", str(base))[0], found)
    assert str(found["model"].dtype) == "torch.float32"


def test_export_writes_any_round_that_is_kept_in_either_form(
    call: Call, copied: Path, tmp_path: Path
):
    weights = "adapter_model.safetensors"
    last = len(Run.open(copied).history.rounds)
    said = call("export", copied, "--round", last, "--to", tmp_path / "last")
    assert said.code == 0 and f"after round {last}" in said.out and "PeftModel" in said.out
    assert (tmp_path / "last" / weights).read_bytes() == (copied / "adapter" / weights).read_bytes()
    said = call("export", copied, "--whole", "--to", tmp_path / "whole")
    assert said.code == 0 and "PeftModel" not in said.out
    assert (tmp_path / "whole" / "model.safetensors").is_file()
    assert (tmp_path / "whole" / "tokenizer.json").is_file()
    call("export", copied, "--round", 99, "--to", tmp_path / "x").refused(2, "round 99", str(last))
    call("export", copied, "--round", 0, "--to", tmp_path / "x").refused(2, "count from 1")
    call("export", copied, "--whole", "--to", tmp_path / "whole").refused(2, "exists")
    assert [x.name for x in tmp_path.iterdir() if x.name.startswith((".", "x"))] == []


def test_of_a_run_that_is_not_finished_a_round_has_to_be_named(
    call: Call, copied: Path, tmp_path: Path
):
    journal = copied / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"kind":"end"' not in line))
    last = len(Run.open(copied).history.rounds)
    call("export", copied, "--to", tmp_path / "out").refused(2, "--round", str(last))
    assert call("export", copied, "--to", tmp_path / "out", "--round", last).code == 0


def test_every_figure_says_on_how_many_rows_it_rests(call: Call, finished: Path):
    run = Run.open(finished)
    counted = call("data", finished, "--json").json["rows"]
    splits = {"clients": "test", "unseen_clients": "unseen"}
    for judged in run.evaluations:
        assert judged.rows == counted[splits.get(judged.split, judged.split)], judged
    assert {judged.split for judged in run.evaluations} >= {"test", "clients", "unseen"}


def test_data_reports_and_draws(call: Call, world: World, tmp_path: Path):
    picture = tmp_path / "clients.png"
    said = call("data", world.config, "--json", "--plot", picture).json
    assert {client["client"]: client["examples"] for client in said["clients"]} == {
        f"client-{c}": 10 for c in range(5)
    }
    assert sum(said["rows"][name] for name in ("train", "validation", "test", "unseen")) == 50
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Jensen-Shannon" in call("data", world.config).out
    assert said["rows"]["cut"] == said["rows"]["cut_responses"] == 0


def test_rows_that_are_cut_are_told_of_in_the_same_words_everywhere(
    call: Call, world: World, tmp_path: Path
):
    short = ["data.max_tokens=8", "data.response={question} {answer}", "rounds=1"]
    cut = call("data", world.config, "--json", "--set", *short).json["rows"]
    words = f"cut: {cut['cut']} of 50 rows, {cut['cut_responses']} of them in the response; "
    assert cut["cut_responses"] and words in call("data", world.config, "--set", *short).out
    assert words in call("run", world.config, "--out", tmp_path / "run", "--set", *short).err


def test_resuming_a_finished_run_changes_nothing(call: Call, copied: Path):
    journal = (copied / "journal.jsonl").read_bytes()
    said = call("resume", copied)
    assert said.code == 0 and "federated" in said.out
    assert (copied / "journal.jsonl").read_bytes() == journal


def test_the_written_configuration_is_the_default(call: Call, tmp_path: Path):
    path = tmp_path / "new.toml"
    assert call("init", path).code == 0
    assert Config.from_toml(path) == Config.from_table({})
    before = path.read_bytes()
    call("init", path).refused(2, "exists")
    assert path.read_bytes() == before


def test_every_key_of_the_written_configuration_shows_its_default():
    # Settings of algorithms and tables that are left out have tests of their own, below.
    parts = template().split("\n\n")
    kept = (part for part in parts if not part.startswith(("# Settings of ", "#[")))
    lines = "\n\n".join(kept).splitlines()
    shown = "\n".join(
        line.removeprefix("#") if line[:1] == "#" and line[1:2].isalpha() else line
        for line in lines
        if not line.endswith(" =")
    )
    config = Config.from_table(tomllib.loads(shown))
    assert PilotSpec.of(config) == PilotSpec()
    assert config.model_copy(update={"pilot": {}}) == Config.from_table({})
    written = {line.split(" =")[0].lstrip("#") for line in lines if " =" in line}
    dumped = config.model_dump()
    tables = [dumped, *(table for table in dumped.values() if isinstance(table, dict))]
    keys = {key for table in tables for key, value in table.items() if not isinstance(value, dict)}
    assert keys <= written


def uncommented(head: str) -> dict[str, object]:
    """Read the paragraph of the template that begins with a line, as if each # were taken away."""
    lines = template().splitlines()[template().splitlines().index(head) + 1 :]
    lines = lines[: lines.index("")] if "" in lines else lines
    given = [line[1:] for line in lines if line.startswith("#") and not line.startswith("# ")]
    return tomllib.loads("\n".join(line for line in given if not line.endswith("=")))


@pytest.mark.parametrize("name", SETTINGS)
def test_init_explains_what_can_be_set_of_each_algorithm(name: str):
    declared = settings_model(SETTINGS[name]).model_fields
    if not declared:
        return
    said = uncommented(f"# Settings of {name}:")
    assert said == {k: field.default for k, field in declared.items() if field.default is not None}
    assert Config.from_table({"algorithm": {"name": name, **said}}).algorithm.settings == said


@pytest.mark.parametrize("name", ["selection", "synthetic"])
def test_init_explains_what_a_pilot_may_do_beside_numbers(name: str):
    said = uncommented(f"#[pilot.{name}]")
    found = getattr(PilotSpec.of(Config.from_table({"pilot": {name: said}})), name)
    assert found == type(found)() and said.keys() <= type(found).model_fields.keys()
    assert all(f"#{key} =" in template() for key in type(found).model_fields)


def test_a_process_that_ends_looks_for_no_cycles(tmp_path: Path):
    """With torch imported, that takes longer than many a command."""
    code = "import gc, sys; from ui.main import main; main(); print(gc.get_freeze_count() > 0)"
    command = [sys.executable, "-c", code, "init", str(tmp_path / "a.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_the_demo_configuration_is_valid(call: Call, world: World, tmp_path: Path):
    from ui.commands.demo import SETTINGS, story

    config = Config.from_toml(SETTINGS)
    assert config.model.base == "nano" and config.data.source == "organisations"
    assert "never leaves" in story(config)
    small = ["data.examples=200", "rounds=1", "work.steps=1", "evaluation.baselines=[]"]
    small += ["evaluation.max_examples=4", "evaluation.max_new_tokens=2", "model.dtype=float32"]
    small += ["data.max_tokens=64", f"model.base={world.base}"]
    said = call("demo", "--out", tmp_path / "demo", "--set", *small)
    assert said.code == 0 and f"{config.data.count} invented organisations" in said.err


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples").glob("*.toml")))
def test_the_examples_are_valid(path: Path):
    if path.stem == "study":
        study.from_toml(path)
    else:
        Config.from_toml(path)
