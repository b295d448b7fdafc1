#!/usr/bin/env python3
"""Writes what the fuzz targets begin with: seeds of configs, adapters, poolings and hub replies (tests/fuzz/corpus/), made of the fixtures, and the
dictionaries of all targets (tests/fuzz/dict/), made of the words that the readers look for. Only the standard library; the same output every time."""
import json
import os
import re
import struct

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FUZZ = os.path.join(TOP, "tests", "fuzz")
FIXTURES = os.path.join(TOP, "tests", "data", "families")


def read(*path):
    with open(os.path.join(TOP, *path), "rb") as f:
        return f.read()


def put(target, name, data):
    folder = os.path.join(FUZZ, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


# ---- seeds ----


def config_text(fixture):
    """config.json of a fixture, compact: mutations should hit values, not white space."""
    path = os.path.join(FIXTURES, fixture, "config.json")
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as f:
        return json.dumps(json.loads(f.read()), separators=(",", ":")).encode()


def configs():
    generation = b'{"eos_token_id":[1,2],"temperature":0.7,"top_k":40,"top_p":0.9,"do_sample":true}'
    seen = set()
    for fixture in sorted(os.listdir(FIXTURES)):
        text = config_text(fixture)
        family = re.sub(r"^(mlx|hf|torch|lora)_", "", fixture).split("_")[0]
        if text is None or fixture.startswith(("gguf_", "lora_")) or fixture.endswith("_t5"):
            continue
        kind = fixture.split("_")[0] if fixture.startswith(("mlx_", "hf_", "torch_")) else ""
        if (kind, family) in seen or (kind == "mlx" and family not in ("llama", "qwen3", "gemma3", "qwen3moe")):
            continue
        seen.add((kind, family))
        put("config", f"{kind}{family}", b"S" + text + (b"\0" + generation if not kind else b""))
    for rope in ("yarn", "llama3", "longrope", "dynamic"):
        put("config", f"rope_{rope}", b"S" + config_text(f"llama_rope_{rope}"))
    demo = json.dumps(json.loads(read("models", "ffai-demo-6m", "config.json")), separators=(",", ":")).encode()
    put("config", "demo", b"D" + demo + b"\0" + read("models", "ffai-demo-6m", "generation_config.json"))
    for name in ("gemma3", "llama"):
        put("config", f"gguf_{name}", b"G" + read("tests", "fuzz", "corpus", "gguf", name))


def safetensors(tensors):
    """{name: shape} as zeros in f32."""
    head, at = {}, 0
    for name, shape in tensors.items():
        n = 4
        for d in shape:
            n *= d
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def adapters():
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    lora = {f"{q}.lora_A.weight": [2, 8], f"{q}.lora_B.weight": [4, 2]}
    peft = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"layers.0": 8}, "fan_in_fan_out": False, "bias": "none", "peft_version": "0.18.0"}
    put("adapter", "peft", json.dumps(peft).encode() + b"\0" + safetensors(lora))
    dora = dict(lora, **{f"{q}.lora_magnitude_vector": [4]})
    put("adapter", "dora", json.dumps(dict(peft, use_dora=True)).encode() + b"\0" + safetensors(dora))
    mlp = "base_model.model.model.layers.0.mlp.experts"
    experts = {f"{mlp}.lora_A.weight": [8, 8], f"{mlp}.lora_B.weight": [4, 8]}
    put("adapter", "experts", json.dumps(dict(peft, target_parameters=["mlp.experts.down_proj"])).encode() + b"\0" + safetensors(experts))
    mlx = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}}
    q = "model.layers.0.self_attn.q_proj"
    put("adapter", "mlx", b"M" + json.dumps(mlx).encode() + b"\0" + safetensors({f"{q}.lora_a": [8, 2], f"{q}.lora_b": [2, 4]}))


