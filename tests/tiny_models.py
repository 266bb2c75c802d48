"""Tiny random causal language models of many architectures, and a tokenizer of bytes."""

from typing import TYPE_CHECKING

import torch

from federation.address import torch_generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 96
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    **TOKENS,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}
GPT2_SIZE = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, **TOKENS}

SETTINGS: dict[str, dict[str, object]] = {
    "Llama": {**GROUPED, "tie_word_embeddings": True},
    "Mistral": {**GROUPED, "sliding_window": 6},
    "Qwen2": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 8},
    "Gemma": {**GROUPED, "head_dim": 8},
    "Gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 6},
    "Phi": SIZE,
    "Phi3": GROUPED,
    "GPT2": {**GPT2_SIZE, "n_positions": 64},
    "OPT": {
        **{key: value for key, value in SIZE.items() if key != "intermediate_size"},
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
    },
    "GPTNeoX": SIZE,
    "Falcon": {key: SIZE[key] for key in SIZE if key != "intermediate_size"},
    "Bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, **TOKENS},
    "Mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
}
LM_HEAD = {"GPT2": "GPT2LMHeadModel"}


def tiny(kind: str, dtype: torch.dtype = torch.float64, **settings: object) -> "PreTrainedModel":
    """Build a model whose every weight (norms and biases too) is random, by address."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SETTINGS[kind], **settings})
    with torch.random.fork_rng():
        model = getattr(transformers, LM_HEAD.get(kind, f"{kind}ForCausalLM"))(config)
    model.to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = parameter.mean().round()  # 1 for the weight of a norm, else 0
            noise = torch.randn(parameter.shape, generator=torch_generator("tiny", name))
            parameter.copy_(centre + 0.2 * noise)
    return model


def byte_tokenizer(bos: bool = True, **options: object) -> "PreTrainedTokenizerFast":
    """One token a byte of UTF-8: lengths can be counted by hand."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<s>", "</s>", *letters])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
        options["bos_token"] = "<s>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", **options)
