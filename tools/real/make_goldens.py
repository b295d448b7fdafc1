#!/usr/bin/env python3
"""make_goldens.py GGUF TOKENIZER_JSON [MLX_DIR ...]: records what transformers (float32, eager, CPU) makes of a Gemma 3 GGUF file and of its
requantized twins from make_mlx.py: 64 greedy tokens for each prompt of prompts.txt with the gap between the two best logits at every step,
and the perplexity of text.txt. Writes tests/data/real/<name>.json. Needs torch, transformers, tokenizers, gguf (and mlx for MLX_DIR)."""
import json, math, os, sys, time

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, Gemma3ForCausalLM

from gemma_gguf import load

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "..", "tests", "data", "real")
STEPS, TEXT_TOKENS = 64, 1500


def mlx_state(folder):
    """Dequantized weights: scales and biases widened to float32 first, so that a weight is q * scale + bias in float32."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    raw = mx.load(os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    q, out = config.pop("quantization"), {}
    config.pop("quantization_config")
    config.pop("torch_dtype")
    for name, a in raw.items():
        stem, leaf = name.rsplit(".", 1)
        if leaf != "weight":
            continue
        if stem + ".scales" in raw:
            a = mx.dequantize(a, raw[stem + ".scales"].astype(mx.float32), raw[stem + ".biases"].astype(mx.float32), q["group_size"], q["bits"])
        out[name] = np.array(a.astype(mx.float32))
    return config, out


def build(config, state):
    cfg = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
    cfg._attn_implementation = "eager"
    with torch.device("meta"):
        m = Gemma3ForCausalLM(cfg)
    m = m.to_empty(device="cpu").float()
    missing, unexpected = m.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
    m.tie_weights()
    # buffers are not in the checkpoint: computed again
    m.model.embed_tokens.embed_scale = torch.tensor(m.model.embed_tokens.scalar_embed_scale)
    m.model.rotary_emb = type(m.model.rotary_emb)(cfg)
    return m.eval()


@torch.no_grad()
def propose(m, prompts):
    """Greedy continuations of all prompts at once, left-padded: fast, and only a proposal that judge() confirms."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    pos, past, feed, out = (mask.cumsum(1) - 1).clamp(min=0), None, ids, []
    for _ in range(STEPS):
        r = m(input_ids=feed, attention_mask=mask, position_ids=pos, past_key_values=past, use_cache=True, logits_to_keep=1)
        feed = r.logits[:, -1].argmax(-1, keepdim=True)
        out.append(feed)
        past, pos = r.past_key_values, pos[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(feed)], 1)
    return torch.cat(out, 1).tolist()


@torch.no_grad()
def judge(m, ids, out):
    """The official answer: one forward of the prompt with its continuation, alone and unpadded. Where the proposal is not the greedy token,
    the token is put right and the rest is proposed anew."""
    while True:
        lg = m(input_ids=torch.tensor([ids + out]), use_cache=False, logits_to_keep=STEPS + 1).logits[0, :-1]
        v, i = lg.topk(2)
        wrong = [k for k in range(STEPS) if int(i[k, 0]) != out[k]]
        if not wrong:
            g = lambda x: [float(f"{float(e):.6g}") for e in x]
            return out, g(v[:, 0] - v[:, 1]), g(v[:, 0])
        k = wrong[0]
        print(f"    step {k}: {out[k]} becomes {int(i[k, 0])}", flush=True)
        out = out[:k] + [int(i[k, 0])]
        out = (out + propose(m, [ids + out])[0])[:STEPS]


@torch.no_grad()
def perplexity(m, ids):
    h = m.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    nll = 0.0
    for a in range(0, len(ids) - 1, 100):
        b = min(a + 100, len(ids) - 1)
        lp = m.lm_head(h[a:b]).double().log_softmax(-1)
        nll -= float(lp[torch.arange(b - a), torch.tensor(ids[a + 1 : b + 1])].sum())
    return math.exp(nll / (len(ids) - 1))


def record(name, config, state, prompts, text, tok):
    m, t0 = build(config, state), time.time()
    g = {"model": name, "vocab": config["vocab_size"], "perplexity": {"value": perplexity(m, text), "ids": text}, "prompts": []}
    print(f"{name}: perplexity {g['perplexity']['value']:.4f} ({time.time() - t0:.0f} s)", flush=True)
    all_ids = [[2] + tok.encode(p, add_special_tokens=False).ids for p in prompts]
    for p, ids, out in zip(prompts, all_ids, propose(m, all_ids)):
        out, gap, top = judge(m, ids, out)
        g["prompts"].append({"text": p, "ids": ids, "next": out, "out": tok.decode(out, skip_special_tokens=False), "gap": gap, "top": top})
        print(f"  {len(ids):3} tokens, least gap {min(gap):.2g}: {p[:30]!r} -> {g['prompts'][-1]['out'][:60]!r}", flush=True)
    os.makedirs(DATA, exist_ok=True)
    with open(os.path.join(DATA, name + ".json"), "w") as f:
        rows = ",\n".join("  " + json.dumps(p, ensure_ascii=False) for p in g.pop("prompts"))
        f.write(json.dumps(g)[:-1] + ',\n "prompts": [\n' + rows + "\n ]}\n")


def main():
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    tok = Tokenizer.from_file(sys.argv[2])
    with open(os.path.join(HERE, "prompts.txt"), encoding="utf-8") as f:
        prompts = [p.rstrip("\n") for p in f.read().split("\n----\n")]
    with open(os.path.join(HERE, "text.txt"), encoding="utf-8") as f:
        text = [2] + tok.encode(f.read(), add_special_tokens=False).ids
    print(f"{len(prompts)} prompts, text has {len(text)} tokens")
    assert len(text) >= TEXT_TOKENS
    text = text[:TEXT_TOKENS]
    if sys.argv[1] != "-":
        record("gemma3_270m", *load(sys.argv[1]), prompts, text, tok)
    for d in sys.argv[3:]:
        record("gemma3_270m_" + os.path.basename(d.rstrip("/")), *mlx_state(d), prompts, text, tok)


if __name__ == "__main__":
    main()