def poolings():
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
               {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
               {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
               {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}]
    pooling = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True,
               "pooling_mode_mean_sqrt_len_tokens": False, "pooling_mode_weightedmean_tokens": False, "pooling_mode_lasttoken": False,
               "include_prompt": True}
    dense = {"in_features": 16, "out_features": 4, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
    texts = [json.dumps(x).encode() for x in (modules, pooling, dense)]
    put("pooling", "all", b"\0".join(texts) + b"\0" + safetensors({"linear.weight": [4, 16], "linear.bias": [4]}))
    put("pooling", "two", b"\0".join([json.dumps(modules[:2] + modules[3:]).encode(), texts[1], b"{}"]) + b"\0")


def hub_replies():
    sha, oid = "ab" * 32, "cd" * 20
    head = (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLink: <https://hub.example/api/models/acme/demo/tree/x?cursor=a>; rel=\"next\"\r\n"
            b"X-Error-Code: RepoNotFound\r\nX-Error-Message: no\r\nRetry-After: 3\r\nContent-Range: bytes 0-9/100\r\n\r\n")
    files = [{"type": "directory", "path": "onnx", "oid": oid, "size": 0},
             {"type": "file", "path": "config.json", "oid": oid, "size": 700},
             {"type": "file", "path": "model.safetensors", "oid": oid, "size": 135, "lfs": {"oid": sha, "size": 4000000000, "pointerSize": 135}, "xetHash": sha},
             {"type": "file", "path": "1_Pooling/config.json", "oid": oid, "size": 3}]
    gguf = [{"type": "file", "path": f"model-{q}.gguf", "oid": oid, "size": 9} for q in ("Q4_K_M", "Q8_0", "F16-00001-of-00002", "F16-00002-of-00002")]
    put("hub", "folder", b"acme/demo@main\0" + head + b"\0" + json.dumps(files).encode())
    put("hub", "gguf", b"acme/demo:Q8_0\0HTTP/2 404\r\n\0" + json.dumps(gguf).encode())
    tree = {"format_version": 1, "files": {"config.json": {"size": 2, "blob_id": oid}, "model.safetensors": {"size": 135, "blob_id": oid, "lfs_sha256": sha,
                                                                                                              "lfs_size": 9, "xet_hash": sha}}}
    put("hub", "cache", b"acme/demo@" + oid.encode() + b"\0" + oid.encode() + b"\0" + json.dumps(tree).encode())


# ---- dictionaries ----


def sources(*folders):
    text = ""
    for folder in folders:
        path = os.path.join(TOP, folder)
        if os.path.isfile(path):
            text += open(path, encoding="utf-8").read()
            continue
        for at, _, names in sorted(os.walk(path)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cpp", ".inc")):
                    text += open(os.path.join(at, name), encoding="utf-8").read()
    return text


def words(text, pattern=r"[A-Za-z_][A-Za-z0-9_.<>|/-]{1,39}"):
    """String literals of C that look like keys, types and names."""
    found = re.findall(r'(?<!include )"((?:[^"\\\n]|\\.)*)"', text)
    return [w for w in found if re.fullmatch(pattern, w)]


def put_dict(target, entries):
    folder = os.path.join(FUZZ, "dict")
    os.makedirs(folder, exist_ok=True)
    lines = set()
    for e in entries:
        b = e.encode() if isinstance(e, str) else e
        if b and len(b) <= 64:
            lines.add('"' + "".join(chr(c) if 32 <= c < 127 and c not in (34, 92) else f"\\x{c:02X}" for c in b) + '"')
    with open(os.path.join(folder, target + ".dict"), "w") as f:
        f.write("# tools/make_fuzz_seeds.py\n" + "\n".join(sorted(lines)) + "\n")


JSON = ["{", "}", "[", "]", ":", ",", '""', "null", "true", "false", "0", "-1", "1e999", "1e308", "-0", "0.5", "NaN", "9223372036854775807",
        "18446744073709551616", "4294967296", "2147483648", "\\u0000", "\\ud800", "\\ud83d\\ude00", "[[[[", '{"":{"":', "\xef\xbb\xbf"]


def keys(*folders):
    return [f'"{w}"' for w in words(sources(*folders))]


def dictionaries():
    dtypes = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64", "F4", "F6_E2M3",
              "F6_E3M2", "C64"]
    tensors = JSON + [f'"{d}"' for d in dtypes] + ['"dtype":', '"shape":[', '"data_offsets":[', '"__metadata__":{', '"format":"pt"']
    put_dict("json", JSON)
    put_dict("safetensors", tensors)
    put_dict("config", JSON + keys("src/families/config.c", "src/blocks", "src/families/text", "src/families/registry.c", "src/engine/sample_config.c"))
    put_dict("adapter", tensors + keys("src/engine/adapter_file.c", "src/engine/adapter_match.c"))
    put_dict("pooling", tensors + keys("src/engine/pooling.c"))
    put_dict("hub", JSON + keys("src/hub/hub_api.c", "src/hub/hub_cache.c") + ["../", "/", "\\", "..", "refs/", "HTTP/1.1 ", "Link: <", '>; rel="next"',
             "Content-Range: bytes ", "Retry-After: ", "X-Error-Code: ", "http://", "https://", "169.254.169.254", "[::1]", "a@b", ".gguf", ".safetensors",
             "-00001-of-00002", "ab" * 20, "ab" * 32])
    gguf = [struct.pack("<Q", len(w)) + w.encode() for w in words(sources("src/io/gguf_keys.c", "src/io/gguf_hf.c", "src/io/gguf.c"))]
    gguf += [struct.pack("<I", v) for v in range(40)] + [struct.pack("<Q", v) for v in (0, 1, 2, 32, 64, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)]
    put_dict("gguf", gguf + ["GGUF", "general.architecture", "general.alignment", "tokenizer.ggml.", "blk.0.", ".weight"])
    put_dict("tok_gguf", gguf + words(sources("src/text/tok_gguf.c", "src/text/tok_gguf_kinds.c", "src/text/gguf_pre.c")))
    put_dict("tokenizer", JSON + keys("src/text/tok_hf.c", "src/text/tok_steps.c", "src/text/tok_models.c", "src/text/tok_post.c") +
             ["(?i:", "\\\\p{L}", "\\\\s+(?!\\\\S)", "[^\\\\r\\\\n]", "(?=", "(?<!", "{1,3}", "\u0120", "\u2581", "<0x41>", "##"])
    put_dict("tekken", JSON + keys("src/text/tok_tekken.c") + ["AA==", "QQ==", "gA=="])
    put_dict("tiktoken", ["IQ== 0\n", "QQ== ", "gA==", " 4294967296\n", " -1\n", "=", "\n", "\r\n"])
    put_dict("tok_text", ["</w>", "#version: 0.2\n", "\u0120", "\u2581", "##", "\n", "\r\n", " ", "<unk>"] + JSON)
    varints = [bytes([f << 3 | w]) for f in range(1, 6) for w in range(6)] + [b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80" * 9, b"\xff\xff\xff\xff\x0f"]
    put_dict("sentencepiece", varints + ["<unk>", "<s>", "</s>", "\u2581", "<0x00>", "nmt_nfkc", "identity"])
    put_dict("template", words(sources("src/text/jinja"), r"[a-z_]{2,20}") + ["{{", "}}", "{%", "%}", "{#", "#}", "{%-", "-%}", "{%+", "~", "**", "//", "==", "is ",
             " not ", "[::-1]", "[:", "(*", "**{", "%s", "{0!r:>5}", "'a'*", "range(100000)", "namespace(", "loop.index", "__class__", "\0", "\0{\"messages\":[",
             '{"role":"user","content":"', '"tool_calls":[{"function":{"name":"f","arguments":{}}}]', '"add_generation_prompt":true'])
    put_dict("grammar", JSON + keys("src/text/grammar") + ["root ::= ", "::=", "|", "(", ")", "*", "+", "?", "{1,3}", "{0,1000000}", "[^\\x00-\\x7F]", "[a-z]", "\\d",
             "\\w", "\\s", "\\b", "(?:", "(?=", "(?<=", "(?i)", "\\p{L}", "^", "$", "#", "<[5]>", '"$ref":"#"', '"$ref":"#/$defs/a"', "\\u{10FFFF}"])
    put_dict("answer", words(sources("src/text/answer"), r"[^\s\\]{2,40}") + JSON + ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|channel|>", "<|message|>",
             "<function=", "</function>", "<parameter=", "[TOOL_CALLS]", "```json\n"])
    put_dict("npy", [b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", "{'descr': '<f4', 'fortran_order': False, 'shape': (", "), }", "'<i8'", "'|u1'", "True", "1,", "()", "\n"])
    put_dict("session", ["ffaisess"] + [struct.pack("<I", v) for v in (0, 1, 2, 64, 2**31, 2**32 - 1)])
    put_dict("torch", ["PK\x03\x04", "PK\x01\x02", "PK\x05\x06", "archive/data.pkl", "archive/data/0", "archive/version", "ctorch._utils\n_rebuild_tensor_v2\n",
             "ctorch\nFloatStorage\n", "ctorch\nBFloat16Storage\n", "ccollections\nOrderedDict\n", "cos\nsystem\n"] +
             [bytes([c]) for c in b"(.0120FIJKLMNPQRSTUVXabc}]degh]iljopqrstu"] + [bytes([c]) for c in range(0x80, 0x98)])


configs()
adapters()
poolings()
hub_replies()
dictionaries()
