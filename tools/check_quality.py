#!/usr/bin/env python3
"""What fast precision costs: ffai's fast against its exact, beside what llama.cpp's default costs against its own f32, on the same file and text.

    python3 -m venv venv && venv/bin/pip install llama-cpp-python numpy gguf
    venv/bin/python tools/check_quality.py gemma-3-270m-q4_k_m.gguf --work DIR

llama.cpp's f32: the file's weights widened to f32 (written to DIR once), keys and values in f32, no flash attention; its default: the file as it is, what
llama_context_default_params says. So both sides compare the same weights computed in f32 with those weights computed fast. The text
(tools/real/story.txt, the beginning of A. Conan Doyle's A Scandal in Bohemia, 1891, public domain) is fed in windows behind the token that begins
texts; every token is scored. KL in nats, from the f32 of the same program; the last table is how far the two f32 are from each other.
Ends with status 1 when fast's mean KL is larger than llama.cpp's, or its perplexity more than 0.2 % away from exact's.
"""
import argparse, json, os, subprocess, sys, tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_PERPLEXITY = 0.002


def write_f32(source, target):
    """The same model with every tensor widened to f32."""
    import gguf
    r = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(target + ".part", r.fields["general.architecture"].contents())
    for f in r.fields.values():
        if f.name.startswith("GGUF.") or f.name == "general.architecture": continue
        sub = f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None
        value = int(gguf.LlamaFileType.ALL_F32) if f.name == "general.file_type" else f.contents()
        w.add_key_value(f.name, value, f.types[0], sub_type=sub)
    for t in r.tensors: w.add_tensor_info(t.name, [int(n) for n in reversed(t.shape)], np.dtype(np.float32), int(np.prod(t.shape)) * 4)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for t in r.tensors:
        w.write_tensor_data(gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]).astype(np.float32))
    w.close()
    os.rename(target + ".part", target)


class LlamaCpp:
    """A model of llama.cpp, by llama-cpp-python's low-level API."""

    def __init__(self, file, n_ctx, threads, f32):
        import llama_cpp as L
        self.L, self.name = L, "llama.cpp " + ("f32" if f32 else "default")
        self.quiet = L.llama_log_callback(lambda *_: None)
        L.llama_log_set(self.quiet, None)
        L.llama_backend_init()
        mp = L.llama_model_default_params()
        mp.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(file.encode(), mp)
        if not self.model: sys.exit(f"llama.cpp cannot load {file}")
        cp = L.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_threads, cp.n_threads_batch = n_ctx, n_ctx, threads, threads
        if f32:
            cp.type_k = cp.type_v = L.GGML_TYPE_F32
            cp.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.ctx = L.llama_init_from_model(self.model, cp)
        self.batch = L.llama_batch_init(n_ctx, 0, 1)
        self.n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))

    def logits(self, ids):
        """float32 [len(ids), vocab], a view that the next call overwrites"""
        L, b = self.L, self.batch
        L.llama_memory_clear(L.llama_get_memory(self.ctx), True)
        b.n_tokens = len(ids)
        for i, token in enumerate(ids):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, i, 1, 1
            b.seq_id[i][0] = 0
        if L.llama_decode(self.ctx, b): sys.exit(f"{self.name}: llama_decode failed")
        return np.ctypeslib.as_array(L.llama_get_logits(self.ctx), shape=(len(ids), self.n_vocab))


class Ffai:
    def __init__(self, a, precision, folder):
        self.a, self.name, self.precision, self.folder = a, "ffai " + precision, precision, folder

    def logits(self, ids):
        ids_file, out = (os.path.join(self.folder, self.precision + s) for s in ("-ids.npy", ".npy"))
        np.save(ids_file, np.asarray(ids, np.int32))
        subprocess.run([self.a.ffai, "inspect", "-m", self.a.model, "--device", "cpu", "-t", str(self.a.threads), "--precision", self.precision,
                        "--ctx", str(len(ids)), "--token-ids-file", ids_file, "--logits", out], check=True, env=dict(os.environ, **self.a.env))
        return np.load(out, mmap_mode="r")


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def tokens_of(a):
    """The token that begins texts, and those of the text."""
    run = lambda *args: json.loads(subprocess.run([a.ffai, "tokenize", "-m", a.model, *args], check=True, capture_output=True, text=True).stdout)
    text, around, bare = run("--file", a.text), run("--special", "-p", "a"), run("-p", "a")
    begin = around[0] if around[0] != bare[0] else None
    return begin, text[: a.tokens]


