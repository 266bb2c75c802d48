"""Made-up federations: profiles, templates, models, votes and cards."""

import json
import os
import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st

from agents.synthesis import make as making
from agents.synthesis.card import as_markdown, card_of, skew
from agents.synthesis.make import ModelFailed, Synthetic, synthesize
from agents.synthesis.private import noise_from, read_private
from agents.synthesis.profile import Profile, profile_of, quotas, wanted
from agents.synthesis.publish import Files, publish
from federation.config import Config
from federation.data.clients import Column, group
from federation.data.dataset import load_data
from federation.data.heterogeneity import report
from federation.data.organisations import check, dataset
from federation.errors import ConfigError, DataError
from federation.training.base import load_tokenizer
from llm_tools import CallFailed, Failure
from llm_tools.scripted import ScriptedChat
from tests.agents.made_up import (
    CANARY,
    VOTES,
    baker,
    own_words,
    private_file,
    profile,
)

EXAMPLE = Path(__file__).parents[2] / "ui" / "profile.toml"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    """Let a function answer for whatever model is named."""

    def install(script) -> ScriptedChat:
        model = ScriptedChat(script=script)
        monkeypatch.setattr(making, "chat_model", lambda spec: model)
        monkeypatch.setattr("llm_tools.synthesis.generation.chat_model", lambda spec: model)
        return model

    return install


def rows_of(made: Synthetic) -> list[str]:
    return [row.model_dump_json() for row in made.rows]


# --- profiles -----------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.integers(1, 500))
def test_quotas_add_up_and_are_within_a_row_of_their_share(shares, size):
    found = quotas(shares, size)
    assert sum(found) == size
    assert all(
        abs(n - size * x / sum(shares)) < 1 + 1e-9 for n, x in zip(found, shares, strict=True)
    )


def test_the_example_is_a_profile_and_so_is_what_it_comments_out():
    text = EXAMPLE.read_text(encoding="utf-8")
    plain = Profile.from_toml(EXAMPLE)
    assert len(wanted(plain, templates=True)) > 40
    opened = re.sub(r"^#(?=[\[\w\"])", "", text, flags=re.MULTILINE)
    whole = Profile.from_table(tomllib.loads(opened))
    assert whole.votes and whole.meanings and whole.filters.canaries
    keys = {
        key for model in (whole.writer, whole.votes, whole.gate) for key in type(model).model_fields
    }
    assert all(re.search(rf"^#?{key} =", text, re.MULTILINE) for key in keys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clients": {}}, "clients"),
        ({"clients": {"a": {"domain": "bank"}}}, "size"),
        ({"clients": {"a": {"domain": "bank", "size": 0}}}, "clients.a.size"),
        ({"clients": {"a": {"domain": "bank", "size": 1, "length": [9, 3]}}}, "fewest (9)"),
        ({"clients": {"a": {"domain": "bank", "size": 1, "labels": {"x": 0}}}}, "labels.x"),
        ({"clinets": {}}, "did you mean clients"),
        ({"meanings": {"nobody": "has it"}}, "no client has the label 'nobody'"),
        ({"votes": {"epsilon": 0}}, "votes.epsilon"),
        ({"gate": {"seeds": 1}}, "gate.seeds"),
    ],
)
def test_what_is_wrong_with_a_profile_is_one_line(change, words):
    with pytest.raises(ConfigError) as error:
        profile(**change)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("client", "words"),
    [
        ({"domain": "bakery"}, "know no domain 'bakery'"),
        ({"style": "rude"}, "know no style 'rude'"),
        ({"labels": {"bread": 1}}, "know no label 'bread'"),
        ({"language": "Urdu"}, "templates write English"),
    ],
)
def test_templates_say_what_they_do_not_know(client, words):
    table = {"clients": {"x": {"domain": "bank", "size": 3, **client}}}
    with pytest.raises(ConfigError, match=words):
        wanted(profile(table), templates=True)


def test_a_federation_that_there_is_can_be_asked_for_again():
    rows = list(dataset(3, clients=3, total=90))
    names, owners = np.unique([row["client"] for row in rows], return_inverse=True)
    labels, codes = np.unique([row["label"] for row in rows], return_inverse=True)
    there = report(group(owners, tuple(names.tolist())), Column(codes, labels.tolist()))
    again = profile_of(there, {row["client"]: row["domain"] for row in rows})
    found = {(x.client, x.label): n for x, n in wanted(again, templates=True).items()}
    assert found == Counter((row["client"], row["label"]) for row in rows)


def test_what_is_not_installed_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.synthesis.publish.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs datasketch: pip install"):
        publish(profile(), tmp_path / "set.jsonl", seed=0, cache=tmp_path)


def test_a_model_needs_labels():
    with pytest.raises(ConfigError, match=r"clients\.x: a language model needs labels"):
        wanted(profile({"clients": {"x": {"domain": "bank", "size": 3}}}), templates=False)


# --- templates ----------------------------------------------------------------------------------


