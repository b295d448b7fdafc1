#!/usr/bin/env python3
"""ffai against llama.cpp on this machine's CPU: both programs in turn in one run, models of equal shape or the same file, medians, ratios.

    python3 -m venv venv && CMAKE_ARGS="-DGGML_NATIVE=ON" venv/bin/pip install --no-binary llama-cpp-python llama-cpp-python numpy gguf
    venv/bin/python tools/bench_peers.py --work DIR [--gemma gemma-3-270m-q4_k_m.gguf]     the table of bench/SPEED.md
    venv/bin/python tools/bench_peers.py --work DIR --sweep OUT.csv                        speed against length and batch, for tools/plot_speed.py;
                                                                                           --pairs 4-bit,gemma: of these, or of one FILE.gguf
    venv/bin/python tools/bench_peers.py FILE.gguf [--other MODEL]                         one file (ffai: or another model of that shape)

The table's models have the shape of bench/shapes/qwen3-0.6b and random weights; they are made in DIR once (2.5 GB). llama.cpp is measured as its
llama-bench does: a prompt in one go, then single-token decodes. In a round each side takes the better of two; --rounds says how many. Nothing else
should run on the machine: the limits measured before and after tell.
"""
import argparse, json, os, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPE = os.path.join(HERE, "..", "bench", "shapes", "qwen3-0.6b")
# a pair: name, format of ffai's model, type of llama.cpp's
PAIRS = (("4-bit", "affine4g64", "Q4_0"), ("8-bit", "affine8g64", "Q8_0"), ("bf16", "bf16", "BF16"))
BEHIND = 128  # tokens before those that the sweep decodes for several sequences at once
# rows of the table: what, pair, phase, precision of ffai, must, aim
ROWS = (("decode, affine 4-bit g64 : Q4_0", "4-bit", "decode", "fast", 1.35, 1.6), ("decode, affine 8-bit g64 : Q8_0", "8-bit", "decode", "fast", 1.2, 1.35),
        ("decode, bf16 : bf16", "bf16", "decode", "fast", 1.0, 1.1), ("decode, Gemma 3 270M Q4_K_M, same file", "gemma", "decode", "fast", 1.5, 1.8),
        ("prefill, affine 4-bit g64 : Q4_0", "4-bit", "prefill", "fast", 2.2, 3.0), ("prefill, affine 8-bit g64 : Q8_0", "8-bit", "prefill", "fast", 0, 0),
        ("prefill, bf16 : bf16", "bf16", "prefill", "fast", 1.6, 2.0), ("prefill, Gemma 3 270M Q4_K_M, same file", "gemma", "prefill", "fast", 2.0, 3.0),
        ("prefill, affine 4-bit g64 exact : Q4_0", "4-bit", "prefill", "exact", 0.8, 1.0))


def ffai(a, *args):
    return subprocess.run([a.ffai, *args], check=True, capture_output=True, text=True).stdout


def ours(a, model, p, n, batch=1, precision="fast", repeat=2):
    """tokens/s of all sequences: the better of `repeat`."""
    rows = json.loads(ffai(a, "bench", "-m", model, "-p", str(p), "-n", str(n), "-b", str(batch), "-r", str(repeat), "-t", str(a.t), "--device", "cpu",
                           "--ctx", str(p + n + 64), "--precision", precision, "--json"))
    return {r["phase"]: r["tok_s_max"] for r in rows}


