#!/usr/bin/env python3
"""Writes tests/data/qfmt/vectors.bin: stored weights and the values that gguf-py and mlx give for them.

Needs numpy, gguf and mlx (cpu is enough). Little endian throughout:

  file   : "FAQV", u32 record count, records
  record : u8 kind, u8 fmt, u8 bits, u8 scale_dtype, u32 group, u32 rows, u32 cols, u32 codes, scales and x byte counts,
           then codes, scales, biases (as many bytes as scales, affine only), values f32 [rows, cols], x f32 (quantizer input or nothing)
  kind   : 0 = dequantize only, 1 = x is what the codes were made from: encoding x must give the same bytes,
           2 = the same, with the x of the nearest record before that has one

fmt and scale_dtype are the names' positions in FMTS and DTYPES below; the test maps them to the enums of the library.
"""
import struct
import sys
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np

FMTS = ["affine", "mxfp4", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
        "nvfp4", "mxfp8", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_nl", "iq4_xs", "tq1_0",
        "tq2_0", "mxfp4_b", "nvfp4_b"]
DTYPES = ["none", "f32", "f16", "bf16", "u8", "f8_e4m3"]
rng = np.random.default_rng(20240717)


def raw(a):
    """Bytes of an mlx array of any type."""
    if a.dtype == mx.bfloat16:
        a = a.view(mx.uint16)
    return np.array(a).tobytes()


def record(kind, fmt, bits, scale_dtype, group, rows, cols, codes, scales, biases, values, x):
    head = struct.pack("<BBBBIIIIII", kind, FMTS.index(fmt), bits, DTYPES.index(scale_dtype), group, rows, cols,
                       len(codes), len(scales), len(x))
    assert len(values) == rows * cols * 4 and len(biases) in (0, len(scales))
    return head + codes + scales + biases + values + x


def affine_records(x):
    """One record per width, group and scale type; x is exact in all three types."""
    types = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            for name, t in types.items():
                w, s, b = mx.quantize(mx.array(x).astype(t), group_size=group, bits=bits)
                y = mx.dequantize(w, s.astype(mx.float32), b.astype(mx.float32), group_size=group, bits=bits)
                assert y.dtype == mx.float32
                first = (bits, group, name) == (2, 32, "f32")
                yield record(1 if first else 2, "affine", bits, name, group, *x.shape, raw(w), raw(s), raw(b), raw(y),
                             x.tobytes() if first else b"")


def mxfp4_records():
    x = (rng.standard_normal((2, 128)) * np.repeat([1e-3, 0.05, 1, 40, 1e5, 1e-6, 0, 7], 32).reshape(2, 128))
    x = x.astype(np.float32)
    w, s = mx.quantize(mx.array(x), mode="mxfp4", group_size=32, bits=4)
    yield mxfp4(1, w, s, x)
    # Every nibble, and scales from the smallest to the largest whose products stay finite in the canonical form.
    w = mx.array(rng.integers(0, 2**32, (2, 16), dtype=np.uint32))
    s = mx.array(np.array([[0, 1, 2, 3], [100, 127, 200, 251]], dtype=np.uint8))
    yield mxfp4(0, w, s, np.zeros(0, np.float32))


def mxfp4(kind, w, s, x):
    y = mx.dequantize(w, s, mode="mxfp4", group_size=32, bits=4, dtype=mx.float32)
    return record(kind, "mxfp4", 4, "u8", 32, *y.shape, raw(w), raw(s), b"", raw(y), x.tobytes())


