"""What a model may do in a chat: read freely, act only with a yes, state only what facts say."""

import json
import os
from dataclasses import replace

import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from agents import experiment
from agents.copilot.copilot import Copilot
from agents.copilot.desk import ACTS, TOOLS
from agents.copilot.events import Again, Approval, Event, Failed, Outcome, Text
from agents.copilot.records import Asked, Decided
from federation.config import Config
from federation.errors import ConfigError, LockedError
from federation.runs import journal
from federation.runs.run import Run
from llm_tools import CallFailed, Failure
from tests.agents.copilot.conftest import CANARIES, ORDER, calls, prompts, tree

PROPOSE = ("propose_hyperparameters", {"lr": 0.005, "why": "the loss still falls"})
ACTIONS = {
    "propose_hyperparameters": {"lr": 0.005},
    "select_clients": {"exclude": ["c1"]},
    "run_experiment": {"rounds": 1},
    "generate_synthetic_data": {"clients": [{"domain": "bank", "size": 5}]},
    "what_if": {"round": 3, "scale_lr": 0.5},
}


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]  # type: ignore[attr-defined]


def test_every_action_is_tried_below():
    assert ACTIONS.keys() == ACTS


def test_reading_is_free_and_answers_come_with_their_facts(talking, run):
    before = tree(run)
    reads = calls(("get_facts", {}), ("explain_round", {"round": 2}), ("compare_runs", {}))
    with talking(reads, "I looked.") as (copilot, model):
        events = list(copilot.say("how is it going?"))
        told = [m for m in model.asked[-1] if isinstance(m, ToolMessage)]
    assert kinds(events) == ["call"] * 3 + ["facts"] * 3 + ["text"]
    assert events[-1] == Text(text="I looked.")
    loss = Run.open(run).history.rounds[2].loss.values()
    found = {fact.id: fact for fact in events[3].facts}
    assert found["loss@2"].value == pytest.approx(sum(loss) / len(loss), rel=1e-5)
    assert f"loss@2 = {found['loss@2'].value:g} nats per token (round 3)" in told[0].content
    assert [m.tool_call_id for m in told] == ["t1", "t2", "t3"]
    assert tree(run) == before


@pytest.mark.parametrize("name", ACTIONS)
def test_without_approval_nothing_is_done(name, talking, run):
    before = tree(run.parent)
    with talking(calls((name, ACTIONS[name])), "Well.") as (copilot, model):
        events = list(copilot.say("do it"))
        assert kinds(events) == ["call", "approval"]
        assert tree(run.parent) == before
        assert len(model.asked) == 1
        rejected = list(copilot.decide(events[-1].call, "reject", reason="not today"))
        assert tree(run.parent) == before
    assert [x.status for x in rejected if isinstance(x, Outcome)] == ["rejected"]
    last = model.asked[-1][-1]
    assert isinstance(last, ToolMessage) and last.status == "error"
    assert last.content == ("The person did not approve it; nothing was done. They say: not today")
    assert rejected[-1] == Text(text="Well.")


@pytest.mark.parametrize("name", ["propose_hyperparameters", "select_clients"])
def test_a_proposal_is_a_configuration_and_the_run_stays_as_it_is(name, talking, run):
    before = tree(run)
    with talking(calls((name, ACTIONS[name])), "Done.") as (copilot, _):
        (waiting,) = [x for x in copilot.say("go") if isinstance(x, Approval)]
        events = list(copilot.decide(waiting.call, "approve"))
    after = tree(run)
    (new,) = after.keys() - before.keys()
    assert {k: after[k] for k in before} == before
    own, config = Config.from_table(Run.open(run).config), Config.from_toml(run / new)
    if name == "select_clients":
        first = Run.open(run).history.decisions[0].clients[0]
        assert config.cohort.exclude == (first,)
        assert waiting.about == (f"c1 is {first}",)
        changed = config.model_copy(update={"cohort": own.cohort})
    else:
        assert config.work.lr == 0.005
        changed = config.model_copy(update={"work": own.work})
    assert changed == own
    assert str(run / new) in events[0].note


