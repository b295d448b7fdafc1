#!/usr/bin/env python3
"""ffai against llama.cpp on one GGUF file, alternating in one run: prefill of P tokens in one go, then N single-token decodes, as llama-bench
measures them. Prints a table of medians with the slowest and fastest round of each side, and the ratios round by round. With --other, ffai runs
that model instead: of the same shape in another format (bench/random_gguf.py and ffai bench --write-synthetic make such pairs).

    python3 -m venv venv && CMAKE_ARGS="-DGGML_NATIVE=ON" venv/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    venv/bin/python bench/vs_llama_cpp.py FILE.gguf [--ffai ./ffai] [-p 512] [-n 64] [-t 2] [--rounds 5] [--other MODEL]
"""
import argparse, ctypes, json, statistics, subprocess, time

def ffai_round(a):
    cmd = [a.ffai, "bench", "-m", a.other or a.file, "-p", str(a.p), "-n", str(a.n), "-r", "2", "-t", str(a.t), "--json"]
    rows = json.loads(subprocess.run(cmd, check=True, capture_output=True, text=True).stdout)
    return {r["phase"]: r["tok_s_max"] for r in rows}

class LlamaCpp:
    def __init__(self, a):
        import llama_cpp as L
        self.L, self.a = L, a
        self.quiet = L.llama_log_callback(lambda *_: None)
        L.llama_log_set(self.quiet, None)
        L.llama_backend_init()
        mp = L.llama_model_default_params()
        mp.n_gpu_layers = 0
        model = L.llama_model_load_from_file(a.file.encode(), mp)
        cp = L.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_threads, cp.n_threads_batch = a.p + a.n + 64, 2048, 512, a.t, a.t
        self.ctx = L.llama_init_from_model(model, cp)
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model)) or 1000
        self.batch = L.llama_batch_init(2048, 0, 1)

    def decode(self, tokens, pos, logits):
        b = self.batch
        b.n_tokens = len(tokens)
        for i, t in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = t, pos + i, 1, logits and i == len(tokens) - 1
            b.seq_id[i][0] = 0
        assert self.L.llama_decode(self.ctx, b) == 0
        self.L.llama_synchronize(self.ctx)

    def clear(self): self.L.llama_memory_clear(self.L.llama_get_memory(self.ctx), True)

    def once(self):
        a = self.a
        self.clear()
        t = time.perf_counter()
        self.decode([7 * i % self.vocab for i in range(a.p)], 0, True)
        prefill = a.p / (time.perf_counter() - t)
        self.clear()
        self.decode([1], 0, False)
        t = time.perf_counter()
        for i in range(a.n): self.decode([11 * i % self.vocab], 1 + i, True)
        return {"prefill": prefill, "decode": a.n / (time.perf_counter() - t)}

    def round(self):
        two = [self.once() for _ in range(2)]  # the better of two, as for the other side
        return {k: max(x[k] for x in two) for k in two[0]}

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("file"); ap.add_argument("--ffai", default="./ffai"); ap.add_argument("-p", type=int, default=512)
    ap.add_argument("-n", type=int, default=64); ap.add_argument("-t", type=int, default=2); ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--other", default="")
    a = ap.parse_args()
    other = LlamaCpp(a)
    other.once(); ffai_round(a)  # warm up
    ours, theirs = [], []
    for _ in range(a.rounds):
        ours.append(ffai_round(a)); theirs.append(other.round())
    print(f"{a.file.split('/')[-1]}{' (ffai: ' + a.other.rstrip('/').split('/')[-1] + ')' if a.other else ''}, {a.t} threads, {a.rounds} rounds in turn; llama.cpp of llama-cpp-python {other.L.__version__}; tokens/s: median (slowest .. fastest)")
    for k, what in (("prefill", f"prefill {a.p}"), ("decode", f"decode {a.n}")):
        o, t = [x[k] for x in ours], [x[k] for x in theirs]
        r = [x / y for x, y in zip(o, t)]
        s = lambda v: f"{statistics.median(v):8.1f} ({min(v):.1f} .. {max(v):.1f})"
        print(f"{what:12s} ffai {s(o)}   llama.cpp {s(t)}   ratio {statistics.median(r):.2f} ({min(r):.2f} .. {max(r):.2f})")

main()
