"""Metrics against plain loops over single examples with an untouched Hugging Face model."""

import copy
import json
import math
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from federation.address import generator, torch_generator
from federation.algorithms.catalogue import fedavg
from federation.config import EvaluationSpec
from federation.data.corpus import tokenise
from federation.data.sources import read_records
from federation.data.templates import parse_templates
from federation.data.tokens import sequence_format
from federation.errors import DataError
from federation.evaluation import evaluate as module
from federation.evaluation import prefixes, scores, stacks
from federation.evaluation.choices import choice_sequences
from federation.evaluation.evaluate import (
    Evaluation,
    evaluate,
    evaluate_own,
    evaluate_shared,
    score,
    subset,
)
from federation.evaluation.likelihood import example_nll
from federation.evaluation.stacks import Limits
from federation.specs import LoRASpec
from federation.training import kernels
from federation.training.base import load_base, prepare
from federation.training.full import FullParameters
from federation.training.local import Task
from federation.training.lora import LoRA
from tests.tiny_models import byte_tokenizer, tiny

TEMPLATES = parse_templates(prompt="{q}", response="{a}", choices="{options}")
CHOICES = ["no", "yes, of course", "später"]
ROWS = np.arange(24)
CUT = 20  # a row whose response does not fit


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    return tiny("Llama", vocab_size=258, max_position_embeddings=256)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rng = generator("text")
    rows = []
    for i in range(len(ROWS)):
        question = "".join(rng.choice(list("ab cdefö"), rng.integers(1, 40)))
        rows.append({"q": f"x{question}", "a": CHOICES[i % 3], "options": CHOICES})
    rows[CUT] |= {"a": "long " * 30, "options": ["long " * 30, "no"]}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = read_records("rows.jsonl", folder)
    return tokenise(records, TEMPLATES, byte_tokenizer(), max_tokens=80, cache=folder / "cache")


@pytest.fixture
def asked(plain, corpus) -> Evaluation:
    """LoRA in float64 over the model; few tokens a pass, so that there are many passes."""
    # Hugging Face's own norm computes in float32 even in a float64 model; ours does not.
    base = prepare("small", copy.deepcopy(plain), byte_tokenizer(), fast=False)
    lora = LoRA(base, LoRASpec(rank=2, targets=("q_proj", "v_proj", "down_proj")))
    return Evaluation(
        task=Task(base, lora, fedavg(), corpus.tokens),
        examples=corpus.examples,
        form=sequence_format(byte_tokenizer(), TEMPLATES, 80, "\n"),
        spec=EvaluationSpec(metrics=("nll",)),
        limits=Limits(models=3, tokens=300),
    )


def adapters(evaluation: Evaluation, C: int) -> torch.Tensor:
    size = evaluation.task.trainable.layout.size
    return torch.randn(C, size, generator=torch_generator("C"), dtype=torch.float64) * 0.3


def measuring(evaluation: Evaluation, *metrics: str, **fields) -> Evaluation:
    return replace(evaluation, spec=EvaluationSpec(metrics=metrics, **fields))


@torch.no_grad()
def nats_of(model, ids: list[int], prompt_len: int) -> float:
    """Negative log-likelihood by definition."""
    logs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return -sum(float(logs[t - 1, ids[t]]) for t in range(prompt_len, len(ids)))


def loop(model, tokens, rows) -> np.ndarray:
    return np.array([nats_of(model, tokens.row(i).tolist(), tokens.prompt_len[i]) for i in rows])


def close(a, b, tolerance: float = 1e-9) -> bool:
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


# Likelihood