def test_a_run_is_started_within_the_budget_and_costs_of_it(talking, run):
    runs = [calls(("run_experiment", {"rounds": 2, "lr": 0.02}))] * 2
    with talking(runs[0], "One.", runs[1], "Two.", max_client_steps=16) as (copilot, _):
        (waiting,) = [x for x in copilot.say("run it") if isinstance(x, Approval)]
        assert "16 client-steps of 16 that are left" in waiting.about
        done = list(copilot.decide(waiting.call, "approve"))
        again = list(copilot.say("and again"))
    new = Run.open(run.parent / "first-chat-1")
    assert (new.status, len(new.rounds)) == ("finished", 2)
    assert new.history.decisions[0].work["lr"] == 0.02
    assert {"new_loss@1", "loss@2"} <= {fact.id for fact in done[0].facts}
    assert kinds(again) == ["call", "outcome", "text"]
    assert "16 client-steps would be needed and 0 are left" in again[1].shown


def test_made_up_data_is_written(talking, run):
    call = calls(("generate_synthetic_data", ACTIONS["generate_synthetic_data"]))
    with talking(call, "Made.") as (copilot, _):
        (waiting,) = [x for x in copilot.say("go") if isinstance(x, Approval)]
        (done, *_) = copilot.decide(waiting.call, "approve")
    rows = (run / "synthetic" / "set-1.jsonl").read_text().splitlines()
    assert len(rows) == 5 == next(x.value for x in done.facts if x.id == "rows_made")


def test_a_what_if_tells_the_model_no_single_client(talking, run):
    both = calls(("what_if", {"round": 3, "drop": ["c1"]}), ("what_if", ACTIONS["what_if"]))
    with talking(both, "Played.") as (copilot, _):
        one, many = [x for x in copilot.say("go") if isinstance(x, Approval)]
        (single, *rest) = copilot.decide(one.call, "approve")
        assert kinds(rest) == ["approval"]  # the other one still waits
        (cohort, *_) = copilot.decide(many.call, "approve")
    assert single.facts == () and "too few clients" in single.shown
    assert "test loss changes by" in single.note and "test loss changes by" not in single.shown
    assert {"whatif_scale_lr@2", "whatif_scale_lr_was@2"} <= {fact.id for fact in cohort.facts}


# -- the guard, and what a person may change