def small_float_records():
    """mlx's other modes: encoded values, then every code and scale (NaN codes and what overflows left out)."""
    x = (rng.standard_normal((2, 128)) * np.repeat([1e-3, 0.05, 1, 40, 200, 1e-2, 0, 7], 32).reshape(2, 128))
    x = x.astype(np.float32)
    for mode, bits, group, dtype in (("mxfp8", 8, 32, "u8"), ("nvfp4", 4, 16, "f8_e4m3")):
        w, s = mx.quantize(mx.array(x), mode=mode, group_size=group, bits=bits)
        y = mx.dequantize(w, s, mode=mode, group_size=group, bits=bits, dtype=mx.float32)
        yield record(1, mode, bits, dtype, group, *y.shape, raw(w), raw(s), b"", raw(y), x.tobytes())
        codes = rng.integers(0, 256, (4, 256 if bits == 8 else 128), dtype=np.uint8)
        if bits == 8:
            codes[codes % 128 == 127] = 5
            scales = rng.integers(0, 230, (4, 8), dtype=np.uint8)
            scales[0] = [0, 1, 2, 3, 126, 127, 128, 240]
        else:
            scales = np.delete(np.arange(256), [127, 255])[rng.permutation(254)[:64]].reshape(4, 16).astype(np.uint8)
        w, s = mx.array(codes.view(np.uint32)), mx.array(scales)
        y = mx.dequantize(w, s, mode=mode, group_size=group, bits=bits, dtype=mx.float32)
        yield record(0, mode, bits, dtype, group, *y.shape, raw(w), raw(s), b"", raw(y), b"")


# Byte offsets of the f16 fields inside a block.
HALVES = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82], "q3_k": [108],
          "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "iq1_s": [0], "iq1_m": [], "iq2_xxs": [0], "iq2_xs": [0],
          "iq2_s": [0], "iq3_xxs": [0], "iq3_s": [0], "iq4_nl": [0], "iq4_xs": [0], "tq1_0": [52], "tq2_0": [64],
          "mxfp4_b": [], "nvfp4_b": []}
TABLES = list(HALVES)[10:]


def gguf_random(name):
    """Random bytes, with finite f16 fields (also subnormal ones and both zeros)."""
    q = getattr(gguf.GGMLQuantizationType, name.upper().removesuffix("_B"))
    block, size = gguf.GGML_QUANT_SIZES[q]
    rows, cols = (8, 256) if name in TABLES else (2, 256) if block == 256 else (3, 96)
    data = rng.integers(0, 256, (rows, cols // block, size), dtype=np.uint8)
    special = np.array([0x0001, 0x03FF, 0x8000, 0x7BFF, 0x0400], np.uint16)
    n = 0
    for r in range(rows):
        for b in range(cols // block):
            for off in HALVES[name]:
                h = np.float16(rng.standard_normal() * 0.1).view(np.uint16)
                if r == rows - 1:
                    h, n = special[n % len(special)], n + 1
                data[r, b, off:off + 2] = np.frombuffer(h.tobytes(), np.uint8)
    if name == "iq1_m":  # the four parts of d: none infinite
        data[:, :, 55] = data[:, :, 55] & 0xBF
    if name == "mxfp4_b":  # scales whose products are finite in the canonical form
        data[:, :, 0] = np.minimum(data[:, :, 0], 251)
    data = data.reshape(rows, -1)
    y = gguf.quants.dequantize(data, q)
    return record(0, name, 0, "none", 0, rows, cols, data.tobytes(), b"", b"", y.astype(np.float32).tobytes(), b"")


def gguf_encoded(name, x):
    q = getattr(gguf.GGMLQuantizationType, name.upper())
    data = gguf.quants.quantize(x, q)
    y = gguf.quants.dequantize(data, q)
    return record(1, name, 0, "none", 0, *x.shape, data.tobytes(), b"", b"", y.tobytes(), x.tobytes())


def bf16_exact(x):
    return (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def main():
    # Small enough to be exact in f16 too: magnitudes of 2^-6..4 with 8 significant bits.
    x = bf16_exact(np.clip(rng.standard_normal((1, 256)), -3.9, 3.9))
    x[np.abs(x) < 2**-6] = 0
    assert (x.astype(np.float16).astype(np.float32) == x).all()
    records = list(affine_records(x)) + list(mxfp4_records())
    x = (rng.standard_normal((2, 96)) * 0.3).astype(np.float32)
    x[1, :32] = 0
    for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0"):
        records += [gguf_random(name), gguf_encoded(name, x)]
    records += [gguf_random(name) for name in ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")]
    records += list(small_float_records()) + [gguf_random(name) for name in TABLES]
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests/data/qfmt/vectors.bin")
    out.parent.mkdir(parents=True, exist_ok=True)
    blob = b"FAQV" + struct.pack("<I", len(records)) + b"".join(records)
    out.write_bytes(blob)
    print(f"{out}: {len(records)} records, {len(blob)} bytes")


if __name__ == "__main__":
    main()
