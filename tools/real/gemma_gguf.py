"""Gemma 3 from a GGUF file: config and float32 weights under HuggingFace names, as transformers wants them."""
import numpy as np

LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "post_attention_norm": "post_attention_layernorm",
         "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def hf_name(name):
    p = name.split(".")
    return f"model.layers.{p[1]}.{LAYER[p[2]]}.weight" if p[0] == "blk" else f"{TOP[p[0]]}.weight"


def load(path):
    import gguf

    r = gguf.GGUFReader(path)
    get = lambda k: r.fields["gemma3." + k].contents()
    state = {}
    for t in r.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(x) for x in reversed(t.shape)]).astype(np.float32)
        state[hf_name(t.name)] = w - 1.0 if t.name.endswith("norm.weight") else w  # the file holds 1 + w
    embed = state["model.embed_tokens.weight"]
    config = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": embed.shape[0], "hidden_size": get("embedding_length"),
              "intermediate_size": get("feed_forward_length"), "num_hidden_layers": get("block_count"), "num_attention_heads": get("attention.head_count"),
              "num_key_value_heads": get("attention.head_count_kv"), "head_dim": get("attention.key_length"), "rope_theta": get("rope.freq_base"),
              "rope_local_base_freq": 10000.0, "rms_norm_eps": 1e-6, "sliding_window": get("attention.sliding_window"), "sliding_window_pattern": 6,
              "query_pre_attn_scalar": get("attention.key_length"), "max_position_embeddings": get("context_length"), "tie_word_embeddings": True,
              "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    return config, state
