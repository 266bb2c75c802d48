"""The built-in client data: determinism, answers, variety, disjoint pre-training text."""

import re
from collections import Counter
from datetime import date, timedelta
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.address import generator
from federation.data.organisations import (
    check,
    dataset,
    example,
    examples,
    facts,
    general_words,
    organisations,
    pretraining_rows,
)
from federation.data.organisations.domain import NAMES, domain_named
from federation.data.organisations.organisation import labels_of
from federation.data.organisations.phrases import Choice, expand, parse
from federation.data.organisations.style import STYLES, mistype, write
from federation.errors import ConfigError

SEED = 7
ORGANISATIONS = organisations(SEED, 3 * len(NAMES), total=60_000, skew=0.5)
ROWS = [row for organisation in ORGANISATIONS for row in examples(organisation, SEED, 200)]
GENERAL = list(pretraining_rows(SEED, 6_000))


def prompt(row):
    return f"{row['instruction']}\n{row['context']}"


def joined(parts):
    return [row for part in parts for row in part]


def grams(rows, n):
    for row in rows:
        words = re.findall(r"\w+", f"{prompt(row)} {row['response']}".lower())
        yield from zip(*(words[i:] for i in range(n)), strict=False)


# --- by address ---------------------------------------------------------------------------------


def test_a_row_drawn_alone_is_the_row_of_the_stream():
    bank = ORGANISATIONS[3]
    assert [example(bank, 1, 4), example(bank, 1, 0)] == [
        row for i, row in reversed(list(enumerate(examples(bank, 1, 5)))) if i in (0, 4)
    ]


def test_the_federation_streams_its_organisations_in_order_and_by_size():
    federation = organisations(2, 7, total=300)
    rows = list(dataset(2, 7, 300))
    assert [row["client"] for row in rows] == [o.id for o in federation for _ in range(o.size)]
    assert rows == list(dataset(2, 7, 300))
    assert rows[:50] == list(islice(dataset(2, 7, 300), 50))
    assert rows != list(dataset(3, 7, 300))


def test_pretraining_rows_do_not_depend_on_how_many_are_drawn():
    assert GENERAL[:40] == list(pretraining_rows(SEED, 40))


# --- answers ------------------------------------------------------------------------------------


def test_every_answer_can_be_recomputed_from_its_text():
    assert [row for row in ROWS if not check(row)] == []


def test_a_changed_answer_does_not_pass_the_check():
    for row in ROWS[::7]:
        wrong = "complain" if row["task"] == "intent" else f"{row['response']}0"
        assert not check({**row, "response": wrong}), row


def test_extractions_are_copied_from_a_text_that_names_the_field_once():
    rows = [row for row in ROWS if row["task"] == "extraction"]
    assert {row["label"] for row in rows} == set(facts.FOUND)
    for row in rows:
        assert row["context"].count(row["response"]) == 1
        assert facts.FOUND[row["label"]].fullmatch(row["response"]), row
        # nothing of the field is left behind: "May 12" of "May 12, 2025" would be
        assert not re.search(re.escape(row["response"]) + r",? ?\d{4}\b", row["context"]), row


def test_date_answers_agree_with_the_calendar():
    """An oracle that shares no code with the generator: the standard library's date."""
    for row in (row for row in ROWS if row["label"] == "days later"):
        days = int(re.findall(r"\d+", row["instruction"])[0])
        day, month = re.findall(r"(\d+) ([A-Z][a-z]+)[.,]?", row["context"])[-1]
        when = date(2025, facts.MONTHS.index(month) + 1, int(day)) + timedelta(days)
        assert row["response"] == f"{when.day} {facts.MONTHS[when.month - 1]}", row


def test_word_problems_agree_with_the_words_they_use():
    """The operation follows from the wording, not only from the label."""
    operations = {
        "how much change": lambda a, b: abs(a - b),
        "how many in all": lambda a, b: a + b,
        "split among": lambda a, b: a // b,
        "equal": lambda a, b: max(a, b) // min(a, b),
        "times a day": lambda a, b: a * b,
        "%": lambda a, b: a * b / 100,
    }
    seen = Counter()
    for row in (row for row in ROWS if row["task"] == "arithmetic"):
        a, b = map(int, re.findall(r"\d+", row["context"]))
        for words, operation in operations.items():
            if words in row["context"].lower() and "each" not in row["context"].lower():
                assert operation(a, b) == int(row["response"]), row
                seen[words] += 1
    assert len(seen) >= 5


def test_rows_are_short_and_choices_hold_the_intent():
    for row in ROWS:
        assert 1 <= len(row["response"].split()) <= 6, row
        assert len(prompt(row)) < 500, row
        assert row["context"], row
        assert not re.search(r"[{}\[\]|\0]", prompt(row)), row
        assert (row["response"] in row["choices"]) == (row["task"] == "intent"), row