class LlamaCpp:
    """A model and contexts of llama.cpp, by llama-cpp-python's low-level API."""

    def __init__(self, a, file):
        import ctypes, llama_cpp as L, numpy as np
        self.L, self.a, self.ctx, self.room = L, a, None, 0
        self.quiet = L.llama_log_callback(lambda *_: None)
        L.llama_log_set(self.quiet, None)
        L.llama_backend_init()
        mp = L.llama_model_default_params()
        mp.n_gpu_layers = getattr(a, "ngl", 0)
        self.model = L.llama_model_load_from_file(file.encode(), mp)
        if not self.model: sys.exit(f"llama.cpp cannot load {file}")
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model)) or 1000
        self.batch, self.seqs = L.llama_batch_init(2048, 0, 1), [None] * 2048
        view = lambda p, kind: np.ctypeslib.as_array(ctypes.cast(p, ctypes.POINTER(kind)), (2048,))
        self.token, self.pos = view(self.batch.token, ctypes.c_int32), view(self.batch.pos, ctypes.c_int32)
        self.logits, self.one = view(self.batch.logits, ctypes.c_int8), view(self.batch.n_seq_id, ctypes.c_int32)
        self.one[:], self.count = 1, np.arange(2048)

    def close(self):
        if self.ctx: self.L.llama_free(self.ctx)
        self.L.llama_model_free(self.model)

    def open(self, room, n_seq):
        if (room, n_seq) == self.room: return
        if self.ctx: self.L.llama_free(self.ctx)
        cp = self.L.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_threads, cp.n_threads_batch = room * n_seq, 2048, getattr(self.a, "ubatch", 512), self.a.t, self.a.t
        cp.n_seq_max, cp.kv_unified = n_seq, True
        self.ctx, self.room = self.L.llama_init_from_model(self.model, cp), (room, n_seq)

    def decode(self, token, pos, seqs, logits):
        """A row of the batch for each of seqs; the others may be one value for all. What is the same as before is not set again: on a GPU it would count."""
        n = self.batch.n_tokens = len(seqs)
        self.token[:n], self.pos[:n], self.logits[:n] = token, pos, logits
        if self.seqs[:n] != seqs:
            for i, s in enumerate(seqs): self.batch.seq_id[i][0] = self.seqs[i] = s
        if self.L.llama_decode(self.ctx, self.batch): sys.exit("llama_decode failed")
        self.L.llama_synchronize(self.ctx)

    def fill(self, p, seq):
        for at in range(0, p, 2048):
            n = min(p - at, 2048)
            i = self.count[:n] + at
            self.decode(7 * i % self.vocab, i, [seq] * n, i == p - 1)

    def clear(self):
        self.L.llama_memory_clear(self.L.llama_get_memory(self.ctx), True)

    def once(self, p, n, batch, depth):
        self.open(max(p, depth) + n + 64, batch)
        self.clear()
        t = time.perf_counter()
        self.fill(p, 0)
        prefill = p / (time.perf_counter() - t)
        self.clear()
        for s in range(batch): self.fill(depth, s)
        seqs = list(range(batch))
        t = time.perf_counter()
        for i in range(n): self.decode((11 * i + self.count[:batch]) % self.vocab, depth + i, seqs, 1)
        return {"prefill": prefill, "decode": n * batch / (time.perf_counter() - t)}

    def measure(self, p, n, batch=1, depth=1, repeat=2):
        two = [self.once(p, n, batch, depth) for _ in range(repeat)]
        return {k: max(x[k] for x in two) for k in two[0]}


def spread(v):
    return f"{statistics.median(v):.1f} ({min(v):.1f} .. {max(v):.1f})"


def limits(a):
    out = ffai(a, "bench", "--device-limits", "--device", "cpu", "-t", str(a.t))
    return ", ".join(" ".join(line.split()) for line in out.splitlines())


def make_pair(a, name, ours_format, theirs_type):
    folder, file = os.path.join(a.work, f"ffai-{name}"), os.path.join(a.work, f"llama-{name}.gguf")
    if not os.path.exists(file):
        subprocess.run([sys.executable, os.path.join(HERE, "..", "bench", "random_gguf.py"), SHAPE, file + ".part", theirs_type], check=True)
        os.rename(file + ".part", file)
    if not os.path.exists(os.path.join(folder, "config.json")):
        ffai(a, "bench", "-m", SHAPE, "--synthetic", ours_format, "--write-synthetic", folder)
    return folder, file


def pairs_of(a):
    if a.file: return {os.path.basename(a.file).removesuffix(".gguf"): (a.other or a.file, a.file)}
    known = [name for name, *_ in PAIRS] + (["gemma"] if a.gemma else [])
    wanted = a.pairs.split(",") if a.pairs else known
    for name in wanted:
        if name not in known: sys.exit(f"--pairs: {name} is none of {', '.join(known)}" + ("" if a.gemma else " (gemma needs --gemma FILE)"))
    out = {name: make_pair(a, name, *formats) for name, *formats in PAIRS if name in wanted}
    if "gemma" in wanted: out["gemma"] = (a.gemma, a.gemma)
    return out


def line(what, x, y, must=0, aim=0):
    r = [i / j for i, j in zip(x, y)]
    bar = f"{must}x / {aim}x" if must else "-"
    print(f"| {what} | {spread(x)} | {spread(y)} | {statistics.median(r):.2f} ({min(r):.2f} .. {max(r):.2f}) | {bar} |", flush=True)


def head(a, version):
    print(f"{a.t} threads, {a.rounds} rounds in turn, tokens/s: median (slowest .. fastest); llama.cpp of llama-cpp-python {version}\n"
          "| | ffai | llama.cpp | ratio by round | must / aim |\n|---|---|---|---|---|", flush=True)


def one_file(a):
    peer, got = LlamaCpp(a, a.file), {"prefill": ([], []), "decode": ([], [])}
    model = a.other or a.file
    peer.once(a.p, a.n, 1, 1)
    ours(a, model, a.p, a.n)
    for _ in range(a.rounds):
        x, y = ours(a, model, a.p, a.n), peer.measure(a.p, a.n)
        for k in got: got[k][0].append(x[k]), got[k][1].append(y[k])
    head(a, peer.L.__version__)
    for k, n in (("prefill", a.p), ("decode", a.n)): line(f"{os.path.basename(model.rstrip('/'))}: {k} {n}", *got[k])


