"""The house keeps its shape: who imports whom, what is banned, what loads quickly."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "federation", "llm_tools", "ui")
MAY_IMPORT = {
    "federation": {"federation"},
    "llm_tools": {"llm_tools"},
    "agents": {"agents", "federation", "llm_tools"},
    "ui": set(PACKAGES) | {"benchmarks"},
}
OURS = ("llm_tools/", "agents/copilot/agent.py")  # who may know LangChain
ONLY_IN = {
    "flwr": ("federation/flower",),
    "streamlit": ("ui/",),
    "langchain": OURS,
    "langgraph": OURS,
    "langsmith": OURS,
}
BANNED = ("pickle", "random")


def files(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield the modules a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def faults(path: Path, package: str) -> list[str]:
    found = []
    for module in imported(path):
        top = module.split(".")[0]
        if top in PACKAGES and top not in MAY_IMPORT[package]:
            found.append(f"imports {module}")
        for library, home in ONLY_IN.items():
            if top.startswith(library) and not path.relative_to(ROOT).as_posix().startswith(home):
                found.append(f"imports {module}, which belongs in {' or '.join(home)}")
        if top in BANNED:
            found.append(f"imports {module}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package):
    assert {str(p): f for p in files(package) if (f := faults(p, package))} == {}


def test_a_wrong_import_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "federation").mkdir()
    wrong = tmp_path / "federation" / "x.py"
    wrong.write_text("import pickle\nfrom ui.main import main\ndef f():\n    import flwr\n")
    assert len(faults(wrong, "federation")) == 3


@pytest.mark.parametrize("library", ["langchain", "langchain_core.tools", "langgraph.types"])
def test_langchain_has_two_homes(library, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    places = ("llm_tools/x.py", "agents/copilot/agent.py", "agents/copilot/desk.py", "ui/x.py")
    found = []
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import {library}\n")
        found.append(len(faults(path, place.split("/")[0])))
    assert found == [0, 0, 1, 1]


CALLS = {"eval", "exec"}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_dangerous_is_called(package):
    for path in files(package):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}: a bare except"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in CALLS, f"{path}:{node.lineno}: {node.func.id}"
        for word in ("torch.load(", "trust_remote_code=True", "shell=True", "allow_pickle=True"):
            assert word not in text, f"{path}: {word}"


@pytest.mark.parametrize(
    "module",
    ["federation", "federation.runs.run", "federation.config", "ui.main", "agents.copilot.copilot"],
)
def test_light_modules_load_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


NAMES = slice(0, 26)  # the columns of the README's tree that hold names


def named_in_tree(text: str) -> set[str]:
    """Return the modules of federation that the README's tree names, as ``folder/module``."""
    block = text.split("```\nfederation/ ")[1].split("\nllm_tools/")[0]
    named, folder = set(), ""
    for line in block.splitlines()[1:]:
        names = line[NAMES].split()
        if not line.startswith("    "):
            folder = names[0] if names[0].endswith("/") else ""
        named |= {f"{folder}{name}" for name in names if not name.endswith("/")}
    return named


def test_the_readme_names_every_module():
    there = {
        path.relative_to(ROOT / "federation").with_suffix("").as_posix()
        for path in files("federation")
        if path.stem != "__init__" and "organisations" not in path.parts
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert there - named_in_tree(text) == set()
    assert named_in_tree(text) - there == set()
