"""On a shared server no page sends a client's name to the browser, whatever it is about."""

import io
import tomllib
import zipfile
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1.local_script_runner import LocalScriptRunner

from agents.copilot import records
from agents.copilot.records import Answered, Asked, Call, Result, Said
from agents.study.ledger import Study, writing
from agents.study.records import Arm, Measured, Stopped
from agents.study.spec import from_table
from federation.runs.records import (
    ContributionsRecord,
    DecisionRecord,
    Effect,
    EndRecord,
    EvaluationRecord,
    ExplanationRecord,
    RollbackRecord,
    RoundRecord,
    WarningRecord,
    WhatIfRecord,
)
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open
from tests.ui.web.made_uicompare import STUDY
from tests.ui.web.made_uinew import instead
from tests.ui.web.recorded import config, record, start
from ui.web import studies
from ui.web.naming import Naming

SECRET = "Zebra Clinic"
CLIENTS = tuple(f"{SECRET} {n}" for n in "ABC")
UNASKED = f"{SECRET} Z"
TELLS = f"because {CLIENTS[0]} and {CLIENTS[2].lower()} are late"


def told(path: Path, end: str = "finished") -> Path:
    """Write a run whose records name clients wherever they can."""
    cfg = config(2)
    with RunWriter.create(path, cfg.model_dump_json()) as writer:
        writer.append(start(writer, cfg))
        writer.append(WarningRecord(about="client", text=TELLS))
        for n in range(2):
            of_round(writer, n)
        effect = Effect(mean=0.1, low=0.05, high=0.2, values=(0.1, 0.2))
        effects = dict.fromkeys(CLIENTS[:2], effect)
        writer.append(EndRecord(status=end, reason=TELLS))  # type: ignore[arg-type]
    with RunWriter.amend(path) as writer:
        writer.append(
            ContributionsRecord(
                round=1, was=(1.0, 1.0), effects=effects, own=effects, updates="kept",
                reproduced=True, seconds=1.0,
            )
        )  # fmt: skip
        writer.append(
            WhatIfRecord(
                round=1, rounds=1, change={"drop": [CLIENTS[0]], "reweight": {CLIENTS[1]: 2.0}},
                was=(1.0,), would_be=(1.1,), effect=effect, updates="kept", reproduced=True,
                same=False, seconds=1.0,
            )
        )  # fmt: skip
    return path