class Score:
    """KL and perplexity of one program against its base, token by token."""

    def __init__(self): self.kl, self.top, self.nll, self.base_nll = [], [], [], []

    def add(self, base, model, right):
        """log-probabilities [rows, vocab], the tokens that came"""
        at = np.arange(len(right))
        self.kl += list((np.exp(base) * (base - model)).sum(axis=1))
        self.top += list(base.argmax(axis=1) == model.argmax(axis=1))
        self.nll += list(-model[at, right])
        self.base_nll += list(-base[at, right])

    def perplexities(self): return np.exp(np.mean(self.nll)), np.exp(np.mean(self.base_nll))

    def row(self, name):
        kl, (ppl, base) = np.array(self.kl), self.perplexities()
        return (f"| {name} | {kl.mean():.3e} | {np.median(kl):.3e} | {np.percentile(kl, 99):.3e} | {kl.max():.3e} | "
                f"{100 * np.mean(self.top):.2f} % | {ppl:.4f} | {base:.4f} | {100 * (ppl / base - 1):+.3f} % |")


def measure(a, folder):
    begin, text = tokens_of(a)
    lead = [] if begin is None else [begin]
    n_ctx = a.window + len(lead)
    exact, fast = Ffai(a, "exact", folder), Ffai(a, "fast", folder)
    f32, default = LlamaCpp(a.f32, n_ctx, a.threads, True), LlamaCpp(a.model, n_ctx, a.threads, False)
    ours, theirs, between = Score(), Score(), Score()
    for at in range(0, len(text), a.window):
        ids = lead + text[at : at + a.window]
        got = [p.logits(ids[:-1]) for p in (exact, fast, f32, default)]
        for i in range(0, len(ids) - 1, 32):
            e, f, b, d = (log_softmax(x[i : i + 32]) for x in got)
            right = np.array(ids[1:])[i : i + 32]
            ours.add(e, f, right), theirs.add(b, d, right), between.add(b, e, right)
        print(f"{at + len(ids)} of {len(text)} tokens: KL {np.mean(ours.kl):.3e} and {np.mean(theirs.kl):.3e}", file=sys.stderr, flush=True)
    return ours, theirs, between, default.L.__version__


def report(a, ours, theirs, between, version):
    (ppl, base), kl = ours.perplexities(), (np.mean(ours.kl), np.mean(theirs.kl))
    print(f"{len(ours.kl)} tokens of {os.path.basename(a.text)} in windows of {a.window}, {os.path.basename(a.model)}; llama-cpp-python {version}\n\n"
          "| | mean KL | median | 99 % | max | same top token | perplexity | of its base | change |\n|---|---|---|---|---|---|---|---|---|")
    print(ours.row("ffai fast : exact"))
    print(theirs.row("llama.cpp default : f32"))
    print(between.row("ffai exact : llama.cpp f32"))
    print(f"\nfast's mean KL is {kl[0] / kl[1]:.2f} times llama.cpp's; perplexity of fast {100 * (ppl / base - 1):+.3f} %")
    bad = [what for what, is_bad in (("the mean KL is larger than llama.cpp's", kl[0] > kl[1]),
                                     ("the perplexity is more than 0.2 % away", abs(ppl / base - 1) > LIMIT_PERPLEXITY)) if is_bad]
    if bad: sys.exit("check_quality: " + "; ".join(bad))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", help="a GGUF file")
    ap.add_argument("--work", required=True, help="folder for the widened file and for logits (4 bytes a weight, 8 bytes a token and vocabulary entry of a window)")
    ap.add_argument("--ffai", default=os.path.join(HERE, "..", "ffai"))
    ap.add_argument("--text", default=os.path.join(HERE, "real", "story.txt"))
    ap.add_argument("--tokens", type=int, default=4000)
    ap.add_argument("--window", type=int, default=1000)
    ap.add_argument("-t", "--threads", type=int, default=2)
    ap.add_argument("--cpu", help="FFAI_CPU for ffai: c, avx2, avx512, avx512vnni, avx512bf16, neon")
    a = ap.parse_args()
    a.env = {"FFAI_CPU": a.cpu} if a.cpu else {}
    os.makedirs(a.work, exist_ok=True)
    a.f32 = os.path.join(a.work, os.path.basename(a.model) + ".f32.gguf")
    if not os.path.exists(a.f32): write_f32(a.model, a.f32)
    with tempfile.TemporaryDirectory(dir=a.work) as folder: report(a, *measure(a, folder))


if __name__ == "__main__": main()