@pytest.mark.parametrize("plain_head", [True, False])
def test_nll_is_that_of_a_plain_loop(asked, plain, corpus, plain_head):
    base = replace(asked.task.base, plain_head=plain_head)
    expected = loop(plain, corpus.tokens, ROWS)
    columns = example_nll(base, corpus.tokens, ROWS, max_batch_tokens=200)
    assert close(columns["nats"], expected)
    texts = [corpus.examples[int(i)].response for i in ROWS]
    uncut = ROWS != CUT
    # One token a byte, and the end of sequence.
    assert columns["bytes"][uncut].tolist() == [len(t.encode()) for t in np.array(texts)[uncut]]
    assert columns["tokens"].tolist() == (columns["bytes"] + 1).tolist()
    assert columns["bytes"][CUT] < len(texts[CUT])


def test_faster_parts_change_rounding_only(asked, plain, corpus):
    base = prepare("small", copy.deepcopy(plain), byte_tokenizer())
    assert "attention" in base.grafts
    columns = example_nll(base, corpus.tokens, ROWS)
    assert close(columns["nats"], loop(plain, corpus.tokens, ROWS), 1e-6)
    assert base.model.config._attn_implementation == kernels.ATTENTION


@pytest.mark.parametrize("most", [1, 90, 10**6])
def test_batches_and_order_change_nothing(asked, corpus, most):
    base, tokens = asked.task.base, corpus.tokens
    alone = np.concatenate([example_nll(base, tokens, ROWS[i : i + 1])["nats"] for i in ROWS])
    order = generator("order").permutation(ROWS)
    assert close(example_nll(base, tokens, order, most)["nats"], alone[order])


def test_a_stack_of_clients_is_each_client_alone(asked):
    params_C = adapters(asked, 5)
    rows_C = [ROWS[:2], ROWS[2:13], ROWS[:0], ROWS[13:16], ROWS[16:]]
    together = score(asked, params_C, rows_C)
    for c in range(5):
        (alone,) = score(asked, params_C[c : c + 1], [rows_C[c]])
        assert len(together[c]["nats"]) == len(rows_C[c])
        assert close(together[c]["nats"], alone["nats"])
    (unbound,) = score(asked, None, [ROWS])
    assert not close(unbound["nats"][:2], together[0]["nats"], 1e-3)