def test_general_rows_have_a_prompt_and_a_short_answer():
    for row in GENERAL:
        assert 1 <= len(row["response"].split()) <= 7, row
        assert row["context"], row
        assert not re.search(r"[{}\0]", prompt(row)), row
        assert not row["choices"] or row["response"] in row["choices"], row


COPIED = ("record", "story", "lookup", "copy", "spot", "position", "after", "wish", "question")


def test_what_a_general_row_asks_to_copy_stands_in_its_prompt():
    for row in (row for row in GENERAL if row["task"] in COPIED):
        assert row["response"] in prompt(row), row


# --- variety ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["city", "landlord"])  # the two least varied of all domains
def test_more_than_nine_in_ten_of_ten_thousand_prompts_of_a_domain_are_distinct(name):
    many = [o for o in organisations(0, 45, total=450) if o.domain == name]
    assert len(many) == 3
    rows = [prompt(row) for o in many for row in examples(o, 0, 3334)]
    assert len(set(rows)) > 0.9 * len(rows)


def test_pretraining_prompts_are_varied():
    assert len({prompt(row) for row in GENERAL}) > 0.95 * len(GENERAL)
    assert len({label for row in GENERAL for label in row["choices"]}) > 2_000


def test_every_label_of_every_domain_can_be_drawn():
    for name in NAMES:
        assert 8 <= len(domain_named(name).intents) <= 15, name
    for organisation in organisations(0, 45, total=45, skew=0):
        for at in range(0, len(organisation.labels)):
            weights = tuple(float(i == at) for i in range(len(organisation.labels)))
            sure = type(organisation)(**{**vars_of(organisation), "weights": weights})
            assert all(check(row) for row in examples(sure, 1, 3))


def vars_of(organisation):
    return {name: getattr(organisation, name) for name in organisation.__dataclass_fields__}


def test_every_phrasing_has_words_for_every_slot():
    def slots(phrase):
        for part in phrase:
            if isinstance(part, Choice):
                for option in part:
                    yield from slots(option)
            elif type(part) is not str:
                yield str(part)

    for name in NAMES:
        domain = domain_named(name)
        phrasings = [text for texts in domain.intents.values() for text in texts]
        assert {slot for text in phrasings for slot in slots(parse(text))} <= set(domain.slots)


def test_no_phrasing_belongs_to_two_intents():
    for name in NAMES:
        phrasings = Counter(t for texts in domain_named(name).intents.values() for t in set(texts))
        assert max(phrasings.values()) == 1, phrasings.most_common(1)


# --- what pre-training may not have seen -------------------------------------------------------


def test_no_name_and_no_label_is_shared_with_pretraining():
    intents = {label for name in NAMES for label in domain_named(name).intents}
    made_up = {f"{verb} {thing}" for verb in general_words.VERBS for thing in general_words.THINGS}
    made_up |= {f"{thing} {a}" for a in general_words.ASPECTS for thing in general_words.THINGS}
    assert not intents & (made_up | set(general_words.GROUPS) | set(general_words.ASPECTS))
    assert not intents & {choice for row in GENERAL for choice in row["choices"]}
    assert not {label for name in NAMES for _, label in labels_of(domain_named(name))} & {
        row["label"] for row in GENERAL
    }
    assert not set(facts.GIVEN) & set(general_words.GIVEN)
    assert not set(facts.FAMILY) & set(general_words.FAMILY)


def test_no_rewriting_fact_is_shared_with_pretraining():
    for name in NAMES:
        domain = domain_named(name)
        assert not set(domain.plurals) & set(general_words.PLURALS), name
        assert not set(domain.plurals) & set(general_words.THINGS), name
        assert not {o for row in GENERAL for o in row["context"].split()} & set(domain.prefixes)


def test_no_instruction_or_prompt_and_no_five_words_in_a_row_are_shared_with_pretraining():
    assert not {row["instruction"] for row in ROWS} & {row["instruction"] for row in GENERAL}
    assert not {prompt(row) for row in ROWS} & {prompt(row) for row in GENERAL}
    assert not set(grams(ROWS, 5)) & set(grams(GENERAL, 5))


def test_years_do_not_overlap():
    years = re.compile(r"\b(?:19|20)\d\d\b(?=-\d\d-\d\d|$)")
    ours = {y for row in ROWS if row["task"] == "dates" for y in years.findall(row["context"])}
    assert ours and min(ours) >= "2024"
    theirs = {
        y for row in GENERAL if row["task"] == "story" for y in years.findall(row["response"])
    }
    assert theirs and max(theirs) <= "2019"


# --- the federation -----------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 5_000), st.floats(0, 3))
@settings(max_examples=50, deadline=None)
def test_sizes_sum_to_the_total_and_follow_the_power_law(count, more, exponent):
    sizes = sorted(
        (o.size for o in organisations(1, count, total=count + more, exponent=exponent)),
        reverse=True,
    )
    assert sum(sizes) == count + more
    assert min(sizes) >= 1
    share = np.arange(1, count + 1) ** -exponent
    assert np.abs(np.array(sizes) - 1 - more * share / share.sum()).max() <= 1


