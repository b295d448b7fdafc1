#!/usr/bin/env python3
"""Checks the demo model with transformers and writes the reference values of the end-to-end test.

Owns tests/data/demo: `golden.json` (for each prompt its ids, greedy ids and text, and the gap between
the two best logits at each step) and `logits.npy` (float32 logits after the last of 24 tokens, whose
ids are in golden.json). The reference is transformers' LlamaForCausalLM in float32 on the weights
q * scale + bias. With --tokens it also prints the held-out losses, with --samples some text.

    golden.py MODEL_FOLDER OUT [--tokens tokens.npz] [--samples]
"""
import argparse
import functools
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

print = functools.partial(print, flush=True)
PROMPTS = [
    "The rays of light which",
    "The old captain leaned over the rail and",
    "\"My dear Mr. Bennet,\" said his lady to him one day,",
]
SEQUENCE = "She was the youngest of the two daughters of a most affectionate, indulgent father; and had never been"
GREEDY = 48


def dequantized(folder):
    """The checkpoint's tensors as float32, the 4-bit ones multiplied out."""
    raw, out = load_file(str(folder / "model.safetensors")), {}
    for name, t in raw.items():
        stem = name.removesuffix(".weight")
        if stem + ".scales" in raw:
            scale, bias = (raw[stem + s].astype(np.float32)[..., None] for s in (".scales", ".biases"))
            q = (t[..., None] >> (4 * np.arange(8, dtype=np.uint32))) & 15
            rows = t.shape[0]
            out[name] = (q.reshape(rows, scale.shape[1], -1).astype(np.float32) * scale + bias).reshape(rows, -1)
        elif not name.endswith((".scales", ".biases")):
            out[name] = t.astype(np.float32)
    return {k: torch.from_numpy(v) for k, v in out.items()}


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    for key in ("quantization", "quantization_config", "torch_dtype"):
        config.pop(key)
    model = LlamaForCausalLM(LlamaConfig(**config)).float().eval()
    missing, extra = model.load_state_dict(dequantized(folder), strict=False)
    if extra or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"missing {missing}, not expected {extra}")
    model.tie_weights()
    return model


@torch.no_grad()
def greedy(model, ids, count):
    """Greedy ids after ids, and the gap between the two best logits at each step."""
    out, gaps, past, x = [], [], None, torch.tensor([ids])
    for _ in range(count):
        step = model(x, past_key_values=past, use_cache=True)
        top, past = step.logits[0, -1].topk(2), step.past_key_values
        gaps.append(round((top.values[0] - top.values[1]).item(), 5))
        out.append(top.indices[0].item())
        x = top.indices[:1][None]
    return out, gaps


@torch.no_grad()
def held_out(model, path, n=512):
    z, total = np.load(path), {}
    for key in [k for k in z.files if k.startswith("val_")]:
        ids = torch.from_numpy(z[key].astype(np.int64))
        windows = torch.stack([ids[i:i + n + 1] for i in range(0, len(ids) - n, n)])
        loss = [F.cross_entropy(model(w[None, :-1]).logits[0], w[1:]).item() for w in windows]
        total[key[4:]] = (sum(loss), len(loss))
    for key, (loss, count) in total.items():
        print(f"held out {key}: {loss / count:.4f} nats a token over {count * n} tokens")
    loss, count = (total["austen"][i] + total["melville"][i] for i in (0, 1))
    print(f"held out, both novelists: {loss / count:.4f}")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("model", type=pathlib.Path)
    args.add_argument("out", type=pathlib.Path)
    args.add_argument("--tokens", type=pathlib.Path)
    args.add_argument("--samples", action="store_true")
    args = args.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other
    model, tok = load(args.model), AutoTokenizer.from_pretrained(args.model)
    if args.tokens:
        held_out(model, args.tokens)
    cases = []
    for prompt in PROMPTS:
        ids = tok(prompt).input_ids
        new, gaps = greedy(model, ids, GREEDY)
        cases.append({"prompt": prompt, "prompt_ids": ids, "greedy_ids": new, "greedy_text": tok.decode(new),
                      "top2_gap": gaps})
        print(f"{prompt}|{cases[-1]['greedy_text']}\n  smallest gap {min(gaps)}")
    ids = tok(SEQUENCE).input_ids[:24]
    if len(ids) != 24:
        raise SystemExit(f"the sequence has {len(ids)} tokens, not 24")
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].numpy()
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "logits.npy", logits)
    golden = {"reference": "transformers LlamaForCausalLM, float32, on q * scale + bias", "cases": cases,
              "logits": {"file": "logits.npy", "ids": ids}}
    (args.out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    if args.samples:
        for prompt in PROMPTS + ["It was a fine morning in May, and", "Emma"]:
            out = model.generate(torch.tensor([tok(prompt).input_ids]), max_new_tokens=120, do_sample=True,
                                 temperature=0.7, top_p=0.9, top_k=0)
            print(f"---\n{tok.decode(out[0])}")


if __name__ == "__main__":
    main()