@pytest.mark.parametrize("metrics", [("nll", "choice"), ("exact_match",)], ids="+".join)
def test_passes_side_by_side_change_nothing(asked, plain, metrics, monkeypatch):
    base = prepare("small", copy.deepcopy(plain), byte_tokenizer())
    lora = LoRA(base, LoRASpec(rank=2, targets=("q_proj", "v_proj", "down_proj")))
    asked = replace(asked, task=replace(asked.task, base=base, trainable=lora))
    asked = measuring(asked, *metrics, max_new_tokens=3)
    params_C, rows_C = adapters(asked, 2), [ROWS, ROWS[5:17]]
    one_by_one = score(asked, params_C, rows_C)
    threads, attention, bound = set(), set(), stacks.bound

    @contextmanager
    def watched(*args):
        with bound(*args):
            yield
        threads.add(threading.get_ident())
        attention.add(base.model.config._attn_implementation)

    monkeypatch.setattr(stacks, "bound", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = score(asked, params_C, rows_C)
    finally:
        torch.set_num_threads(before)
    for got, want in zip(together, one_by_one, strict=True):
        assert got.keys() == want.keys()
        assert all(close(got[name], want[name]) for name in want)
    assert len(threads) == (1 if "exact_match" in metrics else 2)
    assert attention == {"sdpa"}, "one pass took the others' attention away"
    assert base.model.config._attn_implementation == kernels.ATTENTION


def test_whole_models_are_evaluated_one_a_pass(plain, corpus, asked):
    base = prepare("small", copy.deepcopy(plain), byte_tokenizer(), fast=False)
    full = FullParameters(base)
    evaluation = replace(asked, task=Task(base, full, fedavg(), corpus.tokens))
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    params_C = torch.stack(
        [full.layout.flatten(dict(m.named_parameters()), torch.float64) for m in (other, plain)]
    )
    values = score(evaluation, params_C, [ROWS, ROWS])
    assert close(values[0]["nats"], loop(other, corpus.tokens, ROWS))
    assert close(values[1]["nats"], loop(plain, corpus.tokens, ROWS))


def test_nothing_stays_bound_and_no_gradient_is_kept(asked, plain, corpus, monkeypatch):
    params = adapters(asked, 1)[0].requires_grad_()
    evaluate(asked, params, ROWS)
    assert close(
        example_nll(asked.task.base, corpus.tokens, ROWS)["nats"], loop(plain, corpus.tokens, ROWS)
    )

    def broken(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr("federation.evaluation.likelihood.row_nats", broken)
    with pytest.raises(RuntimeError, match="stop"):
        evaluate(asked, params, ROWS)
    monkeypatch.undo()
    assert close(
        example_nll(asked.task.base, corpus.tokens, ROWS)["nats"], loop(plain, corpus.tokens, ROWS)
    )


# Federations


def test_a_shared_model_reads_every_row_once_and_every_client_gets_its_own(asked, monkeypatch):
    params = adapters(asked, 1)[0]
    rows_of = {"a": ROWS[9:3:-1], "b": ROWS[12:], "none": ROWS[:0], "all": ROWS}
    expected = {c: evaluate(asked, params, rows) for c, rows in rows_of.items() if len(rows)}
    seen: list[int] = []
    reading = module.reading

    def watched(base, tokens):
        work = reading(base, tokens)
        return lambda rows_CB: (seen.extend(rows_CB.flat), work(rows_CB))[1]

    monkeypatch.setattr(module, "reading", watched)
    report = evaluate_shared(asked, params, rows_of)
    assert sorted(seen) == ROWS.tolist()
    assert report.clients.keys() == expected.keys()
    for client, figures in expected.items():
        assert report.clients[client] == pytest.approx(figures, rel=1e-9)
    assert report.overall == pytest.approx(expected["all"], rel=1e-9)


def test_own_models_are_summarised_over_clients(asked):
    params_C = adapters(asked, 4)
    rows_of = {"a": ROWS[:5], "b": ROWS[5:6], "none": ROWS[:0], "c": ROWS[6:]}
    report = evaluate_own(asked, params_C, rows_of)
    nll = [
        evaluate(asked, params_C[c], rows_of[name])["nll"]
        for c, name in ((0, "a"), (1, "b"), (3, "c"))
    ]
    assert report.clients.keys() == {"a", "b", "c"}
    assert [report.clients[name]["nll"] for name in "abc"] == pytest.approx(nll, rel=1e-9)
    assert report.mean["nll"] == pytest.approx(np.mean(nll), rel=1e-9)
    assert report.std["nll"] == pytest.approx(np.std(nll), rel=1e-9)
    assert report.worst_decile["nll"] == pytest.approx(max(nll), rel=1e-9)
    tokens = [
        (asked.task.tokens.lengths - asked.task.tokens.prompt_len)[r].sum()
        for r in rows_of.values()
        if len(r)
    ]
    assert report.overall["nll"] == pytest.approx(np.average(nll, weights=tokens), rel=1e-9)


# Generation


def test_answers_are_compared_with_whole_responses(asked, plain, corpus):
    evaluation = measuring(asked, "exact_match", "rouge_l", max_new_tokens=6)
    tokens, said = corpus.tokens, []
    for i in ROWS:
        ids = tokens.row(i)[: tokens.prompt_len[i]].tolist()
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(plain(torch.tensor([ids])).logits[0, -1].argmax()))
        new = ids[tokens.prompt_len[i] :]
        new = new[: new.index(1)] if 1 in new else new
        said.append(byte_tokenizer().decode(new, skip_special_tokens=True))
    half = [
        replace(corpus.examples[int(i)], response=f" {said[i]}\n" if i % 2 else "other")
        for i in ROWS
    ]
    (columns,) = score(replace(evaluation, examples=half), None, [ROWS])
    assert columns["exact_match"].tolist() == [float(i % 2) for i in ROWS]
    assert columns["rouge_l"].tolist() == [
        scores.rouge_l(text, example.response) for text, example in zip(said, half, strict=True)
    ]


# Choices


def test_choice_accuracy_on_answers_whose_likelihoods_are_known(asked, plain, corpus):
    """Make the likeliest answer right in even rows and another one in odd rows."""
    rows = ROWS[ROWS != CUT]
    tokens, encoder = corpus.tokens, byte_tokenizer()
    examples = [corpus.examples[int(i)] for i in ROWS]
    sums, per_byte = [], []
    for i in rows:
        prompt = tokens.row(i)[: tokens.prompt_len[i]].tolist()
        answers = [encoder(c, add_special_tokens=False)["input_ids"] for c in CHOICES]
        nats = np.array([nats_of(plain, [*prompt, *a, 1], len(prompt)) for a in answers])
        likeliest = int(nats.argmin())
        right = CHOICES[likeliest if i % 2 == 0 else (likeliest + 1) % 3]
        examples[i] = replace(examples[i], response=right)
        sums.append(float(i % 2 == 0))
        normal = nats / [len(c.encode()) for c in CHOICES]
        per_byte.append(float(CHOICES[int(normal.argmin())] == right))
    evaluation = replace(measuring(asked, "choice"), examples=examples)
    (columns,) = score(evaluation, None, [rows])
    assert columns["choice_accuracy"].tolist() == sums
    assert columns["choice_accuracy_per_byte"].tolist() == per_byte != sums
    assert evaluate(evaluation, None, rows)["choice_accuracy"] == np.mean(sums)
    params_C = adapters(asked, 2)
    together = score(evaluation, params_C, [rows[:9], rows[5:]])
    for c, mine in enumerate((rows[:9], rows[5:])):
        (alone,) = score(evaluation, params_C[c : c + 1], [mine])
        assert together[c]["choice_accuracy"].tolist() == alone["choice_accuracy"].tolist()


def test_choices_are_sequences_as_in_training(asked, corpus):
    examples = [corpus.examples[int(i)] for i in ROWS]
    choices = choice_sequences(examples, asked.form, byte_tokenizer())
    assert np.diff(choices.bounds).tolist() == [2 if i == CUT else 3 for i in ROWS]
    for i in ROWS:
        sequence = int(choices.bounds[i] + choices.answer[i])
        assert choices.tokens.row(sequence).tolist() == corpus.tokens.row(i).tolist()
        assert choices.tokens.prompt_len[sequence] == corpus.tokens.prompt_len[i]
        heads = {
            tuple(choices.tokens.row(s)[: choices.tokens.prompt_len[s]].tolist())
            for s in range(choices.bounds[i], choices.bounds[i + 1])
        }
        assert len(heads) == 1  # also where the longest answer needed the prompt cut
    assert choices.tokens.lengths.max() <= 80


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "neo"])
def test_prompts_read_once_change_nothing(kind, plain, corpus):
    """Answers behind one reading of their prompt are as likely as behind one of their own."""
    size = {"vocab_size": 258, "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4}
    window = {**plain.config.to_dict(), "sliding_window": 8}
    local = {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["local"], 2]],
    }
    neo = GPTNeoConfig(vocab_size=258, max_position_embeddings=256, window_size=8, **local)
    model = {
        "llama": lambda: copy.deepcopy(plain),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**size)).eval().double(),
        "mistral": lambda: MistralForCausalLM(MistralConfig.from_dict(window)).eval().double(),
        "neo": lambda: GPTNeoForCausalLM(neo).eval().double(),
    }[kind]()
    base = prepare(kind, model, byte_tokenizer(), fast=False)
    form = sequence_format(byte_tokenizer(), TEMPLATES, 80, "\n")
    examples = [corpus.examples[int(i)] for i in ROWS]
    examples[5] = replace(examples[5], choices=(*CHOICES, "perhaps"))
    choices = choice_sequences(examples, form, byte_tokenizer())
    tokens = replace(choices.tokens, prompt_len=choices.tokens.prompt_len.copy())
    rows = choices.sequences(np.array([7, 20]))
    tokens.prompt_len[rows[rows >= 0]] = 1  # nothing is shared
    choices = replace(choices, tokens=tokens)
    assert prefixes.keeps_all(base) == (kind in ("llama", "gpt2"))
    places_CB = np.array([[7, 5, 0, 20]])
    with torch.no_grad():
        nats_BK = prefixes.choosing(base, choices)(places_CB)[0]
        for place, nats in zip(places_CB[0], nats_BK, strict=True):
            rows = choices.sequences(place)
            for row, value in zip(rows, nats, strict=True):
                ids, start = tokens.row(row).tolist(), int(tokens.prompt_len[row])
                want = math.inf if row < 0 else nats_of(model, ids, start)
                assert value == pytest.approx(want, rel=1e-10)


