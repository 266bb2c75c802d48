"""Names that mean something to others: to a terminal, to a typesetter, to Python."""

import shutil
import warnings
from pathlib import Path

import pytest

from federation.runs.run import Run
from tests.tiny_worlds import World, rows, write_rows
from tests.ui.conftest import Call

NAMES = {
    "folders": "../../etc/passwd",
    "long": "x" * 5000,
    "markup": "[/b]",
    "emoji": ":smile:",
    "formula": "$\\frac{1$",
    "control signs": "a\x00b\nc\x1fd",
    "no signs of the font": "客户端",
    "a long number": "9" * 5000,
}


def renamed(path: Path, name: str) -> Path:
    """Write rows whose first client and first label have a name."""
    new = {"client-0": name, "even": name}
    return write_rows(path, [{k: new.get(v, v) for k, v in row.items()} for row in rows()])


@pytest.mark.parametrize("kind", NAMES)
def test_a_report_and_its_picture_show_any_name(
    kind: str, call: Call, world: World, tmp_path: Path
):
    data, picture = renamed(tmp_path / "data.jsonl", NAMES[kind]), tmp_path / "map.png"
    settings = ["--set", f"data.source={data}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = call("data", world.config, "--plot", picture, *settings)
    assert (said.code, said.err) == (0, "") and picture.read_bytes()
    if kind in ("markup", "emoji"):
        assert NAMES[kind] in said.out
    clients = call("data", world.config, "--json", *settings).json["clients"]
    assert NAMES[kind] in [client["client"] for client in clients]


def test_clients_of_any_name_train_and_keep_what_is_theirs(
    call: Call, world: World, tmp_path: Path
):
    odd = ["../../up", "[/b]", "a/b", "a:b", "A b"]  # the last three are one file name if careless
    new = {f"client-{i}": name for i, name in enumerate(odd)}
    data = write_rows(
        tmp_path / "data.jsonl", [{**row, "client": new[row["client"]]} for row in rows()]
    )
    out = tmp_path / "[b] $x$ :x:"
    settings = ["algorithm.name=scaffold", "work.optimizer=sgd", "cohort.size=5"]
    said = call("run", world.config, "--out", out, "--set", f"data.source={data}", *settings)
    assert said.code == 0, said
    assert set(Run.open(out).rounds[-1].record.kept) == set(odd)
    assert len(list((out / "clients").iterdir())) >= 5
    assert str(out) in call("show", out).out and call("verify", out).code == 0
    assert out.name in call("runs", tmp_path).out
    copy = shutil.copy(data, tmp_path / "[b].jsonl")
    said = call("eval", out, "--data", copy)
    assert "[b].jsonl" in "".join(said.out.split())  # a long path takes several lines


def test_one_is_no_plural(call: Call, world: World, tmp_path: Path):
    data = write_rows(tmp_path / "data.jsonl", rows(clients=1))
    settings = ["--set", f"data.source={data}", "rounds=1"]
    said = call("run", world.config, "--out", tmp_path / "run", *settings)
    said.refused(2, "only 1 client is registered")
    said = call("run", world.config, "--out", tmp_path / "run", *settings, "cohort.size=1")
    assert "1 client," in said.err and "1 clients" not in said.err
    assert "1 clients" not in call("data", world.config, *settings).out
