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
            np.abs(rng.normal(size=cols)), rng.normal(size=cols) * 1e-9, rng.normal(size=cols) * 2e-4,
            rng.normal(size=cols) * 1e4, np.where(np.arange(cols) % 32 == 5, 7.0, 0.0),
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


def ffai_logits(ffai, model, ids, tmp):
    npy = os.path.join(tmp, "logits.npy")
    subprocess.run([ffai, "inspect", "-m", model, "--token-ids", ",".join(map(str, ids)), "--logits", npy,
                    "--precision", "exact", "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    return np.load(npy)


def mlx_logits(path, ids, quantize=None):
    from pathlib import Path

    from mlx_lm.utils import load_model, quantize_model
    with open(os.devnull, "w") as null:
        out, sys.stdout = sys.stdout, null
        try:
            model, cfg = load_model(Path(path))
            if quantize:
                model, cfg = quantize_model(model, cfg, quantize[2], quantize[1], mode=quantize[0])
            model.set_dtype(mx.float32)
            return np.array(model(mx.array([ids]))[0].astype(mx.float32))
        finally:
            sys.stdout = out


def short(e):
    return f"{type(e).__name__}: {str(e).splitlines()[0][:160]}"


def check_load(ffai, dirs):
    """The result in mlx-lm gives what mlx-lm makes of the original, quantized by itself; and what ffai makes of it, as
    far as they agree on the original."""
    good = True
    for d in dirs:
        name, ids = os.path.basename(os.path.normpath(d)), [(7 * i + 3) % 61 for i in range(12)]
        with tempfile.TemporaryDirectory() as tmp:
            out, original, agree = os.path.join(tmp, "out"), None, False
            if not d.endswith(".gguf"):
                try:
                    original = mlx_logits(d, ids)
                    agree = np.max(np.abs(original - ffai_logits(ffai, d, ids, tmp))) < 2e-2
                except Exception as e:  # pylint: disable=broad-except
                    print(f"note {name}: mlx-lm does not load the original: {short(e)}")
                    if "not supported" in str(e):
                        continue
            for q in (None, ("affine", 4, 32), ("affine", 3, 64), ("mxfp4", 4, 32), ("nvfp4", 4, 16)):
                args = ["--mode", q[0], "--bits", str(q[1]), "--group-size", str(q[2])] if q else []
                try:
                    convert(ffai, d, out, *args)
                    got, notes, ok = mlx_logits(out, ids), [], True
                    if original is not None:
                        try:
                            own = mlx_logits(d, ids, q) if q else original
                        except Exception as e:  # pylint: disable=broad-except
                            own = None
                            notes.append(f"mlx-lm cannot quantize it: {short(e)}")
                        diff = float(np.max(np.abs(got - own))) if own is not None else 0
                        notes.append(f"mlx-lm's own {diff:.2g}")
                        ok &= diff <= 1e-4
                    mine = ffai_logits(ffai, out, ids, tmp)
                    diff = float(np.max(np.abs(got - mine)))
                    notes.append(f"ffai {diff:.2g}" + ("" if agree else " (they differ on the original)"))
                    ok &= diff <= 5e-2 or not agree
                except Exception as e:  # pylint: disable=broad-except
                    ok, notes = False, [short(e)]
                good &= ok
                print(f"{'ok  ' if ok else 'FAIL'} {name} {q or ''}: {'; '.join(notes)}", flush=True)
    return good


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("codes", "load"):
        sys.exit(__doc__)
    sys.exit(0 if (check_codes(sys.argv[2]) if sys.argv[1] == "codes" else check_load(sys.argv[2], sys.argv[3:])) else 1)