# Subsets and mistakes


def test_a_subset_is_the_same_every_time():
    rows = np.arange(100, 200)
    chosen = subset(rows, 30, 0, "test")
    assert len(set(chosen)) == 30 and set(chosen) <= set(rows)
    assert (np.diff(chosen) > 0).all()
    assert subset(rows[::-1], 30, 0, "test").tolist() == chosen.tolist()
    assert subset(rows, 30, 0, "validation").tolist() != chosen.tolist()
    assert subset(rows, 30, 1, "test").tolist() != chosen.tolist()
    assert subset(rows[::-1], 100, 0, "test").tolist() == rows.tolist()


def test_what_cannot_be_measured_is_said(asked, corpus):
    nothing = ROWS[:0]
    for measure in (
        lambda: evaluate(asked, None, nothing),
        lambda: evaluate_shared(asked, None, {}),
        lambda: evaluate_shared(asked, None, {"a": nothing}),
        lambda: evaluate_own(asked, adapters(asked, 1), {"a": nothing}),
        lambda: scores.metrics(example_nll(asked.task.base, corpus.tokens, nothing)),
    ):
        with pytest.raises(DataError, match="no example to evaluate"):
            measure()
    with pytest.raises(ValidationError, match="at least 1"):
        measuring(asked)
    examples = [replace(corpus.examples[int(i)], choices=()) for i in ROWS]
    with pytest.raises(DataError, match=r"rows\.jsonl .*: has no choices; set data\.choices"):
        evaluate(replace(measuring(asked, "choice"), examples=examples), None, ROWS[3:])
    with pytest.raises(ValueError, match="2 models, but 1"):
        score(asked, adapters(asked, 2), [ROWS])


