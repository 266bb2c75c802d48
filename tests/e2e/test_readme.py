"""What the README shows runs as it stands."""

import re
from pathlib import Path

import pytest

from federation.training.base import NANO

README = Path(__file__).resolve().parents[2] / "README.md"
EXPERIMENT = """
rounds = 2
[data]
source = "organisations"
count = 4
examples = 160
[work]
steps = 2
batch_size = 2
[cohort]
size = 2
[evaluation]
max_examples = 16
"""


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.skipif(not (NANO / "config.json").exists(), reason="the built-in model is not there")
@pytest.mark.parametrize("number", range(len(blocks())))
def test_python_example(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT, encoding="utf-8")
    exec(compile(blocks()[number], "README.md", "exec"), {})
    if "run.export" in blocks()[number]:
        assert (tmp_path / "first-adapter" / "adapter_config.json").exists()


def test_a_new_algorithm_takes_less_than_fifteen_lines():
    (block,) = (block for block in blocks() if "def majority" in block)
    body = block[block.index("def majority") : block.index("algorithm = majority()")]
    assert len(body.strip().splitlines()) < 15