def table(a):
    print(limits(a))
    pairs, first = pairs_of(a), True
    for name, (model, file) in pairs.items():
        peer = LlamaCpp(a, file)
        if first: head(a, peer.L.__version__)
        first = False
        rows = [r for r in ROWS if r[1] == name]
        precisions = sorted({r[3] for r in rows}, reverse=True)
        peer.once(a.p, a.n, 1, 1)
        for q in precisions: ours(a, model, a.p, a.n, precision=q)
        theirs, mine = [], {q: [] for q in precisions}
        for _ in range(a.rounds):
            for q in precisions: mine[q].append(ours(a, model, a.p, a.n, precision=q))
            theirs.append(peer.measure(a.p, a.n))
        for what, _, phase, q, must, aim in rows: line(what, [x[phase] for x in mine[q]], [x[phase] for x in theirs], must, aim)
        peer.close()
    if "4-bit" in pairs: batches(a, *pairs["4-bit"])
    print("\n" + limits(a))


def batches(a, model, file):
    """Decode of 8 sequences over decode of one, for both sides."""
    peer = LlamaCpp(a, file)
    x, y = {1: [], 8: []}, {1: [], 8: []}
    for _ in range(a.rounds):
        for b in (1, 8):
            x[b].append(ours(a, model, 16, a.n // 2, b)["decode"])
            y[b].append(peer.measure(16, a.n // 2, b, 16)["decode"])
    gain = lambda v: statistics.median(i / j for i, j in zip(v[8], v[1]))
    line("decode of 8 sequences, 4-bit, all tokens", x[8], y[8])
    print(f"\nover one sequence: ffai {gain(x):.2f}x, llama.cpp {gain(y):.2f}x (must 4.5x, aim 6x)")
    peer.close()


def sweep(a):
    """CSV: pair, program, phase, length, batch, tokens/s; a row for every round. Prompts and decoding behind them by length, one sequence; decoding
    behind BEHIND tokens by the number of sequences."""
    with open(a.sweep, "w") as f:
        f.write("pair,program,phase,length,batch,tok_s\n")
        for name, (model, file) in pairs_of(a).items():
            peer = LlamaCpp(a, file)
            for i in range(a.rounds):
                for p in a.lengths:
                    for who, r in (("ffai", ours(a, model, p, a.n, repeat=1)), ("llama.cpp", peer.measure(p, a.n, depth=p, repeat=1))):
                        for phase in r: f.write(f"{name},{who},{phase},{p},1,{r[phase]:.3f}\n")
                for b in a.batches:
                    if b == 1 and BEHIND in a.lengths: continue  # measured above
                    for who, r in (("ffai", ours(a, model, BEHIND, a.n, b, repeat=1)), ("llama.cpp", peer.measure(BEHIND, a.n, b, BEHIND, repeat=1))):
                        f.write(f"{name},{who},decode,{BEHIND},{b},{r['decode']:.3f}\n")
                f.flush()
                print(f"{name}: round {i + 1} of {a.rounds}", file=sys.stderr, flush=True)
            peer.close()


def numbers(text):
    """A type of arguments: 128,256"""
    out = sorted({int(x) for x in text.split(",")})
    if out[0] < 1: raise argparse.ArgumentTypeError(f"{out[0]} is not positive")
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("file", nargs="?", help="a GGUF file instead of the table")
    ap.add_argument("--other", help="with FILE: what ffai runs instead")
    ap.add_argument("--ffai", default=os.path.join(HERE, "..", "ffai"))
    ap.add_argument("--work", help="folder for the table's models")
    ap.add_argument("--gemma", help="gemma-3-270m-q4_k_m.gguf, for the rows of the same file")
    ap.add_argument("--sweep", metavar="OUT.csv")
    ap.add_argument("--pairs", help="of the table's models: " + ", ".join(name for name, *_ in PAIRS) + ", gemma (default: all)")
    ap.add_argument("--lengths", type=numbers, default=numbers("128,256,512,1024,2048,4096"), help="prompts of --sweep (default 128 to 4096)")
    ap.add_argument("--batches", type=numbers, default=numbers("1,2,4,8,16"), help="sequences of --sweep (default 1 to 16)")
    ap.add_argument("-p", type=int, default=512)
    ap.add_argument("-n", type=int, default=64)
    ap.add_argument("-t", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    if not a.file and not a.work: ap.error("FILE.gguf or --work DIR is needed")
    if a.work: os.makedirs(a.work, exist_ok=True)
    sweep(a) if a.sweep else one_file(a) if a.file else table(a)


if __name__ == "__main__": main()