def of_round(writer: RunWriter, n: int) -> None:
    """Write a round of which everything tells who it was."""
    filling = {
        "policy": "fill@1", "population": 3, "mean": 9.0, "made": 3, "asked": {UNASKED: 3},
    }  # fmt: skip
    details = {
        "applied": {"lr": 0.01}, "verdict": "rejected", "violations": [TELLS],
        "proposal": {"values": {"lr": 0.01}, "rationale": TELLS, "source": "llm", "evidence": []},
        "trace": {"raw": TELLS, "note": TELLS}, "person": {"by": CLIENTS[0], "answer": "approve"},
        "synthetic": filling,
    }  # fmt: skip
    writer.append(
        DecisionRecord(
            round=n, source="fallback", policy="plateau@1", clients=CLIENTS, reason=TELLS,
            work={"lr": 0.01, "steps": 4}, details=details,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    writer.append(ExplanationRecord(round=n, source="llm", text=TELLS))
    figures = dict.fromkeys((*CLIENTS, UNASKED), 1.0)
    metrics = {"nll": 2.0, "nll_worst_decile": 3.0, "nll_std": 0.5}
    for split in ("test", "clients"):
        writer.append(
            EvaluationRecord(
                round=n, subject="federated", split=split, metrics=metrics,
                per_client={"nll": figures},
            )
        )  # fmt: skip
    if n == 1:
        writer.append(RollbackRecord(round=0, to=None, loss=9.0, limit=3.0, reason=TELLS))
    writer.append(
        RoundRecord(
            round=n, clients=CLIENTS[:2], missing={CLIENTS[2]: TELLS}, bytes_up=1, bytes_down=1,
            loss=dict.fromkeys(CLIENTS[:2], 1.0), update_norms=dict.fromkeys(CLIENTS[:2], 1.0),
            seconds=1.0, tokens=1, client_steps=1,
        )
    )  # fmt: skip


def studied(path: Path) -> Path:
    """Write a study with an arm without a client, and a run of it that names clients."""
    without = f'cohort.exclude=["{UNASKED}"]'
    table = tomllib.loads(STUDY)
    table["question"] = f"Is {CLIENTS[0]} worth it?"
    arms = {"plain": [], "hot": [without], "zebra-clinic-b": [f'cohort.exclude=["{CLIENTS[1]}"]']}
    with writing(path, from_table(table | {"arms": arms}, "it")) as ledger:
        told(path / "runs" / "plain-seed-0")
        told(path / "runs" / "zebra-clinic-b-seed-0")
        for seed in range(4):
            ledger.append(
                Measured(
                    run=f"plain-seed-{seed}", arm="plain", seed=seed, client_steps=1,
                    validation=seed,
                )
            )  # fmt: skip
        for name, overrides in arms.items():
            ledger.append(Arm(name=name, overrides=tuple(overrides), source="agent", why=TELLS))
        ledger.append(Stopped(why=TELLS))
    (path / "report.md").write_text(TELLS)
    return path


def talked(run: Path) -> str:
    """Write a chat in which clients are named; return its name."""
    with records.writing(run) as chat:
        call = Call(id="1", name="facts", args={"about": CLIENTS[0]})
        for record in (
            Said(text=TELLS),
            Asked(text=TELLS, calls=(call,)),
            Result(call="1", status="done", shown=TELLS, note=TELLS),
            Answered(text=f"{TELLS}\n  {TELLS}"),
        ):
            chat.append(record)
        return chat.path.name


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that pages send to the browser."""
    found: list[bytes] = []
    forward = LocalScriptRunner.forward_msgs

    def forward_msgs(self: LocalScriptRunner) -> object:
        found.extend(message.SerializeToString() for message in forward(self))
        return forward(self)

    monkeypatch.setattr(LocalScriptRunner, "forward_msgs", forward_msgs)
    instead(monkeypatch)
    return found


def test_no_client_is_named_by_a_study(
    open_page: Open, runs: Path, sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = studied(runs / "rates")
    open_page("studies")
    assert named(sent)  # what is looked for can be found
    sent.clear()
    st.cache_resource.clear()
    monkeypatch.setenv("FEDPILOT_SHARED", "1")
    open_page("studies")
    assert len(sent) > 3 and named(sent) == []
    naming = studies.naming(Study.open(path))
    with zipfile.ZipFile(io.BytesIO(studies.report(path, naming))) as packed:
        assert [named([packed.read(name)]) for name in packed.namelist()] == [[]]


PAGES = {
    "runs": {},
    "live": {},
    "decisions": {"round": "2", "table": "true", "answer": "true"},
    "clients": {"names": "names", "pick": CLIENTS[0], "parts": "true"},
    "compare": {"view": "what-if", "names": "names"},
    "playground": {},
    "new": {},
    "new_study": {},
}


@pytest.mark.parametrize("end", ["finished", "failed"])
@pytest.mark.parametrize("page", PAGES)
def test_no_client_is_named(
    open_page: Open, runs: Path, sent: list[bytes], monkeypatch: pytest.MonkeyPatch, page: str,
    end: str,
) -> None:  # fmt: skip
    told(runs / "one", end)
    monkeypatch.setattr("ui.web.playing.clients_alone", lambda run: list(CLIENTS))
    query = {{"new": "like", "new_study": "of"}.get(page, "run"): "one", **PAGES[page]}
    if page == "playground" and end == "failed":
        query |= {"view": "Copilot", "chat": talked(runs / "one")}
    open_page(page, **query)
    if page not in ("runs", "new", "new_study"):
        assert named(sent)  # what is looked for can be found
    sent.clear()
    st.cache_data.clear()
    st.cache_resource.clear()
    monkeypatch.setenv("FEDPILOT_SHARED", "1")
    app = open_page(page, **query)
    for box in app.selectbox:
        box.run()
    assert len(sent) > 3
    assert not named(sent), page


def named(sent: list[bytes]) -> list[bytes]:
    """Return what names a client."""
    return [x for x in sent if SECRET.lower().encode() in x.lower()]


def test_runs_that_are_compared_name_no_client(
    open_page: Open, runs: Path, sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(runs / "one")
    cohort = {"size": 3, "exclude": [CLIENTS[1], f"{SECRET} never asked"]}
    record(runs / "two", cohort=cohort)
    record(runs / "three", cohort={"size": 2}, data={"source": f"/data/{CLIENTS[0]}.jsonl"})
    query = {"runs": "one,two,three"}
    open_page("compare", **query)
    assert named(sent)
    sent.clear()
    monkeypatch.setenv("FEDPILOT_SHARED", "1")
    app = open_page("compare", **query)
    assert len(sent) > 3
    assert not named(sent), query
    table = app.dataframe[1].value.set_index("key")
    assert table.loc["cohort.exclude", "two"] == "c2, n2"
    assert table.loc["cohort.size", "three"] == "2"


def test_a_client_of_several_runs_has_one_pseudonym(runs: Path) -> None:
    one, two = Run.open(told(runs / "one")), Run.open(record(runs / "two"))
    together = Naming.hidden([one, two])
    assert together.pseudonyms is not None
    alone = Naming.of(one, "pseudonyms").pseudonyms
    assert alone is not None
    assert {c: together.client(c) for c in CLIENTS} == {c: alone[c] for c in CLIENTS}
    assert len(set(together.pseudonyms.values())) == len(together.pseudonyms)
    assert {f"client-{n}" for n in range(4)} <= set(together.pseudonyms)
