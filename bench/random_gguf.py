#!/usr/bin/env python3
"""A GGUF of random weights in the shape of a config.json (llama, qwen3, qwen3_moe or lfm2), without vocabulary: for speed only.

    random_gguf.py CONFIG_DIR OUT.gguf [Q4_0 | Q8_0 | BF16]        needs numpy and gguf from PyPI
"""
import json, os, sys, numpy as np, gguf

TILE = 1 << 26  # random bytes that repeat: more than the second-level cache of a GPU holds


def weights(kind, rows, cols):
    """[rows, bytes of a row]: values of about 1 / sqrt(cols)."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng, name = np.random.default_rng(rows + cols), kind.name
    if name == "BF16":
        tile = (rng.standard_normal(TILE // 2, np.float32) * np.float32(cols ** -0.5)).view(np.uint32) >> 16
        tile = tile.astype(np.uint16).view(np.uint8)
    else:  # a block begins with an f16 scale
        tile = rng.integers(0, 256, (TILE // size, size), dtype=np.uint8)
        tile[:, 0:2] = np.full(1, cols ** -0.5 / (4.6 if name == "Q4_0" else 74), np.float16).view(np.uint8)
    return np.resize(tile.reshape(-1), rows * cols // block * size).reshape(rows, -1)


def write(folder, out, name):
    """out: a GGUF of type `name` in the shape of folder/config.json. Tensors of one shape share their bytes in memory, not in the file."""
    with open(os.path.join(folder, "config.json")) as f: c = json.load(f)
    kind, made, arch = gguf.GGMLQuantizationType[name], {}, c["model_type"].replace("_", "")
    moe, rng = arch == "qwen3moe", np.random.default_rng(0)
    dim, heads, kv, layers, vocab = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size"))
    lfm2, head, ff = arch == "lfm2", c.get("head_dim", dim // heads), c.get("block_ff_dim", c.get("intermediate_size"))
    attends = [not lfm2 or i in c["full_attn_idxs"] for i in range(layers)]
    if lfm2: ff = -(-int(2 * ff / 3) // c["block_multiple_of"]) * c["block_multiple_of"]
    w = gguf.GGUFWriter(out, arch)
    w.add_context_length(c["max_position_embeddings"]); w.add_embedding_length(dim); w.add_block_count(layers)
    w.add_feed_forward_length(ff); w.add_head_count(heads); w.add_head_count_kv([kv * a for a in attends] if lfm2 else kv)
    w.add_layer_norm_rms_eps(c.get("rms_norm_eps", c.get("norm_eps")))
    if lfm2: w.add_shortconv_l_cache(c["conv_L_cache"])
    else: w.add_key_length(head); w.add_value_length(head); w.add_rope_dimension_count(head)
    w.add_rope_freq_base(c["rope_theta"]); w.add_vocab_size(vocab); w.add_tokenizer_model("no_vocab")
    if moe:
        w.add_expert_count(c["num_experts"]); w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])

    def add(tensor, *shape):
        rows, cols = int(np.prod(shape[:-1])), shape[-1]
        if (rows, cols) not in made: made[rows, cols] = weights(kind, rows, cols)
        w.add_tensor(tensor, made[rows, cols].reshape(*shape[:-1], -1), raw_dtype=kind)
    def ones(tensor, n): w.add_tensor(tensor, np.ones(n, np.float32))

    add("token_embd.weight", vocab, dim); ones("token_embd_norm.weight" if lfm2 else "output_norm.weight", dim)
    if not c.get("tie_embedding", c.get("tie_word_embeddings")): add("output.weight", vocab, dim)
    for i in range(layers):
        p = f"blk.{i}."
        ones(p + "attn_norm.weight", dim); ones(p + "ffn_norm.weight", dim)
        if attends[i]:
            if arch != "llama": ones(p + "attn_q_norm.weight", head); ones(p + "attn_k_norm.weight", head)
            add(p + "attn_q.weight", heads * head, dim); add(p + "attn_k.weight", kv * head, dim)
            add(p + "attn_v.weight", kv * head, dim); add(p + "attn_output.weight", dim, heads * head)
        else:
            add(p + "shortconv.in_proj.weight", 3 * dim, dim); add(p + "shortconv.out_proj.weight", dim, dim)
            w.add_tensor(p + "shortconv.conv.weight", rng.standard_normal((dim, c["conv_L_cache"])).astype(np.float32))
        if moe:
            e, wide = c["num_experts"], c["moe_intermediate_size"]
            w.add_tensor(p + "ffn_gate_inp.weight", (rng.standard_normal((e, dim)) * dim ** -0.5).astype(np.float32))
            add(p + "ffn_gate_exps.weight", e, wide, dim); add(p + "ffn_up_exps.weight", e, wide, dim)
            add(p + "ffn_down_exps.weight", e, dim, wide)
        else:
            add(p + "ffn_gate.weight", ff, dim); add(p + "ffn_up.weight", ff, dim); add(p + "ffn_down.weight", dim, ff)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


if __name__ == "__main__": write(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "Q4_0")