def test_templates_give_right_rows_in_the_mix_asked_for(tmp_path):
    made = synthesize(profile(), seed=1, cache=tmp_path)
    assert all(check(row.model_dump()) for row in made.rows)  # pyright: ignore[reportArgumentType]
    assert Counter((row.client, row.label) for row in made.rows) == {
        ("a", "lost card"): 9,
        ("a", "amount"): 3,
        ("b", "total"): 3,
        ("b", "date"): 3,
    }
    fields = next(dataset(0, clients=1, total=10)).keys()
    assert all(list(row.model_dump()) == list(fields) for row in made.rows)


def test_the_same_seed_gives_the_same_rows_and_another_others(tmp_path):
    one, again, other = (
        rows_of(synthesize(profile(), seed=seed, cache=tmp_path)) for seed in (1, 1, 2)
    )
    assert one == again and not set(one) & set(other)


def test_a_set_is_a_source_like_any_other(tmp_path):
    publish(profile(), tmp_path / "set.jsonl", seed=0, cache=tmp_path)
    config = Config.from_table(
        {
            "data": {
                "source": str(tmp_path / "set.jsonl"),
                "prompt": "{instruction}\n{context}",
                "response": "{response}",
                "clients": {"by": "key", "key": "client", "label": "label"},
            }
        }
    )
    data = load_data(config, load_tokenizer("nano"), tmp_path, tmp_path / "cache")
    assert data.clients.names == ("a", "b") and data.clients.sizes.tolist() == [12, 6]


def test_what_templates_cannot_make_is_said(tmp_path):
    table = {"clients": {"x": {"domain": "bank", "size": 400, "labels": {"opening hours": 1}}}}
    strict = profile(table, filters={"similar": 0.3, "shingle": 2})
    card = publish(strict, tmp_path / "set.jsonl", seed=0, cache=tmp_path)
    (short,) = card["missing"]
    assert short["asked"] == 400 and short["got"] == card["rows"] < 400
    assert card["refused"]["duplicate"] > 100
    text = Files(tmp_path / "set.jsonl").readable.read_text()
    assert f"| x | opening hours | 400 | {short['got']} |" in text


# --- private text -------------------------------------------------------------------------------


def test_text_that_is_not_named_is_not_read_and_without_votes_it_only_keeps_out(
    tmp_path, monkeypatch
):
    plain = synthesize(profile(), seed=1, cache=tmp_path)
    private = read_private([private_file(tmp_path)], "client")
    assert rows_of(synthesize(profile(), seed=1, cache=tmp_path, private=private)) == rows_of(plain)
    monkeypatch.setattr("agents.synthesis.private.read_records", None)
    card = publish(profile(), tmp_path / "set.jsonl", seed=1, cache=tmp_path)
    assert card["privacy"] == {"private_text": "none was read", "epsilon": 0.0, "votes": None}


def test_a_row_that_private_or_test_text_holds_does_not_come_out(tmp_path):
    plain = synthesize(profile(), seed=1, cache=tmp_path)
    longest = max(plain.rows, key=lambda row: len(row.context.split()))
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"note": f"he wrote: {longest.text}"}) + "\n")
    private = read_private([], "client", [file])
    made = synthesize(profile(), seed=1, cache=tmp_path, private=private)
    assert longest not in made.rows and len(made.rows) == len(plain.rows)
    card = card_of(profile(), made, private, seed=1)
    assert card["refused"]["protected"] >= 1 and card["leakage"]["longest_shared"] < 13
    assert card["privacy"]["epsilon"] is None
    assert "no guarantee" in as_markdown(card, "set")


def test_test_text_never_votes(tmp_path):
    private = read_private([], "client", [private_file(tmp_path)])
    with pytest.raises(ConfigError, match="--private"):
        synthesize(profile(votes=VOTES), seed=0, cache=tmp_path, private=private)


