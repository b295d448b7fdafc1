#!/usr/bin/env python3
"""Writes the demo model as a checkpoint folder in mlx's 4-bit layout.

Owns the stored form: every matrix X.weight becomes X.weight (U32, eight 4-bit values a word, lowest
bits first), X.scales and X.biases (F16, one per 64 weights of a row); the norms are F16. Beside
model.safetensors it writes config.json, generation_config.json, tokenizer_config.json and
tokenizer.json.

    export.py WEIGHTS.safetensors tokenizer.json FOLDER
"""
import argparse
import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from train import GROUP, Config, affine

# The model has read novels, not conversations: messages are a dialogue in quotation marks.
CHAT_TEMPLATE = """{{- bos_token }}{%- for message in messages %}{%- if message.role == 'system' %}
{{- message.content | trim + '\\n\\n' }}
{%- elif message.role in ['user', 'assistant'] %}
{{- '"' + message.content | trim + '"\\n\\n' }}
{%- else %}
{{- raise_exception('This model knows the roles system, user and assistant only, not ' + message.role + '.') }}
{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '"' }}{%- endif %}"""


def pack(w):
    """mlx's affine 4-bit form of the matrix w [rows, cols]: words [rows, cols/8], scales and biases
    [rows, cols/64]."""
    rows, cols = w.shape
    q, scale, bias = affine(w.float().reshape(-1, GROUP))
    q = q.reshape(rows, cols // 8, 8).numpy().astype(np.uint32)
    words = np.bitwise_or.reduce(q << (4 * np.arange(8, dtype=np.uint32)), axis=2).astype(np.uint32)
    return words, scale.reshape(rows, -1).half().numpy(), bias.reshape(rows, -1).half().numpy()


def configs(c):
    hf = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": c.vocab, "hidden_size": c.dim,
        "intermediate_size": c.hidden, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "head_dim": c.dim // c.heads, "hidden_act": "silu",
        "max_position_embeddings": c.context, "rms_norm_eps": c.eps, "rope_theta": c.theta, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float16", "use_cache": True,
        "quantization": {"group_size": GROUP, "bits": 4}, "quantization_config": {"group_size": GROUP, "bits": 4},
    }
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True,
        "add_eos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": c.context,
        "added_tokens_decoder": {
            str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": True} for i, t in enumerate(("<s>", "</s>"))},
        "chat_template": CHAT_TEMPLATE,
    }
    return {"config.json": hf, "generation_config.json": generation, "tokenizer_config.json": tokenizer}


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("weights", type=pathlib.Path)
    args.add_argument("tokenizer", type=pathlib.Path)
    args.add_argument("folder", type=pathlib.Path)
    args = args.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, w in load_file(str(args.weights)).items():
        if w.ndim == 2:
            stem = name.removesuffix(".weight")
            tensors[name], tensors[stem + ".scales"], tensors[stem + ".biases"] = pack(w)
        else:
            tensors[name] = w.half().numpy()
    save_file(tensors, str(args.folder / "model.safetensors"), metadata={"format": "mlx"})
    for name, values in configs(Config()).items():
        (args.folder / name).write_text(json.dumps(values, indent=2) + "\n")
    shutil.copyfile(args.tokenizer, args.folder / "tokenizer.json")
    for path in args.folder.iterdir():
        path.chmod(0o644)
    print(f"{sum(p.stat().st_size for p in args.folder.iterdir())} bytes in {args.folder}")


if __name__ == "__main__":
    main()
