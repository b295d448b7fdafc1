#!/usr/bin/env python3
"""ffai convert against mlx and mlx-lm (both from PyPI). Not part of the suite: it needs their packages.

    check_convert.py codes FFAI              codes, scales and biases of every mode, width and group equal mx.quantize
    check_convert.py load FFAI DIR...        converts each checkpoint, loads the result in mlx-lm and compares logits
                                             with those of ffai (exact precision)
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)

MODES = [("affine", b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)]
MODES += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
TYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def edge_rows(cols, rng):
    """Rows that quantizers trip over."""
    rows = [np.zeros(cols), np.full(cols, 0.37), np.full(cols, -0.37), -np.abs(rng.normal(size=cols)),
            np.abs(rng.normal(size=cols)), rng.normal(size=cols) * 1e-9, rng.normal(size=cols) * 1e-5,
            rng.normal(size=cols) * 3e4, np.where(np.arange(cols) % 32 == 5, 7.0, 0.0),
            np.where(np.arange(cols) % 32 == 5, -7.0, 1e-4), rng.integers(-8, 8, cols) / 8.0,
            np.full(cols, 1e-8), np.full(cols, -6.0), np.linspace(-1, 1, cols), np.linspace(0, 448, cols),
            rng.normal(size=cols) * 10.0 ** rng.integers(-6, 3, cols)]
    return np.stack(rows)


def write_model(path, dtype, rng):
    """A llama whose matrices hold random and edge rows."""
    dim, ff, vocab, head = 256, 384, 160, 64
    names = {"model.embed_tokens": (vocab, dim), "lm_head": (vocab, dim)}
    for i in range(2):
        p = f"model.layers.{i}."
        names |= {p + "self_attn.q_proj": (256, dim), p + "self_attn.k_proj": (128, dim),
                  p + "self_attn.v_proj": (128, dim), p + "self_attn.o_proj": (dim, 256),
                  p + "mlp.gate_proj": (ff, dim), p + "mlp.up_proj": (ff, dim), p + "mlp.down_proj": (dim, ff)}
    w = {}
    for name, (rows, cols) in names.items():
        x = rng.normal(size=(rows, cols)) * 0.05
        edge = edge_rows(cols, rng)
        x[: len(edge)] = edge
        x[len(edge)] *= np.where(rng.random(cols) < 0.02, 30, 1)
        w[name + ".weight"] = mx.array(x.astype(np.float32)).astype(TYPES[dtype])
    for i in range(2):
        for n in ("input_layernorm", "post_attention_layernorm"):
            w[f"model.layers.{i}.{n}.weight"] = mx.ones(dim).astype(TYPES[dtype])
    w["model.norm.weight"] = mx.ones(dim).astype(TYPES[dtype])
    os.makedirs(path)
    mx.save_safetensors(os.path.join(path, "model.safetensors"), w, metadata={"format": "pt"})
    cfg = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": dim, "num_hidden_layers": 2,
           "intermediate_size": ff, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": head,
           "vocab_size": vocab, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
           "tie_word_embeddings": False, "torch_dtype": dtype}
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(cfg, f)
    return w


def same(a, b):
    """Bit for bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    kinds = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}
    a, b = (x.view(kinds[x.dtype.size]) for x in (a, b))
    return bool(mx.all(a == b))


def convert(ffai, src, dst, *args):
    shutil.rmtree(dst, ignore_errors=True)
    subprocess.run([ffai, "convert", "-m", src, "-o", dst, "-q", *args], check=True)


def check_codes(ffai):
    rng = np.random.default_rng(1)
    bad = count = 0
    with tempfile.TemporaryDirectory() as tmp:
        for dtype in TYPES:
            src = os.path.join(tmp, dtype)
            weights = write_model(src, dtype, rng)
            for mode, bits, group in MODES:
                out = os.path.join(tmp, "out")
                convert(ffai, src, out, "--mode", mode, "--bits", str(bits), "--group-size", str(group))
                got = mx.load(os.path.join(out, "model.safetensors"))
                for name, x in weights.items():
                    if x.ndim < 2:
                        continue
                    want = mx.quantize(x, group_size=group, bits=bits, mode=mode)
                    for part, kind in zip(want, (".weight", ".scales", ".biases")):
                        count += 1
                        if not same(got[name[:-7] + kind], part):
                            bad += 1
                            a, b = np.array(got[name[:-7] + kind].astype(mx.float32)), np.array(part.astype(mx.float32))
                            rows = np.argwhere(np.any(a != b, axis=-1)).ravel() if a.shape == b.shape else "shape"
                            print(f"{dtype} {mode} {bits} {group} {name}{kind}: rows {rows[:12]}")
    print(f"{count} arrays, {bad} differ")
    return bad == 0


def check_load(ffai, dirs):
    from mlx_lm.utils import load_model
    from pathlib import Path

    good = True
    for d in dirs:
        name = os.path.basename(os.path.normpath(d))
        with tempfile.TemporaryDirectory() as tmp:
            for args in ([], ["--bits", "4", "--group-size", "32"], ["--mode", "mxfp4"]):
                out = os.path.join(tmp, "out")
                what = f"{name} {' '.join(args)}"
                try:
                    convert(ffai, d, out, *args)
                except subprocess.CalledProcessError:
                    print(f"FAIL {what}: convert")
                    good = False
                    continue
                try:
                    model, cfg = load_model(Path(out))
                    model.set_dtype(mx.float32)
                except Exception as e:  # pylint: disable=broad-except
                    print(f"FAIL {what}: load: {type(e).__name__}: {str(e).splitlines()[0][:300]}")
                    good = False
                    continue
                text = cfg.get("text_config") or cfg
                vocab = text.get("vocab_size", cfg.get("vocab_size", 64))
                ids = [(7 * i + 3) % min(vocab, 97) for i in range(12)]
                try:
                    a = np.array(model(mx.array([ids]))[0].astype(mx.float32))
                    npy = os.path.join(tmp, "logits.npy")
                    subprocess.run([ffai, "inspect", "-m", out, "--token-ids", ",".join(map(str, ids)), "--logits", npy,
                                    "--precision", "exact", "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
                    b = np.load(npy)
                    diff = float(np.max(np.abs(a - b)))
                    ok = a.shape == b.shape and diff < 5e-3 * max(1.0, float(np.max(np.abs(b))))
                except Exception as e:  # pylint: disable=broad-except
                    diff, ok = f"{type(e).__name__}: {str(e)[:200]}", False
                good &= ok
                print(f"{'ok  ' if ok else 'FAIL'} {what}: difference {diff}")
    return good


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("codes", "load"):
        sys.exit(__doc__)
    sys.exit(0 if (check_codes(sys.argv[2]) if sys.argv[1] == "codes" else check_load(sys.argv[2], sys.argv[3:])) else 1)