def test_a_client_is_a_value_of_the_key_or_else_a_file(tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("one line\nanother\n")
    private = read_private([private_file(tmp_path), other], "client")
    sizes = {name: len(texts) for name, texts in private.texts.items()}
    assert sizes == {"secret-0": 3, "secret-1": 10, "secret-2": 17, "secret-3": 24, str(other): 2}
    assert private.texts[str(other)] == ("one line", "another")
    assert "secret" not in private.all[0] and "hidden" not in private.all[0]


# --- votes --------------------------------------------------------------------------------------


def voted(tmp_path: Path, seed: int = 1, key: str = "key", clients: int = 4) -> Synthetic:
    folder = tmp_path / f"c{clients}"
    folder.mkdir(exist_ok=True)
    private = read_private([private_file(folder, clients)], "client")
    return synthesize(
        profile(votes=VOTES), seed=seed, cache=tmp_path, private=private, noise_key=tmp_path / key
    )


def test_votes_keep_the_mix_and_cost_what_the_card_says(tmp_path):
    made = voted(tmp_path)
    assert len(made.rows) == 18 and made.voters == 4
    private = read_private([private_file(tmp_path)], "client")
    spent = card_of(profile(votes=VOTES), made, private, seed=1)["privacy"]
    assert made.noise_multiplier is not None
    accountant = PLDAccountant()
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(made.noise_multiplier), 2))
    assert spent["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert 3.9 < spent["epsilon"] <= 4.0
    assert spent["votes"]["clients"] == 4 and "not that rows" in spent["covers"]


def test_the_noise_is_a_secret_of_its_own(tmp_path):
    private = read_private([private_file(tmp_path)], "client")
    more = read_private([private_file(tmp_path, 5)], "client")
    one = noise_from(tmp_path / "k1", private)
    assert os.stat(tmp_path / "k1").st_mode & 0o777 == 0o600

    def drawn(noise, round=0, candidates=("x",)):
        return noise(round, candidates).normal(size=3).tolist()

    same = [drawn(one), drawn(one), drawn(noise_from(tmp_path / "k1", private))]
    assert same[0] == same[1] == same[2]
    others = [
        drawn(noise_from(tmp_path / "k2", private)),
        drawn(noise_from(tmp_path / "k1", more)),
        drawn(one, round=1),
        drawn(one, candidates=("y",)),
    ]
    assert all(same[0] != other for other in others)


def test_the_same_seed_and_secret_give_the_same_rows(tmp_path):
    assert rows_of(voted(tmp_path)) == rows_of(voted(tmp_path))
    assert rows_of(voted(tmp_path)) != rows_of(voted(tmp_path, key="another"))


# --- language models ----------------------------------------------------------------------------


def written(tmp_path: Path, *, votes: bool = False, **more):
    """Let a model write what templates do not know, with private text around."""
    asked = own_words(filters={"canaries": [CANARY]}, **({"votes": VOTES} if votes else {}))
    private = read_private([private_file(tmp_path)], "client")
    return asked, private, synthesize(
        asked,
        seed=2,
        cache=tmp_path / "cache",
        model="scripted:x",
        private=private,
        noise_key=tmp_path / "key",
        **more,
    )  # fmt: skip


@pytest.mark.parametrize("votes", [False, True])
def test_nothing_private_stands_in_a_prompt_or_comes_out(tmp_path, scripted, votes):
    model = scripted(baker)
    asked, private, made = written(tmp_path, votes=votes)
    prompts = "\n".join(str(m.content) for talk in model.asked for m in talk)
    out = "\n".join(rows_of(made))
    for word in ("Zanzibar", "Quux", "secret-", "hidden-", "harbour"):
        assert word.casefold() not in prompts.casefold()
        assert word.casefold() not in out.casefold()
    refused = sum((x.refused for x in made.made), Counter())
    assert refused["canary"] >= 1
    assert Counter(row.label for row in made.rows) == {"bread": 4, "cake": 2}
    card = card_of(asked, made, private, seed=2)
    assert card["leakage"]["canary_hits"] == 0 and card["leakage"]["canaries"] == 1
    assert card["source"]["prompts"].keys() == (
        {"synthesize@1", "vary@1"} if votes else {"synthesize@1"}
    )


def test_the_same_seed_and_cache_give_the_same_bytes_without_a_model(tmp_path, scripted):
    scripted(baker)
    first = written(tmp_path)[2]
    silent = scripted(lambda _: CallFailed(Failure.UNREACHABLE, "gone"))
    assert rows_of(written(tmp_path)[2]) == rows_of(first)
    assert not silent.asked


def test_a_server_that_is_gone_ends_the_call_and_the_next_goes_on(tmp_path, scripted):
    left = iter(range(2))

    def dies(messages):
        return baker(messages) if next(left, None) is not None else CallFailed(Failure.TIMEOUT, "?")

    scripted(dies)
    with pytest.raises(ModelFailed, match="run the same command again") as error:
        written(tmp_path)
    assert error.value.exit_code == 10
    model = scripted(baker)
    whole = rows_of(written(tmp_path)[2])
    assert model.asked
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    assert rows_of(written(undisturbed)[2]) == whole


def test_a_model_that_writes_nothing_is_an_error_and_too_little_is_said(tmp_path, scripted):
    scripted(lambda _: "I would rather not.")
    with pytest.raises(DataError, match="not a single row could be made: malformed"):
        written(tmp_path)
    (tmp_path / "more").mkdir()
    count = iter(range(100))

    def once(messages):
        return baker(messages) if next(count) == 0 else {"rows": []}

    scripted(once)
    asked, private, made = written(tmp_path / "more")
    card = card_of(asked, made, private, seed=2)
    assert {x["label"] for x in card["missing"]} >= {"cake"} and card["failures"]["invalid"] >= 1
    assert card["skew"][0]["distance"] > 0


def test_distance_of_label_mixes_by_hand(tmp_path):
    made = synthesize(profile(), seed=1, cache=tmp_path)
    only = tuple(row for row in made.rows if row.label != "amount" and row.client == "a")
    less = Synthetic(only, made.made, made.wanted, 0, None, None)
    a, b = skew(less)
    assert a["distance"] == pytest.approx(0.25) and 0 < a["divergence_bits"] < 1
    assert b["distance"] == b["divergence_bits"] == 1.0


def test_unusable_models_are_told_at_once(tmp_path):
    for model, words in (
        ("gpt", "names no language model"),
        ("scripted:no.jsonl", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            synthesize(own_words(), seed=0, cache=tmp_path, model=model)