def test_organisations_differ_and_share_their_domain():
    federation = organisations(5, 12)
    assert len({o.id for o in federation}) == 12
    assert all(re.fullmatch(r"[a-z]+-\d+", o.id) for o in federation)
    assert sorted(Counter(o.domain for o in federation).values()) == [3, 3, 3, 3]
    assert len({o.weights for o in federation}) == 12
    assert len({o.style for o in ORGANISATIONS}) == len(STYLES)
    for o in federation:
        assert sum(o.weights) == pytest.approx(1)
        assert o.labels == labels_of(domain_named(o.domain))


def test_rows_follow_the_label_mix():
    o = organisations(0, 1, total=1, skew=0.3)[0]
    seen = Counter((row["task"], row["label"]) for row in examples(o, 0, 5_000))
    for label, weight in zip(o.labels, o.weights, strict=True):
        assert abs(seen[label] / 5_000 - weight) < 5 * (weight * (1 - weight) / 5_000) ** 0.5 + 1e-3


def test_skew_moves_label_mixes_apart():
    def spread(skew):
        mixes = np.array([o.weights for o in organisations(0, 3, skew=skew)])
        return np.abs(mixes - mixes.mean(0)).sum(1).mean()

    assert spread(0) == pytest.approx(0)
    assert 0 < spread(0.1) < spread(1) < spread(10)


def test_ten_thousand_organisations_have_ids_of_their_own():
    assert len({o.id for o in organisations(0, 2_000, total=20_000)}) == 2_000


@pytest.mark.parametrize(
    ("count", "options", "said"),
    [
        (0, {}, "0 clients"),
        (10, {"total": 9}, "9 examples cannot be shared by 10 clients"),
        (2, {"skew": -1.0}, "skew"),
        (2, {"skew": float("nan")}, "skew"),
        (2, {"exponent": float("inf")}, "exponent"),
    ],
)
def test_impossible_federations_are_refused_in_one_line(count, options, said):
    with pytest.raises(ConfigError, match=said) as caught:
        organisations(0, count, **options)
    assert "\n" not in str(caught.value)


def test_the_federation_knows_more_than_its_clients():
    """Pooled intents beat each client's own by far, on everybody's test and on its own."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.naive_bayes import MultinomialNB

    features = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), n_features=2**13, alternate_sign=False, norm=None
    )

    def table(rows):
        rows = [row for row in rows if row["task"] == "intent"]
        return features.transform([r["context"] for r in rows]), [r["response"] for r in rows]

    def score(train, test):
        return MultinomialNB(alpha=0.05).fit(*table(train)).score(*table(test))

    federation = organisations(0, 6, total=1_500)
    train = [list(examples(o, 0)) for o in federation]
    test = [[example(o, 0, o.size + i) for i in range(200)] for o in federation]
    pooled, everybody = joined(train), joined(test)
    own = [score(a, b) for a, b in zip(train, test, strict=True)]
    federated = [score(pooled, b) for b in test]
    assert np.mean(federated) > np.mean(own) + 0.05
    assert score(pooled, everybody) > max(score(a, everybody) for a in train) + 0.2
    unseen = [score(joined(train[:i] + train[i + 1 :]), b) for i, b in enumerate(test)]
    assert np.mean(unseen) > 0.4


# --- grammar and style --------------------------------------------------------------------------


def test_a_phrase_draws_every_alternative_and_every_word():
    slots = {"thing": ("cat", "[big |]dog"), "n": lambda rng: str(int(rng.random() * 2))}
    drawn = {expand("[a|the [old|]] {thing} {n}", slots, generator(i)) for i in range(400)}
    heads, things = ("a", "the", "the old"), ("cat", "dog", "big dog")
    assert drawn == {f"{h} {t} {n}" for h in heads for t in things for n in "01"}


@pytest.mark.parametrize("template", ["[a|b", "a]", "a|b"])
def test_unmatched_brackets_are_an_error(template):
    with pytest.raises(ValueError, match=r"bracket|unmatched"):
        parse(template)


TOKENS = st.sampled_from(
    ["please", "your", "account,", "Anna", "PT-4821", "12", "May,", "EUR", "9.50", "i", "14:20."]
)


@given(st.lists(TOKENS, min_size=1), st.sampled_from(STYLES), st.integers(0, 99))
def test_a_style_never_changes_a_word_with_a_digit_or_a_capital(words, style, seed):
    shown = write(" ".join(words), style, generator(seed))
    facts_of = [w.strip(".,") for w in words if re.search(r"[A-Z0-9]", w)]
    rest = iter(shown.split())
    assert all(any(fact == word.strip(".,") for word in rest) for fact in facts_of), shown


@given(st.text("abcdefgh", min_size=4, max_size=9), st.integers(0, 99))
def test_a_typo_keeps_the_ends_of_a_word(word, seed):
    typed = mistype(word, generator(seed))
    assert typed[0] == word[0]
    assert abs(len(typed) - len(word)) <= 1
    assert set(typed) <= set(word)