# A real model


@pytest.mark.parametrize(
    "source, templates, published",
    [
        ("data/tinystories/tiny_stories_944k.txt", {"text": "{text}"}, 1.355),
        (
            "data/dolly/dolly15k_fedit10.jsonl",
            {"prompt": "{instruction}\n{context}", "response": "{response}"},
            4.21,
        ),
    ],
)
def test_stories260k_is_near_its_published_likelihood(
    shared, tmp_path, source, templates, published
):
    folder, text = shared("models/stories260K"), shared(source)
    stories = load_base(str(folder), "float32")
    lines = text.read_text(encoding="utf-8").splitlines(keepends=True)[:120]
    (tmp_path / text.name).write_text("".join(lines), encoding="utf-8")
    corpus = tokenise(
        read_records(text.name, tmp_path),
        parse_templates(**templates),
        stories.tokenizer,
        max_tokens=256,
        cache=tmp_path,
    )
    rows = subset(np.arange(len(corpus.tokens)), 24, 0, source)
    columns = example_nll(stories, corpus.tokens, rows)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert close(columns["nats"][:4], loop(model, corpus.tokens, rows[:4]), 1e-4)
    # The published figures are over other excerpts: the loop above is exact, this is the magnitude.
    assert scores.metrics(columns)["nll"] == pytest.approx(published, abs=0.5)
