"""A tiny Hugging Face causal language model in a folder: random weights and a byte tokenizer, nothing downloaded."""

from __future__ import annotations

from pathlib import Path

import torch


def make_lm_folder(folder: Path, kind: str = "llama") -> Path:
    """kind: llama or gpt2, both with a tied head. The tokenizer knows `<s>`, `</s>` and all bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{sign: 2 + place for place, sign in enumerate(signs)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    shared = {"vocab_size": 264, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "llama":
            sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
            heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
            model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **shared))
        else:
            model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **shared))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
