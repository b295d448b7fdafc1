#!/usr/bin/env python3
"""Writes the seed inputs of the fuzz targets for src/io: tests/fuzz/corpus/<target>/*. Only the standard library; the output is the same every time."""
import json
import os
import struct

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fuzz", "corpus")


def put(target, name, data):
    folder = os.path.join(ROOT, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


# GGUF value types
U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
PACK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d"}


def value(kind, v):
    return text(v) if kind == STR else struct.pack(PACK[kind], v)


def kv(key, kind, v, elem=None):
    out = text(key) + struct.pack("<I", kind)
    if kind == ARR:
        return out + struct.pack("<IQ", elem, len(v)) + b"".join(value(elem, x) for x in v)
    return out + value(kind, v)


def gguf(kvs, tensors, version=3, align=32):
    """tensors: (name, ggml type, dims innermost first, bytes)"""
    info, data = b"", b""
    for name, kind, dims, size in tensors:
        data += b"\0" * (-len(data) % align)
        info += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, len(data))
        data += bytes(i & 255 for i in range(size))
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(kvs)) + b"".join(kvs) + info
    return head + b"\0" * (-len(head) % align) + data


def model_keys(arch):
    return [
        kv("general.architecture", STR, arch), kv(arch + ".block_count", U32, 1), kv(arch + ".embedding_length", U32, 32),
        kv(arch + ".attention.head_count", U32, 2), kv(arch + ".attention.head_count_kv", ARR, [1, 1], U32), kv(arch + ".feed_forward_length", U32, 64),
        kv(arch + ".attention.layer_norm_rms_epsilon", F32, 1e-6), kv(arch + ".vocab_size", U32, 4), kv(arch + ".rope.freq_base", F32, 1e4),
    ]


def make_gguf():
    every = [kv("k%d" % t, t, 1) for t in PACK] + [kv("s", STR, "text"), kv("words", ARR, ["a", "", "bc"], STR), kv("nums", ARR, [1.5, -2.0], F32)]
    put("gguf", "empty", gguf([], []))
    put("gguf", "types_v2", gguf(every, [], 2))
    put("gguf", "tensors", gguf([kv("general.alignment", U32, 8)], [("token_embd.weight", 0, [2, 3], 24), ("blk.0.attn_q.weight", 2, [32, 2], 36), ("x", 12, [256], 144)], 3, 8))
    put("gguf", "llama", gguf(model_keys("llama") + [kv("llama.rope.scaling.type", STR, "yarn"), kv("llama.rope.scaling.factor", F32, 4)], [("output.weight", 0, [1], 4)]))
    put("gguf", "gemma", gguf(model_keys("gemma") + [kv("tokenizer.ggml.tokens", ARR, ["<pad>", "a"], STR), kv("tokenizer.ggml.eos_token_id", U32, 1)], []))
    put("gguf", "gemma3", gguf(model_keys("gemma3") + [
        kv("gemma3.attention.sliding_window_pattern", ARR, [1], BOOL), kv("gemma3.attention.sliding_window", U32, 8),
        kv("gemma3.rope.scaling.type", STR, "linear"), kv("gemma3.rope.scaling.factor", F32, 8), kv("tokenizer.ggml.eot_token_id", U32, 2)], []))


def st(header, data=b"", pad=0):
    h = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))).encode() + b" " * pad
    return struct.pack("<Q", len(h)) + h + data


def make_safetensors():
    put("safetensors", "empty", st({}))
    put("safetensors", "two", st({"__metadata__": {"format": "pt"}, "a.b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
                                  "c": {"dtype": "BF16", "shape": [3], "data_offsets": [8, 14]}}, bytes(14), 5))
    put("safetensors", "f4", st({"q": {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}, "z": {"dtype": "U8", "shape": [0], "data_offsets": [4, 4]}}, bytes(4)))


def make_json():
    put("json", "config", json.dumps({"model_type": "llama", "rope_scaling": None, "eps": 1e-6, "eos": [1, 2], "tie": True, "d": {"e": {}}}, indent=1).encode())
    put("json", "escapes", rb'["\u00e9\ud83d\ude00\n\\\"", "", {"a\u0000": -1.5e-7}, 1e30, 12345678901234567890, null, false]')
    put("json", "scalar", b' "text" ')
    put("json", "deep", b"[" * 40 + b"]" * 40)


def npy(descr, shape, data, version=1):
    h = ("{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)).encode()
    size = 10 if version == 1 else 12
    h += b" " * (-(size + len(h) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(h)) + h + data


def make_npy():
    put("npy", "i32", npy("<i4", "(2, 3)", bytes(24)))
    put("npy", "f64", npy("<f8", "()", struct.pack("<d", 0.5)))
    put("npy", "f32_v2", npy("<f4", "(3,)", struct.pack("<fff", 1, float("nan"), 1e30), 2))
    put("npy", "i64", npy("<i8", "(1,)", bytes(8)))


if __name__ == "__main__":
    make_gguf()
    make_safetensors()
    make_json()
    make_npy()
