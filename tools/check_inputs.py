#!/usr/bin/env python3
"""What rounding the inputs of linear layers costs: mean KL divergence from unrounded inputs, everything else in f32 (docs/cuda.md, "No FP8 products").

    venv/bin/python tools/check_inputs.py gemma-3-270m-q4_k_m.gguf [TOKENS]        needs torch, transformers and gguf; a few minutes
"""
import os, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WINDOW = 500
TEXT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "real", "story.txt")


def scaled(x, group, top, cast):
    """x with a scale per group of columns (0, or too few of them: per row) that maps its greatest magnitude to top, rounded by cast."""
    v = x.reshape(*x.shape[:-1], -1, group if group and x.shape[-1] % group == 0 else x.shape[-1])
    s = v.abs().amax(-1, keepdim=True).clamp(min=1e-12) / top
    return (cast(v / s) * s).reshape(x.shape)


def e4m3(x, group): return scaled(x, group, 448, lambda v: v.to(torch.float8_e4m3fn).float())


def only(*parts): return lambda x, name: e4m3(x, 128) if any(p in name for p in parts) else x


KINDS = {
    "bf16": lambda x, name: x.bfloat16().float(),
    "int8, a scale per 32 columns": lambda x, name: scaled(x, 32, 127, torch.round),
    "E4M3, a scale per row": lambda x, name: e4m3(x, 0),
    "E4M3, a scale per 128 columns": lambda x, name: e4m3(x, 128),
    "E4M3, a scale per 32 columns": lambda x, name: e4m3(x, 32),
    "E4M3 per 128, not the head": lambda x, name: x if "lm_head" in name else e4m3(x, 128),
    "E4M3 per 128, only q, k, v": only("q_proj", "k_proj", "v_proj"),
    "E4M3 per 128, only attention's output": only("o_proj"),
    "E4M3 per 128, only gate and up": only("gate_proj", "up_proj"),
    "E4M3 per 128, only down": only("down_proj"),
}


@torch.no_grad()
def log_probs(model, ids):
    return torch.cat([torch.log_softmax(model(w[None]).logits[0].double(), -1) for w in ids.split(WINDOW)])


def main():
    if len(sys.argv) < 2: sys.exit(__doc__)
    folder, file = os.path.split(os.path.abspath(sys.argv[1]))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    with open(TEXT) as f: ids = AutoTokenizer.from_pretrained(folder, gguf_file=file)(f.read(), return_tensors="pt").input_ids[0]
    ids = ids[:int(sys.argv[2]) if len(sys.argv) > 2 else 1500]
    rounding = [None]
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, args, name=name: (rounding[0](args[0], name),) if rounding[0] else None)
    base = log_probs(model, ids)
    for kind, rounding[0] in KINDS.items():
        kl = (base.exp() * (base - log_probs(model, ids))).sum(-1)
        print(f"{kind:40} mean {kl.mean():.2e}  median {kl.median():.2e}  99 % {kl.quantile(.99):.2e}", flush=True)


if __name__ == "__main__": main()
