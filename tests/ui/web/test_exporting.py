"""The model out of the interface: which rounds there are, the job, the file that is downloaded."""

import io
import json
import time
import zipfile
from pathlib import Path

import pytest

from federation.errors import CorruptError
from federation.runs.records import EndRecord, EvaluationRecord, RoundRecord
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open, words
from tests.ui.web.recorded import config, of_round, start
from ui.arguments import parse
from ui.web import exporting, jobs
from ui.web.jobs import Job

LOSSES = (3.0, 1.0, 2.0)


def kept(path: Path, end: str = "finished", table: dict[str, object] | None = None) -> Run:
    """Write a run of three rounds whose states are kept, and whose second is the best."""
    cfg = config(3, **(table or {}))
    with RunWriter.create(path, cfg.model_dump_json()) as writer:
        (path / "state").mkdir(exist_ok=True)
        writer.append(start(writer, cfg))
        for n, loss in enumerate(LOSSES):
            file = f"round-{n:04d}.safetensors"
            (path / "state" / file).write_bytes(b"state")
            metrics = {"nll": loss}
            writer.append(
                EvaluationRecord(round=n, subject="federated", split="validation", metrics=metrics)
            )
            for each in of_round(n, ("a", "b"), {}):
                if isinstance(each, RoundRecord):
                    update = {"checkpoint": file, "checkpoint_sha256": f"{n}" * 64}
                    each = each.model_copy(update=update)
                writer.append(each)
        writer.append(EndRecord(status=end))  # type: ignore[arg-type]
    return Run.open(path)


def exported(run: Run, round: int, base: str = "some/base") -> Path:
    """Put files there as the job would."""
    folder = exporting.place(run, round, whole=False)
    folder.mkdir(parents=True)
    config = json.dumps({"base_model_name_or_path": base})
    (folder / "adapter_config.json").write_text(config)
    (folder / "adapter_model.safetensors").write_bytes(b"w" * 2048)
    return folder


def test_rounds_say_which_is_the_last_and_which_the_best_on_validation_rows(runs: Path) -> None:
    run = kept(runs / "one")
    assert exporting.rounds(run) == {
        1: "1", 2: "2: best validation loss", 3: "3: the last",
    }  # fmt: skip
    (run.path / "state" / "round-0001.safetensors").unlink()
    assert list(exporting.rounds(run)) == [1, 3]


def test_the_command_is_one_that_can_be_typed_and_another_content_has_another_place(
    runs: Path,
) -> None:
    run = kept(runs / "one")
    args = exporting.arguments(run, 2, whole=True)
    parsed = parse(args)
    assert (parsed.command, parsed.round, parsed.whole) == ("export", 2, True)
    assert parsed.to == exporting.place(run, 2, whole=True).absolute()
    places = {exporting.place(run, n, whole=whole) for n in (1, 2, 3) for whole in (True, False)}
    assert len(places) == 6 and all(run.path in place.parents for place in places)


def test_the_download_holds_every_file(runs: Path) -> None:
    run = kept(runs / "one")
    folder = exported(run, 3)
    archive = zipfile.ZipFile(io.BytesIO(exporting.packed(folder, "one-round-3")))
    assert {name: archive.read(name) for name in archive.namelist()} == {
        f"one-round-3/{path.name}": path.read_bytes() for path in folder.iterdir()
    }
    assert exporting.size(folder) == sum(path.stat().st_size for path in folder.iterdir())


def test_the_python_names_base_and_folder_and_compiles(runs: Path) -> None:
    folder = exported(kept(runs / "one"), 3, base="it's/base")
    code = exporting.python(folder)
    compile(code, "shown", "exec")
    assert code.count(repr("it's/base")) == 2 and repr(str(folder)) in code
    (folder / "adapter_config.json").unlink()
    assert "peft" not in exporting.python(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CorruptError, match="names no base model"):
        exporting.python(folder)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"adapter": {"kind": "full"}}, "trains all weights"),
        ({"algorithm": {"name": "local"}}, "a model of its own"),
        ({}, ""),
    ],
)
def test_what_has_no_adapter_says_so(runs: Path, table: dict[str, object], why: str) -> None:
    found = exporting.why_not(kept(runs / "one", table=table))
    assert (why in found) if why else found == ""


@pytest.mark.parametrize("end", ["finished", "stopped"])
def test_from_the_button_to_the_download(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    run = kept(runs / "one", end)
    asked: list[tuple[str, ...]] = []

    def start(folder: Path, title: str, args: list[str], about: str) -> Job:
        asked.append(tuple(args))
        return Job(folder / ".jobs" / "x", title, tuple(args), about, 0.0)

    monkeypatch.setattr(jobs, "start", start)
    app = open_page("live", run="one", export="true")
    assert not app.get("download_button")
    app.selectbox(key="export-round").set_value(2).run()
    app.button(key="write").click().run()
    assert not app.exception
    assert asked == [tuple(exporting.arguments(run, 2, whole=False))]
    assert "--round 2" in "".join(code.value for code in app.code)  # of serve
    exported(run, 2)
    app.run()
    assert [x.proto.label for x in app.get("download_button")] == ["Download (2.04 KiB)"]
    assert any("PeftModel" in code.value for code in app.code)
    assert "round 2 of 3" in words(app).replace("\\", "")


def test_only_a_run_that_is_over_offers_its_model(open_page: Open, runs: Path) -> None:
    cfg = config(9)
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        writer.append(start(writer, cfg))
        for each in of_round(0, ("a",), {}):
            writer.append(each)
        app = open_page("live", run="one", export="true")
        assert not any("Export" in part.label for part in app.expander)
    assert any("Export" in part.label for part in open_page("live", run="one").expander)


def test_a_failure_of_the_job_is_said_in_a_line(open_page: Open, runs: Path) -> None:
    run = kept(runs / "one")
    folder = runs / ".jobs" / "abc"
    folder.mkdir(parents=True)
    args = exporting.arguments(run, 3, whole=False)
    asked = {"title": "writing", "args": args, "about": "one", "began": time.time()}
    (folder / "job.json").write_text(json.dumps(asked))
    (folder / "ended.json").write_text('{"code": 2}')
    (folder / "output.log").write_text("fedpilot: there is no room\n")
    app = open_page("live", run="one", export="true")
    assert "there is no room" in app.error[0].value.replace("\\", "")
