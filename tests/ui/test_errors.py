"""What a person sees when something is wrong: one line, a code, and nothing lost."""

import fcntl
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from federation.runs.run import Run
from tests.tiny_worlds import World, rows, write_rows
from tests.ui.conftest import Call
from ui.main import BROKEN_PIPE, fail

# Overrides of the tiny configuration -> exit code, words of the complaint
SETTINGS = {
    "missing file": (["data.source=none.jsonl"], 3, ["none.jsonl", "no such file"]),
    "cohort too large": (["cohort.size=6"], 2, ["cohort.size", "5 clients"]),
    "unknown key": (["work.stepz=3"], 2, ["work.stepz", "work.steps"]),
    "unknown algorithm": (
        ["algorithm.name=fedavgg"],
        2,
        ["algorithm.name", "fedavgg", "did you mean 'fedavg'?", "centralised"],
    ),
    "unknown setting": (["algorithm.mu=0.1"], 2, ["mu"]),
    "lr nan": (["work.lr=nan"], 2, ["work.lr"]),
    "a truth for a number": (["rounds=true"], 2, ["rounds must be a whole number", "got true"]),
    "a fraction of a step": (["work.steps=3.0"], 2, ["work.steps must be a whole", "got 3.0"]),
    "an offset that is no number": (["work.eps=1e-60"], 2, ["work.eps", "1e-30"]),
    "no model": (["model.base=/no/such/model"], 2, ["model.base", "/no/such/model"]),
    "no target": (['adapter.targets=["q_prj"]'], 2, ["q_prj"]),
    "unknown field": (["data.prompt={qestion}"], 2, ["qestion", "question"]),
    "no override": (["work.lr"], 2, ["key=value"]),
    "no clients": (["data.clients.unseen=5"], 3, ["unseen"]),
    "no metric": (["evaluation.metrics=[]"], 2, ["evaluation.metrics"]),
    "choice without choices": (['evaluation.metrics=["choice"]'], 2, ["data.choices"]),
    "answers of no questions": (
        ['data.text="{question}"', 'evaluation.metrics=["nll","rouge_l"]'],
        2,
        ["rouge_l", "data.text"],
    ),
    "no modules": (["adapter.targets=[]"], 2, ["adapter.targets:", "all-linear"]),
    "modules of a wrong type": (["adapter.targets=5"], 2, ["adapter.targets must be"]),
    "no clients a pass": (
        ["engine.chunk=0"],
        2,
        ["engine.chunk must be a whole number of at least 1 or 'auto'"],
    ),
    "key of the other adapter": (["adapter.kind=full"], 2, ["adapter.rank is of no use"]),
    "noise and selection by loss": (
        ["upload.clip=1.0", "upload.noise=1.0", "cohort.rule=oort"],
        2,
        ["upload.noise", "oort"],
    ),
    "too long a baseline": (
        ["work.steps=50000", 'evaluation.baselines=["centralised"]'],
        2,
        ["work.steps x cohort.size = 150000", "100000"],
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_configuration_that_cannot_be_used(name: str, call: Call, world: World, tmp_path: Path):
    overrides, code, words = SETTINGS[name]
    out = tmp_path / "run"
    call("run", world.config, "--out", out, "--set", *overrides).refused(code, *words)
    assert not (out / "config.json").exists()


def bad_rows() -> dict[str, tuple[str, list[str]]]:
    """Files that cannot be used, and what must be said of them."""
    lacking = '{"client": "a", "kind": "x", "question": "q", "answer": "1"}\n{"client": "a"}\n'
    return {
        "empty file": ("", ["data.jsonl", "empty"]),
        "row without the field": (lacking, ["row 2"]),
        "no JSON": ('{"client": "a"\n', ["row 1"]),
        "empty answers": (
            '{"client": "a", "kind": "x", "question": "q", "answer": " "}\n',
            ["no row"],
        ),
    }


def test_a_picture_under_another_name(call: Call, world: World, tmp_path: Path):
    call("data", world.config, "--plot", tmp_path / "picture.txt").refused(2, "picture.txt", ".png")


@pytest.mark.parametrize("name", bad_rows())
def test_data_that_cannot_be_used(name: str, call: Call, world: World, tmp_path: Path):
    content, words = bad_rows()[name]
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    said = call("run", world.config, "--out", tmp_path / "run", "--set", f"data.source={path}")
    said.refused(3, *words)
    assert path.read_text() == content


def test_a_client_with_one_example_trains_and_is_not_judged(
    call: Call, world: World, tmp_path: Path
):
    one = {"client": "lonely", "kind": "odd", "question": "add 1 and 2", "answer": "3"}
    path = write_rows(tmp_path / "data.jsonl", [*rows(2), one])
    out = tmp_path / "run"
    said = call("run", world.config, "--out", out, "--set", f"data.source={path}", "rounds=1")
    assert said.code == 0
    run = Run.open(out)
    assert "lonely" in run.rounds[0].record.clients
    (warning,) = run.history.warnings
    assert "1 client has" in warning.text and "'lonely'" in warning.text
    assert warning.text in call("show", out).out
    said = call("data", world.config, "--set", f"data.source={path}")
    assert "not judged: 1 client has" in said.out


@pytest.mark.parametrize(("more", "steps"), [([], 3), (["upload.bits=4"], 6)])
def test_what_is_compressed_arrives_sooner(
    more: list[str], steps: int, call: Call, world: World, tmp_path: Path
):
    # Two steps of a second; the 7424 bytes of an adapter take a second down, and a second up.
    devices = ["devices.bandwidth=7424", "devices.deadline_seconds=3.7"]
    out = tmp_path / "run"
    assert call("run", world.config, "--out", out, "--set", "rounds=1", *devices, *more).code == 0
    assert Run.open(out).rounds[0].record.client_steps == steps


def test_a_centralised_run_is_called_so_when_it_is_judged_again(
    call: Call, world: World, tmp_path: Path
):
    out, settings = tmp_path / "run", ["algorithm.name=centralised", "cohort.size=1", "rounds=1"]
    assert call("run", world.config, "--out", out, "--set", *settings).code == 0
    assert call("eval", out, "--json").json["evaluation"].keys() == {"base", "centralised"}


def test_without_a_test_set_a_baseline_is_trained_and_not_judged(
    call: Call, world: World, tmp_path: Path
):
    out = tmp_path / "run"
    sets = ["data.split.test=0", 'evaluation.baselines=["local"]', "rounds=1"]
    assert call("run", world.config, "--out", out, "--set", *sets).code == 0
    assert Run.open(out).status == "finished" and not Run.open(out).evaluation


def test_a_test_set_that_changed_is_not_taken_for_the_run_s_own(
    call: Call, world: World, tmp_path: Path
):
    data, out = write_rows(tmp_path / "data.jsonl", rows()), tmp_path / "run"
    settings = ["--set", f"data.source={data}", "rounds=1"]
    assert call("run", world.config, "--out", out, *settings).code == 0
    assert call("eval", out).code == 0
    write_rows(data, rows()[::-1])
    call("eval", out).refused(3, "data.jsonl", "changed", "--data")
    assert call("eval", out, "--data", data).code == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu"], ["rnu", "did you mean run?"]),
        (["zzzzzz"], ["zzzzzz", "demo"]),
        (["show"], ["DIR"]),
        (["show", "a", "b"], ["b"]),
        (["export", "a"], ["--to"]),
        (["bench", "engin"], ["engine"]),
        (["show", "nowhere"], ["nowhere", "there is no such folder"]),
        (["resume", "nowhere"], ["nowhere", "there is no such folder"]),
        (["show", "."], ["is not a run directory", "config.json"]),
        (["study", "a.toml", "--sett", "x=1"], ["--sett x=1", "see: fedpilot study --help"]),
        (["verify", "nowhere"], ["nowhere"]),
        (["steer", "a", "more-rounds", "x"], ["argument N: write a whole number, not 'x'"]),
        (["whatif", "a", "--round", "1", "--clip", "x"], ["write a number, not 'x'"]),
        (["runs", "nowhere"], ["nowhere"]),
        (["run", "nowhere.toml"], ["nowhere.toml", "fedpilot init"]),
        (["data", "nowhere.toml"], ["nowhere.toml"]),
        (["pretrain", "nowhere.toml", "--data", ".", "--out", "x"], ["recipes/nano.toml is one"]),
        (["study", "nowhere.toml"], ["nowhere.toml", "examples/study.toml"]),
        (["synthesize", "nowhere.toml", "--out", "x.jsonl"], ["synthesize --init nowhere.toml"]),
        (["ui", "--port", "99999"], ["'99999'", "from 1 to 65535"]),
        (["ui", "--port", "-1"], ["from 1 to 65535"]),
    ],
)
def test_arguments_that_cannot_be_used(
    argv: list[str], words: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    call(*argv).refused(2, *words)
    assert not list(tmp_path.iterdir())


def test_a_key_that_is_missing_is_said_to_be_missing_and_nothing_else(call: Call, tmp_path: Path):
    (tmp_path / "a.toml").write_text("rounds = 1\n")
    for command in (["synthesize"], ["pretrain", "--data", tmp_path]):
        said = call(*command, tmp_path / "a.toml", "--out", tmp_path / "x.jsonl")
        said.refused(2, "must be given")
        assert "got a table" not in said.err and "clients: clients" not in said.err


def test_a_start_that_only_made_rows_up_is_no_run_and_says_what_to_do(call: Call, tmp_path: Path):
    (tmp_path / "run" / "made-up").mkdir(parents=True)
    call("resume", tmp_path / "run").refused(2, f"fedpilot run CONFIG --out {tmp_path / 'run'}")


def test_a_run_directory_that_holds_a_run(call: Call, world: World, finished: Path):
    before = (finished / "journal.jsonl").read_bytes()
    said = call("run", world.config, "--out", finished)
    said.refused(2, str(finished), "fedpilot resume")
    assert (finished / "journal.jsonl").read_bytes() == before


def shortened(run: Path) -> None:
    """Take the end away from a run, so that there is something to resume."""
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"kind":"round"' in line)
    journal.write_bytes(b"".join(lines[: last + 1]))


def test_a_run_that_another_process_writes(call: Call, copied: Path):
    shortened(copied)
    with (copied / "lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        call("resume", copied).refused(7, str(copied))
        assert call("show", copied, "--json").json["status"] == "running"


def newest_checkpoint(run: Path) -> Path:
    return max((run / "state").iterdir())


def test_a_damaged_checkpoint_is_found_set_aside_and_run_again(call: Call, copied: Path):
    adapter = copied / "adapter" / "adapter_model.safetensors"
    whole, path = adapter.read_bytes(), newest_checkpoint(copied)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
    said = call("verify", copied)
    said.refused(8, path.name, "damaged")
    assert call("verify", copied, "--json").json["ok"] is False
    shortened(copied)
    assert call("resume", copied).code == 0
    assert adapter.read_bytes() == whole
    assert list((copied / "state").glob(f"{path.name}.bad-*"))


def test_verify_says_each_damage_once(call: Call, copied: Path):
    damaged = [newest_checkpoint(copied), copied / "adapter" / "adapter_model.safetensors"]
    for number, path in enumerate(damaged, 1):
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
        said = call("verify", copied)
        words = said.out + said.refused(8, path.name if number == 1 else f"{number} things")
        assert [words.count(str(x)) for x in damaged[:number]] == [1] * number


def test_a_journal_that_was_changed(call: Call, copied: Path):
    journal = copied / "journal.jsonl"
    changed = journal.read_text().replace('"round":1', '"round":2', 1)
    journal.write_text(changed)
    for command in ("show", "verify", "resume"):
        call(command, copied).refused(8, "journal.jsonl")
    assert journal.read_text() == changed


def test_a_torn_journal_line_is_kept_aside_and_the_run_goes_on(call: Call, copied: Path):
    adapter = copied / "adapter" / "adapter_model.safetensors"
    whole, journal = adapter.read_bytes(), copied / "journal.jsonl"
    shortened(copied)
    journal.write_bytes(journal.read_bytes() + b'{"seq":99,"sch')
    assert call("verify", copied).code == 0
    assert call("resume", copied).code == 0
    assert (copied / "journal.torn-1").read_bytes() == b'{"seq":99,"sch'
    assert adapter.read_bytes() == whole


def test_a_run_without_an_adapter(call: Call, copied: Path, tmp_path: Path):
    shortened(copied)
    for file in (copied / "adapter").iterdir():
        file.unlink()
    (copied / "adapter").rmdir()
    call("export", copied, "--to", tmp_path / "out").refused(2, "fedpilot resume")
    assert not (tmp_path / "out").exists()


def test_a_fault_of_ours_is_logged_and_named(
    call: Call, copied: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(run: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("ui.commands.show.as_json", broken)
    line = call("show", copied, "--json").refused(1, "RuntimeError: two", "error.log")
    assert "lines" not in line.split("error.log")[0].split("two")[1]
    assert "Traceback" in (copied / "error.log").read_text()


def test_a_complaint_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]):
    assert fail("a quoted\n  text", 3) == 3
    assert capsys.readouterr().err == "fedpilot: a quoted text\n"


def allocation_failed() -> RuntimeError:
    """What torch raises on a processor; on an accelerator the class has a name of its own."""
    return RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError, 12), (allocation_failed(), 12), (KeyboardInterrupt, 130)],
)
def test_codes_of_other_ends(
    error: BaseException | type[BaseException],
    code: int,
    call: Call,
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def stops(path: Path) -> None:
        raise error

    monkeypatch.setattr("ui.commands.resume.Run.open", stops)
    line = call("resume", copied).refused(code)
    assert code == 12 or f"fedpilot resume {copied}" in line


def piped(run: Path, more: str) -> subprocess.CompletedProcess[str]:
    """Call the program from a shell, which goes on with ``more`` behind it."""
    code = "import sys; from ui.main import main; sys.exit(main(['show', sys.argv[1]]))"
    command = f'"$0" -c "$1" "$2" {more}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, code, str(run)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ("| true; exit ${PIPESTATUS[0]}", BROKEN_PIPE, ""),
        (">&-", 0, ""),
        (">/dev/full", 6, "fedpilot: output: no space left on device; make room and repeat it\n"),
    ],
    ids=["nobody reads", "closed", "full"],
)
def test_output_that_goes_nowhere(more: str, code: int, said: str, finished: Path):
    ended = piped(finished, more)
    assert (ended.returncode, ended.stderr) == (code, said)
    assert not (finished / "error.log").exists()


def test_a_full_disk(call: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import errno

    from federation.runs import storage

    real, written = storage._write_all, []

    def full(fd: int, data: bytes) -> None:
        written.append(len(data))
        if len(written) > 15:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, data)

    out = tmp_path / "run"
    monkeypatch.setattr(storage, "_write_all", full)
    call("run", world.config, "--out", out).refused(6)
    committed = len(Run.open(out).rounds)
    monkeypatch.undo()
    said = call("resume", out)
    assert said.code == 0 and len(Run.open(out).rounds) == 3 >= committed


@pytest.mark.parametrize("how", [[], ["--round", 3], ["--whole"]], ids=["", "round", "whole"])
def test_a_full_disk_stops_an_export_in_one_line(how: list, call: Call, finished: Path, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        said = call("export", finished, "--to", tmp_path / "out", *how)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said.refused(6, "file too large", "make room, then resume or repeat it")
    assert len(said.err) < 400 and not list(tmp_path.iterdir())


def test_a_folder_of_runs_is_told_from_a_run(call: Call, finished: Path):
    call("show", finished.parent).refused(2, "is a folder of runs", f"runs {finished.parent}")
