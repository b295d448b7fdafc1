#!/usr/bin/env python3
"""A GGUF of random weights in the shape of a config.json (qwen3_moe, qwen3 or lfm2), without vocabulary: for speed only.

    random_gguf.py CONFIG_DIR OUT.gguf [Q4_0 | Q8_0 | BF16]        needs numpy and gguf from PyPI
"""
import json, sys, numpy as np, gguf

def main():
    with open(sys.argv[1] + "/config.json") as f: c = json.load(f)
    name = sys.argv[3] if len(sys.argv) > 3 else "Q4_0"
    kind, rng, moe = gguf.GGMLQuantizationType[name], np.random.default_rng(0), c["model_type"] == "qwen3_moe"
    block, size = gguf.GGML_QUANT_SIZES[kind]
    dim, heads, kv, layers, vocab = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size"))
    lfm2, head, ff = c["model_type"] == "lfm2", c.get("head_dim", dim // heads), c.get("block_ff_dim", c.get("intermediate_size"))
    attends = [not lfm2 or i in c["full_attn_idxs"] for i in range(layers)]
    if lfm2: ff = -(-int(2 * ff / 3) // c["block_multiple_of"]) * c["block_multiple_of"]
    w = gguf.GGUFWriter(sys.argv[2], "lfm2" if lfm2 else "qwen3moe" if moe else "qwen3", use_temp_file=True)
    w.add_context_length(c["max_position_embeddings"]); w.add_embedding_length(dim); w.add_block_count(layers)
    w.add_feed_forward_length(ff); w.add_head_count(heads); w.add_head_count_kv([kv * a for a in attends] if lfm2 else kv)
    w.add_layer_norm_rms_eps(c.get("rms_norm_eps", c.get("norm_eps")))
    if lfm2: w.add_shortconv_l_cache(c["conv_L_cache"])
    else: w.add_key_length(head); w.add_value_length(head)
    w.add_rope_freq_base(c["rope_theta"]); w.add_vocab_size(vocab); w.add_tokenizer_model("no_vocab")
    if moe:
        w.add_expert_count(c["num_experts"]); w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])

    def add(tensor, *shape):  # values of about 1 / sqrt(columns); blocks begin with an f16 scale
        if name == "BF16":
            v = rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
            w.add_tensor(tensor, (v.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8), raw_dtype=kind)
            return
        b = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
        b[..., 0:2] = np.full(1, shape[-1] ** -0.5 / (4.6 if name == "Q4_0" else 74), np.float16).view(np.uint8)
        w.add_tensor(tensor, b.reshape(*shape[:-1], -1), raw_dtype=kind)
    def ones(tensor, n): w.add_tensor(tensor, np.ones(n, np.float32))

    add("token_embd.weight", vocab, dim); ones("token_embd_norm.weight" if lfm2 else "output_norm.weight", dim)
    if not c.get("tie_embedding", c.get("tie_word_embeddings")): add("output.weight", vocab, dim)
    for i in range(layers):
        p = f"blk.{i}."
        ones(p + "attn_norm.weight", dim); ones(p + "ffn_norm.weight", dim)
        if attends[i]:
            ones(p + "attn_q_norm.weight", head); ones(p + "attn_k_norm.weight", head)
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

main()