REFUSED = {
    "an unknown tool": (("rm", {}), "there is no such tool"),
    "an unknown argument": ((PROPOSE[0], {"lr": 0.01, "noise": 0.0}), "noise"),
    "no number": ((PROPOSE[0], {"lr": "high"}), "lr"),
    "far out of bounds": ((PROPOSE[0], {"lr": 5.0}), "lr 5 is outside 0.001 to 0.1"),
    "no evidence": ((PROPOSE[0], {"lr": 0.01, "evidence": ["loss@99"]}), "no fact that was shown"),
    "nothing": ((PROPOSE[0], {}), "nothing is proposed"),
    "an unknown client": (("select_clients", {"exclude": ["c77"]}), "there is no client c77"),
    "a client's name": (("select_clients", {"exclude": [CANARIES[0]]}), "should match pattern"),
    "most clients": (("select_clients", {"exclude": ["c1", "c2", "c3"]}), "more than half"),
    "too large a run": (("run_experiment", {"rounds": 900}), "client-steps would be needed"),
    "a round to come": (("what_if", {"round": 9, "clip": 1.0}), "round 9 was not played"),
    "another domain": (
        ("generate_synthetic_data", {"clients": [{"domain": "army", "size": 5}]}),
        "domain",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_guard_refuses_before_a_person_is_asked(name, talking, run):
    call, words = REFUSED[name]
    before = tree(run.parent)
    with talking(calls(call), "Well.") as (copilot, model):
        events = list(copilot.say("go"))
    assert kinds(events) == ["call", "outcome", "text"]
    assert events[1].status == "refused" and words in events[1].shown
    assert words in prompts(model)
    assert tree(run.parent) == before


@pytest.mark.parametrize(
    "args", [{"lr": 5.0}, {"lr": "0.004"}, {"lr": 0.004, "noise": 0}, {}, {"steps": 2.5}]
)
def test_an_edit_outside_the_schema_or_the_bounds_is_refused(args, talking, run):
    before = tree(run)
    with talking(calls(PROPOSE), "Done.") as (copilot, _):
        (waiting,) = [x for x in copilot.say("go") if isinstance(x, Approval)]
        with pytest.raises(ConfigError, match="the edit is refused"):
            list(copilot.decide(waiting.call, "edit", args=args))
        assert [x.call for x in copilot.pending] == [waiting.call]
        assert tree(run) == before
        list(copilot.decide(waiting.call, "edit", args={"lr": 0.004}))
        shown = copilot.desk.chat.results[waiting.call].shown
    assert Config.from_toml(run / "proposals" / "proposal-1.toml").work.lr == 0.004
    assert 'The person changed the arguments before it was carried out: {"lr": 0.004}' in shown


def test_what_was_decided_once_cannot_be_decided_again(talking):
    with talking(calls(PROPOSE), "Done.") as (copilot, _):
        (waiting,) = [x for x in copilot.say("go") if isinstance(x, Approval)]
        for verdict, args in (("edit", None), ("approve", {"lr": 0.01})):
            with pytest.raises(ConfigError, match="an edit needs arguments"):
                list(copilot.decide(waiting.call, verdict, args=args))
        list(copilot.decide(waiting.call, "approve"))
        with pytest.raises(ConfigError, match="no call 't1' waits"):
            list(copilot.decide(waiting.call, "approve"))


def test_to_go_on_talking_is_to_reject(talking, run):
    with talking(calls(PROPOSE), "All right.") as (copilot, model):
        list(copilot.say("go"))
        assert list(copilot.say("never mind"))[-1] == Text(text="All right.")
    assert isinstance(model.asked[-1][-1], HumanMessage)
    assert "did not approve" in model.asked[-1][-2].content
    assert not (run / "proposals").exists()


def test_noise_for_privacy_closes_what_would_weaken_it(talking, run):
    with talking(*[calls(x) for x in ACTIONS.items()], "Well.") as (copilot, _):
        ground = copilot.desk.ground()
        upload = ground.config.upload.model_copy(update={"clip": 1.0, "noise": 1.0})
        noisy = ground.config.model_copy(update={"upload": upload})
        found = {}
        for name in ACTIONS:
            tool = TOOLS[name]
            args = tool.args.model_validate_json(json.dumps(ACTIONS[name]))
            found[name] = list(tool.faults(replace(ground, config=noisy), args))
        larger = TOOLS[PROPOSE[0]].args.model_validate({"cohort_size": 5})
        assert "cohort_size decides" in " ".join(
            TOOLS[PROPOSE[0]].faults(replace(ground, config=noisy), larger)
        )
    closed = {name for name, faults in found.items() if any("noise" in x for x in faults)}
    assert closed == {"select_clients", "run_experiment", "what_if"}


# -- what is answered


def test_an_unsupported_number_is_refused_once_and_then_marked(talking):
    wrong = "The loss is 99.5 [loss@2]."
    with talking(calls(("get_facts", {})), wrong, wrong) as (copilot, model):
        events = list(copilot.say("how is it?"))
    assert kinds(events)[-2:] == ["again", "text"]
    assert events[-2] == Again(problems=("99.5 is in no cited fact",))
    assert "99.5 is in no cited fact" in model.asked[-1][-1].content
    (doubt,) = events[-1].doubts
    assert (doubt.sentence, doubt.problems) == (wrong, ("99.5 is in no cited fact",))


def test_a_mended_answer_is_shown_without_marks(talking):
    with talking("There are 3 rounds.", calls(("get_facts", {})), lambda: None) as (copilot, model):
        good = "There are 3 rounds [rounds_played]."
        model.script = [*model.script[:2], good]
        events = list(copilot.say("how many?"))
    assert kinds(events) == ["again", "call", "facts", "text"]
    assert events[-1] == Text(text=good)


def test_words_beside_calls_are_shown_as_unchecked(talking):
    said = calls(("get_facts", {}), text="It is 99.5, I guess.")
    with talking(said, "Looked.") as (copilot, _):
        first, *_ = copilot.say("?")
    assert first == Text(text="It is 99.5, I guess.", checked=False)


# -- failures of the model


@pytest.mark.parametrize("kind", [Failure.UNREACHABLE, Failure.TIMEOUT, Failure.TOO_LARGE])
def test_a_failure_is_one_line_and_can_be_asked_again(kind, talking):
    with talking(CallFailed(kind, "no\nluck"), "Here I am.") as (copilot, _):
        assert list(copilot.say("?")) == [Failed(reason=f"{kind}: no luck")]
        assert copilot.unanswered
        assert list(copilot.go_on()) == [Text(text="Here I am.")]
        assert not copilot.unanswered


def test_a_model_that_never_answers_is_stopped(talking):
    with talking(*[calls(("compare_runs", {}))] * 50) as (copilot, model):
        events = list(copilot.say("?"))
    assert "12 times without an answer" in events[-1].reason
    assert len(model.asked) == 12


def test_what_a_failed_deed_says_is_for_the_person_alone(talking, run, monkeypatch):
    with talking(calls(("run_experiment", {"rounds": 1})), "Oh.") as (copilot, model):
        (waiting,) = [x for x in copilot.say("go") if isinstance(x, Approval)]
        data = Config.from_table(Run.open(run).config).data.source

        def fails(*args, **rest):
            raise ConfigError(f"{CANARIES[0]} in {data} is odd")

        monkeypatch.setattr(experiment, "run_experiment", fails)
        (outcome, *_) = copilot.decide(waiting.call, "approve")
    assert outcome.status == "failed" and CANARIES[0] in outcome.note
    assert CANARIES[0] not in prompts(model) and "It failed" in prompts(model)


# -- privacy and injection


def test_no_name_and_no_text_of_a_client_is_ever_in_a_prompt(talking, run):
    clients = Run.open(run).history.decisions
    assert CANARIES[0] in {name for d in clients.values() for name in d.clients}
    reads = [(name, {}) for name in ("get_facts", "compare_runs")]
    reads += [("explain_round", {"round": n}) for n in (1, 2, 3)]
    reads += [("compare_runs", {"run": "r1"})]
    acts = list(ACTIONS.items())
    acts += [("what_if", {"round": 3, "drop": ["c1", "c2"]})]
    script = [calls(*reads), "Looked.", calls(*acts), "Done.", "Right."]
    with talking(*script, max_client_steps=500) as (copilot, model):
        list(copilot.say(f"what of {CANARIES[0]}, and of {ORDER}?"))
        list(copilot.say("do it all"))
        while copilot.pending:
            list(copilot.decide(copilot.pending[0].call, "approve"))
        list(copilot.say(f"compare with {ORDER.replace(' ', '-')}"))
        results = copilot.desk.chat.results.values()
        offered = json.dumps([x.args.model_json_schema() for x in TOOLS.values()])
    assert [x.status for x in results] == ["done"] * len(results) and len(results) == 12
    sent = (prompts(model) + offered).casefold()
    assert "what of c" in sent
    for canary in (*CANARIES, ORDER, ORDER.replace(" ", "-"), "client-3", str(run.parent)):
        assert canary.casefold() not in sent, canary


def test_an_obeyed_injection_still_waits_for_a_person(talking, run):
    before = tree(run.parent)
    obeys = calls(("run_experiment", {"rounds": 1}), ("select_clients", {"exclude": ["c1"]}))
    with talking(calls(("get_facts", {}), ("compare_runs", {})), obeys) as (copilot, _):
        events = list(copilot.say("how is it?"))
        assert {x.name for x in copilot.pending} == {"run_experiment", "select_clients"}
    assert kinds(events)[-2:] == ["approval", "approval"]
    assert tree(run.parent) == before


# -- the journal, and kills


def test_a_chat_is_chained_and_the_journal_of_the_run_is_left_alone(talking, run):
    before = (run / "journal.jsonl").read_bytes()
    with talking(calls(PROPOSE), "Done.") as (copilot, model):
        list(copilot.say("go"))
        list(copilot.decide("t1", "approve"))
        records, path = copilot.desk.chat.records, copilot.desk.chat.path / "journal.jsonl"
    assert path == run / "chats" / "1" / "journal.jsonl"
    assert (run / "journal.jsonl").read_bytes() == before
    assert journal.verify(path).fault is None
    asked = [r for r in records if isinstance(r, Asked)]
    assert len({r.prompt_sha256 for r in asked}) == len(model.asked) == 2
    assert all(len(r.prompt_sha256) == 64 for r in asked)
    line = path.read_bytes().replace(b"still falls", b"still rises")
    path.write_bytes(line)
    assert journal.verify(path).fault


def test_after_a_kill_what_waited_waits_and_is_told_as_ever(talking, run):
    with talking(calls(("get_facts", {}), PROPOSE)) as (copilot, _):
        list(copilot.say("go"))
    with talking("Done.", chat="1") as (copilot, model):
        assert [x.name for x in copilot.pending] == [PROPOSE[0]]
        events = list(copilot.decide(copilot.pending[0].call, "approve"))
    assert (run / "proposals" / "proposal-1.toml").exists()
    assert events[-1] == Text(text="Done.")
    said = [m.type for m in model.asked[0]]
    assert said == ["system", "human", "ai", "tool", "tool"]


def lines(run) -> list[bytes]:
    return (run / "chats" / "1" / "journal.jsonl").read_bytes().splitlines(keepends=True)


def test_after_a_kill_at_any_record_the_chat_goes_on(talking, run):
    script = [calls(("get_facts", {}), PROPOSE), "The rate is 7.", "It is 0.005 [proposed_lr]."]
    with talking(*script) as (copilot, _):
        list(copilot.say("go"))
        list(copilot.decide(copilot.pending[0].call, "approve"))
    whole = lines(run)
    assert len(whole) == 10
    for kept in range(2, len(whole) + 1):
        file = run / "chats" / "1" / "journal.jsonl"
        file.write_bytes(b"".join(whole[:kept]) + (whole[kept] if kept < 10 else b"")[:20])
        proposals = len(list((run / "proposals").iterdir()))
        rest = script if kept < 3 else ["It is 0.005 [proposed_lr]."] * 2
        with talking(*rest, chat="1") as (copilot, model):
            if copilot.unanswered:
                list(copilot.go_on())
            for waiting in copilot.pending:
                list(copilot.decide(waiting.call, "approve"))
            chat = copilot.desk.chat
            answered = chat.results.values()
            assert {x.status for x in answered} <= {"done", "cut off"}
            assert len(answered) == 2 and not chat.open_calls and not copilot.unanswered
            killed = [x for x in answered if x.status == "cut off"]
            decided = [r for r in chat.records if isinstance(r, Decided)]
            assert len(decided) == 1
            # The deed whose record is missing is not done again: nobody knows how far it came.
            assert len(killed) == (kept == 5)
            done = len(list((run / "proposals").iterdir())) - proposals
            assert done == (kept < 5)
            if model.asked:
                check_messages(model.asked[-1])
        assert journal.verify(file).fault is None


def check_messages(messages) -> None:
    """Every call of a tool has one result, right behind it: servers refuse anything else."""
    open_calls: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            open_calls.remove(message.tool_call_id)
        else:
            assert open_calls == []
            open_calls = [call["id"] for call in getattr(message, "tool_calls", [])]
    assert open_calls == []


def test_a_chat_has_one_writer_and_a_name_that_is_there(talking):
    with talking() as (copilot, _), pytest.raises(LockedError), talking(chat="1"):
        assert isinstance(copilot, Copilot)
    with pytest.raises(ConfigError, match="has no chat '9' "), talking(chat="9"):
        pass


def test_a_long_conversation_is_cut_at_a_turn(talking, monkeypatch):
    from agents.copilot import agent

    monkeypatch.setattr(agent, "REMEMBERED", 1500)
    turn = [calls(("get_facts", {})), "Looked."]
    with talking(*turn * 4) as (copilot, model):
        for n in range(4):
            list(copilot.say(f"question {n}"))
    check_messages(model.asked[-1])
    humans = [m.content for m in model.asked[-1] if isinstance(m, HumanMessage)]
    assert humans[-1] == "question 3" and "question 0" not in humans


def test_nothing_is_traced_whatever_the_environment_says(talking, monkeypatch):
    with talking() as (copilot, model):
        seen: list[str | None] = []
        model.script = lambda messages: seen.append(os.environ.get("LANGSMITH_TRACING")) or "Fine."
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        assert list(copilot.say("?")) == [Text(text="Fine.")]
    assert seen == ["false"]
