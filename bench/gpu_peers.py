#!/usr/bin/env python3
"""ffai against llama.cpp on a GPU: both programs in turn in one run, models of equal shape, every round's figure into a CSV, medians and ratios to stdout.

    LLAMA_CPP_LIB_PATH=FOLDER python bench/gpu_peers.py --work DIR --csv OUT.csv [--ffai build/ffai] [--rounds 2]

FOLDER holds a CUDA build of llama.cpp's libraries as llama-cpp-python's sources make them (cmake -DGGML_CUDA=ON, target llama); needs llama-cpp-python,
numpy and gguf. llama.cpp reads GGUF files of random weights that are made in DIR (8B in bf16: 16 GB), ffai makes the same shape and width in device memory.
llama.cpp runs with all layers on the GPU, flash attention, an f16 cache and pieces of 2,048 tokens. tools/plot_speed.py draws the CSV.
"""
import argparse, json, os, statistics, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
import bench_peers, random_gguf

# shape: vocabulary, width, mlp, layers, heads, kv heads, head, tied
SHAPES = {"8B": (128256, 4096, 14336, 32, 32, 8, 128, False), "1B": (128256, 2048, 8192, 16, 32, 8, 64, True)}
# pair: shape, format of ffai's model, type of llama.cpp's
PAIRS = (("8B bf16", "8B", "bf16", "BF16"), ("8B 4-bit", "8B", "affine4g64", "Q4_0"), ("1B bf16", "1B", "bf16", "BF16"), ("1B 4-bit", "1B", "affine4g64", "Q4_0"))


def config(folder, shape):
    vocab, dim, mlp, layers, heads, kv, head, tied = SHAPES[shape]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab, "hidden_size": dim, "intermediate_size": mlp,
                   "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head, "tie_word_embeddings": tied,
                   "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu", "torch_dtype": "bfloat16",
                   "bos_token_id": 1, "eos_token_id": 2}, f)


class Ffai:
    def __init__(self, a, folder, fmt):
        self.base = [a.ffai, "bench", "-m", folder, "--synthetic", fmt, "--device", a.device, "-r", "1", "--json"]

    def __call__(self, p, n, batch, kind):
        out = subprocess.run([*self.base, "-p", ",".join(map(str, p)), "-n", str(n), "-b", ",".join(map(str, batch))], check=True, capture_output=True, text=True).stdout
        return [(r["phase"], r["length"], r["batch"], r["tok_s"]) for r in json.loads(out) if r["phase"] == kind or kind is None]


def measure(a, emit, name, folder, fmt, file):
    """Rounds in turn; a call of ffai covers all lengths or all batches, so that its model is made once a round."""
    ours, peer = Ffai(a, folder, fmt), bench_peers.LlamaCpp(a, file)
    for p in (128, 2048): peer.once(p, 8, 1, 1)  # first use of its kernels
    for _ in range(a.rounds):
        for phase, length, batch, tok_s in ours(a.lengths, 32, (1,), None): emit(name, "ffai", phase, length, batch, tok_s)
        for phase, _, batch, tok_s in ours((128,), 64, a.batches, "decode"): emit(name, "ffai", phase, 128, batch, tok_s)
        for p in a.lengths:
            for phase, tok_s in peer.once(p, 32, 1, p).items(): emit(name, "llama.cpp", phase, p, 1, tok_s)
        for b in a.batches: emit(name, "llama.cpp", "decode", 128, b, peer.once(128, 64, b, 128)["decode"])
    peer.close()


def table(rows):
    got = {}
    for pair, who, phase, length, batch, tok_s in rows: got.setdefault((pair, phase, length, batch), {}).setdefault(who, []).append(tok_s)
    print("| | ffai | llama.cpp | ratio of medians |\n|---|---|---|---|")
    for (pair, phase, length, batch), v in got.items():
        if len(v) < 2: continue
        x, y = v["ffai"], v["llama.cpp"]
        what = f"{pair}, {phase} of {length}" if phase == "prefill" else f"{pair}, decode behind {length}, {batch} sequence{'s' * (batch > 1)}"
        print(f"| {what} | {bench_peers.spread(x)} | {bench_peers.spread(y)} | {statistics.median(x) / statistics.median(y):.2f} |")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", required=True, help="folder for the models (23 GB)")
    ap.add_argument("--csv", required=True)
    ap.add_argument("--ffai", default=os.path.join(HERE, "..", "ffai"))
    ap.add_argument("--device", default="cuda:0")
    ap.add_argument("--pairs", help="only these, separated by commas: " + ", ".join(p[0] for p in PAIRS))
    ap.add_argument("--lengths", default="128,512,2048,8192,32768", type=lambda s: [int(x) for x in s.split(",")])
    ap.add_argument("--batches", default="1,2,4,8,16,32,64", type=lambda s: [int(x) for x in s.split(",")])
    ap.add_argument("--rounds", type=int, default=2)
    a = ap.parse_args()
    a.ngl, a.ubatch, a.t = 99, 2048, 8
    rows = []
    with open(a.csv, "w") as f:
        f.write("pair,program,phase,length,batch,tok_s\n")
        def emit(*row):
            rows.append(row)
            f.write(",".join(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row) + "\n")
            f.flush()
        for name, shape, fmt, kind in PAIRS:
            if a.pairs and name not in a.pairs.split(","): continue
            folder, file = os.path.join(a.work, shape), os.path.join(a.work, f"{shape}-{kind}.gguf")
            config(folder, shape)
            if not os.path.exists(file):
                random_gguf.write(folder, file + ".part", kind)
                os.rename(file + ".part", file)
            measure(a, emit, name, folder, fmt, file)
    table(rows)


if __name__ == "__main__": main()
