#!/usr/bin/env python3
"""Writes tests/data/sampler/cases.json: options of a sampler, the logits and history they meet, and the exact distribution
that must come out.

The definition is a few lines of numpy per sampler in double precision (class Ref). Every case whose samplers transformers
has is computed with its LogitsProcessors too, every case whose samplers llama.cpp has with llama.cpp's, and all must agree.
Needs numpy, torch, transformers, tokenizers, llama-cpp-python. --llama-vocab FILE.gguf (any GPT-2 vocabulary) also compares
DRY with breakers with llama.cpp on random sequences; nothing of that is written.

Logits of a case are made, not stored: x[i] = f32(scale * (u0 + u1 + u2 + u3 - 2)), u_j = value 4 i + j of the splitmix64 stream
of src/base/rng.h as a float in [0, 1); with "step" rounded to its multiples, which makes ties.
"""
import argparse
import ctypes
import json
import math
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = "penalties,dry,top_n_sigma,temp,top_h,top_k,top_p,min_p,typical,epsilon,eta,xtc".split(",")
U64 = (1 << 64) - 1


def rng_at(seed, i):
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


def logits_of(c):
    u = [(rng_at(c["seed"], i) >> 40) * 2.0**-24 for i in range(4 * c["vocab"])]
    x = np.array([c["scale"] * (u[4 * i] + u[4 * i + 1] + u[4 * i + 2] + u[4 * i + 3] - 2) for i in range(c["vocab"])])
    if "step" in c:
        x = np.round(x / c["step"]) * c["step"]
    return x.astype(np.float32)


class Ref:
    """One pick: candidates in rising id order."""

    def __init__(self, c, text_of=None, encode=None):
        self.o = c["options"]
        self.hist = c["history"]
        self.text_of, self.encode = text_of, encode
        self.l = logits_of(c).astype(np.float64)
        self.ids = np.arange(c["vocab"])

    def p(self):
        e = np.exp(self.l - self.l.max())
        return e / e.sum()

    def keep(self, mask):
        self.l, self.ids = self.l[mask], self.ids[mask]

    def by_rank(self, key):
        """Indices, greatest key first, equal ones by id."""
        return np.lexsort((self.ids, -key))

    def take(self, order, n):
        mask = np.zeros(len(self.l), bool)
        mask[order[:n]] = True
        self.keep(mask)

    # -- before the order --
    def prepare(self):
        for i, b in self.o.get("bias", []):
            self.l[self.ids == i] += b
        if "mask" in self.o:
            self.l[~np.isin(self.ids, self.o["mask"])] = -np.inf
        g = self.o.get("no_repeat_ngram", 0)
        h = self.hist
        if g and len(h) >= g:
            for i in range(len(h) - g + 1):
                if h[i : i + g - 1] == h[len(h) - g + 1 :]:
                    self.l[self.ids == h[i + g - 1]] = -np.inf
        for w in self.o.get("bad_words", []):
            if len(w) - 1 <= len(h) and h[len(h) - len(w) + 1 :] == w[:-1]:
                self.l[self.ids == w[-1]] = -np.inf
        self.keep(self.l > -np.inf)

    # -- samplers --
    def penalties(self):
        last = self.o.get("repeat_last", 0)
        seen = self.hist[-last:] if last else self.hist
        rep = self.o.get("repeat_penalty", 0) or 1
        for t in set(seen):
            at = self.ids == t
            l = self.l[at]
            l = np.where(l <= 0, l * rep, l / rep)
            self.l[at] = l - (seen.count(t) * self.o.get("frequency_penalty", 0) + self.o.get("presence_penalty", 0))

    def breakers(self, window):
        """Tokens at the window's end behind the last breaker, and the tokens that break alone."""
        alone, reach = set(), None
        strings = self.o.get("dry_breakers", ["\n", ":", '"', "*"])
        if not self.text_of:
            return len(window), alone
        text = {t: self.text_of(t) for t in set(window)}
        alone = {t for t, s in text.items() if any(b in s for b in strings)}
        for i, t in enumerate(reversed(window)):
            tails = [] if t not in alone else [[]]
            if t not in alone:
                for b in strings:
                    for k in range(1, len(b)):
                        if text[t].endswith(b[:k]):
                            tails.append(self.encode(b[k:])[:20])
            after = window[len(window) - i :]
            match = [len(w) for w in tails if len(w) <= i and after[: len(w)] == w]
            if match:
                reach = i - max(match)
                break
        return len(window) if reach is None else reach, alone

    def dry(self):
        m = self.o.get("dry_multiplier", 0)
        if not m:
            return
        base, allowed = self.o.get("dry_base", 1.75), self.o.get("dry_allowed_length", 2)
        last = self.o.get("dry_last", 0)
        w = self.hist[-last:] if last else list(self.hist)
        if len(w) <= allowed:
            return
        limit, alone = self.breakers(w)
        if limit < allowed:
            return
        longest = {}
        for end in range(len(w) - 1):  # w[: end + 1] ends like w does
            n = 0
            while n <= end and w[end - n] == w[len(w) - 1 - n]:
                n += 1
            n = min(n, limit)
            if n >= allowed:
                longest[w[end + 1]] = max(longest.get(w[end + 1], 0), n)
        for t, n in longest.items():
            if t not in alone:
                self.l[self.ids == t] -= m * base ** min(n - allowed, math.floor(88.7228391 / math.log(base)))

    def temp(self):
        t, r = self.o["temp"], self.o.get("temp_range", 0)
        if r > 0:
            if len(self.l) < 2:
                return
            p = self.p()
            h = -(p[p > 0] * np.log(p[p > 0])).sum() / math.log(len(p))
            lo = max(0, t - r)
            t = lo + (t + r - lo) * h ** self.o.get("temp_exponent", 1)
        self.l = self.l / t

    def top_n_sigma(self):
        n = self.o.get("top_n_sigma", 0)
        if n > 0 and len(self.l) > 1:
            self.keep(self.l >= self.l.max() - n * self.l.std())

    def top_h(self):
        h = self.o.get("top_h", 0)
        if not 0 < h < 1:
            return
        self.take(self.by_rank(self.l), 100)
        order, p = self.by_rank(self.l), self.p()
        terms = -p[order] * np.log(p[order])
        self.take(order, max(1, int((np.cumsum(terms) <= terms.sum() * h).sum())))

    def top_k(self):
        if self.o.get("top_k", 0) > 0:
            self.take(self.by_rank(self.l), self.o["top_k"])

    def top_p(self):
        tp = self.o.get("top_p", 0)
        if 0 < tp < 1:
            order = self.by_rank(self.l)
            p = self.p()[order]
            self.take(order, int((np.cumsum(p) - p < tp).sum()))

    def min_p(self):
        if self.o.get("min_p", 0) > 0:
            self.keep(self.l >= self.l.max() + math.log(self.o["min_p"]))

    def typical(self):
        m = self.o.get("typical", 0)
        if 0 < m < 1:
            p = self.p()
            h = -(p * np.log(p)).sum()
            order = self.by_rank(-np.abs(-np.log(p) - h))
            self.take(order, int((np.cumsum(p[order]) - p[order] < m).sum()))

    def epsilon(self):
        if self.o.get("epsilon_cutoff", 0) > 0:
            p = self.p()
            self.keep(p >= min(self.o["epsilon_cutoff"], p.max()))

    def eta(self):
        e = self.o.get("eta_cutoff", 0)
        if e > 0:
            p = self.p()
            h = -(p * np.log(p)).sum()
            self.keep(p >= min(e, math.sqrt(e) * math.exp(-h), p.max()))

    def xtc(self, on):
        if not on or self.o.get("xtc_threshold", 0.1) > 0.5:
            return
        p = self.p()
        above = p >= self.o.get("xtc_threshold", 0.1)
        if above.sum() > 1:
            last = [i for i in self.by_rank(self.l) if above[i]][-1]
            above[last] = False
            self.keep(~above)

    def run(self, xtc_on):
        self.prepare()
        order = self.o.get("samplers", ",".join(DEFAULT)).split(",")
        for name in order:
            if name == "xtc":
                self.xtc(xtc_on)
            elif not (self.o.get("mirostat_tau", 0) > 0 and name not in ("penalties", "dry", "temp")):
                getattr(self, name)()
        if self.o.get("mirostat_tau", 0) > 0:
            p = self.p()
            self.keep(p >= min(2.0 ** (-2 * self.o["mirostat_tau"]), p.max()))
        return dict(zip(self.ids.tolist(), self.p().tolist()))


def reference(c, **kw):
    q = c["options"].get("xtc_prob", 0)
    on = Ref(c, **kw).run(True) if q > 0 else {}
    off = Ref(c, **kw).run(False) if q < 1 else {}
    both = {i: q * on.get(i, 0) + (1 - q) * off.get(i, 0) for i in set(on) | set(off)}
    return {i: p for i, p in sorted(both.items()) if p > 0}


# ---- transformers ----

HF_OWN = {"temp", "top_h", "top_k", "top_p", "min_p", "typical", "epsilon_cutoff", "eta_cutoff", "repeat_penalty",
          "no_repeat_ngram", "bad_words", "bias"}


def by_transformers(c):
    o = c["options"]
    if not set(o) <= HF_OWN or "step" in c:
        return None
    import torch
    from transformers.generation import logits_process as lp

    steps = []
    if "bias" in o:
        if any(b == -math.inf for _, b in o["bias"]):
            steps.append(lp.SuppressTokensLogitsProcessor([i for i, b in o["bias"] if b == -math.inf]))
        some = {(i,): float(b) for i, b in o["bias"] if b > -math.inf}
        if some:
            steps.append(lp.SequenceBiasLogitsProcessor(some))
    if o.get("repeat_penalty"):
        steps.append(lp.RepetitionPenaltyLogitsProcessor(o["repeat_penalty"]))
    if o.get("no_repeat_ngram"):
        steps.append(lp.NoRepeatNGramLogitsProcessor(o["no_repeat_ngram"]))
    if o.get("bad_words"):
        steps.append(lp.NoBadWordsLogitsProcessor(o["bad_words"], eos_token_id=None))
    made = {"temp": lambda v: lp.TemperatureLogitsWarper(float(v)), "top_h": lp.TopHLogitsWarper, "top_k": lp.TopKLogitsWarper,
            "top_p": lp.TopPLogitsWarper, "min_p": lp.MinPLogitsWarper, "typical": lp.TypicalLogitsWarper,
            "epsilon_cutoff": lp.EpsilonLogitsWarper, "eta_cutoff": lp.EtaLogitsWarper}
    for key, make in made.items():  # transformers' order
        if o.get(key, 0) and not (key in ("top_p", "typical") and o[key] >= 1):
            steps.append(make(o[key]))
    x = torch.tensor(logits_of(c), dtype=torch.float64)[None]
    ids = torch.tensor([c["history"]], dtype=torch.long)
    for s in steps:
        x = s(ids, x)
    p = torch.softmax(x, -1)[0].tolist()
    return {i: v for i, v in enumerate(p) if v > 0}


# ---- llama.cpp ----

LLAMA_OWN = {"temp", "temp_range", "temp_exponent", "top_k", "top_p", "min_p", "typical", "top_n_sigma", "xtc_prob", "xtc_threshold",
             "repeat_penalty", "presence_penalty", "frequency_penalty", "repeat_last", "mirostat_tau", "bias", "samplers"}


def llama_array(x):
    import llama_cpp.llama_cpp as L

    data = (L.llama_token_data * len(x))()
    for i, v in enumerate(x):
        data[i].id, data[i].logit, data[i].p = i, float(v), 0.0
    return data, L.llama_token_data_array(data, len(x), -1, False)


def llama_steps(c):
    import llama_cpp.llama_cpp as L

    o, out = c["options"], []
    if "bias" in o:
        b = (L.llama_logit_bias * len(o["bias"]))()
        for i, (t, v) in enumerate(o["bias"]):
            b[i].token, b[i].bias = t, float(v)
        out.append(L.llama_sampler_init_logit_bias(c["vocab"], len(b), b))
    for name in o.get("samplers", ",".join(DEFAULT)).split(","):
        mirostat = o.get("mirostat_tau", 0) > 0
        if name == "penalties":
            s = L.llama_sampler_init_penalties(c["vocab"], o.get("repeat_last", 0) or 4096, o.get("repeat_penalty", 0) or 1.0,
                                               o.get("frequency_penalty", 0.0), o.get("presence_penalty", 0.0))
            for t in c["history"]:
                L.llama_sampler_accept(s, t)
            out.append(s)
        elif name == "temp":
            out.append(L.llama_sampler_init_temp_ext(o["temp"], o.get("temp_range", 0.0), o.get("temp_exponent", 1.0)))
        elif mirostat:
            continue
        elif name == "top_k" and o.get("top_k"):
            out.append(L.llama_sampler_init_top_k(o["top_k"]))
        elif name == "top_p" and o.get("top_p"):
            out.append(L.llama_sampler_init_top_p(o["top_p"], 1))
        elif name == "min_p" and o.get("min_p"):
            out.append(L.llama_sampler_init_min_p(o["min_p"], 1))
        elif name == "typical" and o.get("typical"):
            out.append(L.llama_sampler_init_typical(o["typical"], 1))
        elif name == "top_n_sigma" and o.get("top_n_sigma"):
            out.append(L.llama_sampler_init_top_n_sigma(o["top_n_sigma"]))
        elif name == "xtc" and o.get("xtc_prob"):
            out.append(L.llama_sampler_init_xtc(o["xtc_prob"], o.get("xtc_threshold", 0.1), 1, 1))
    if o.get("mirostat_tau", 0) > 0:
        out.append(L.llama_sampler_init_mirostat_v2(1, o["mirostat_tau"], 0.1))
    return out


def by_llama(c):
    import llama_cpp.llama_cpp as L

    o = c["options"]
    if not set(o) <= LLAMA_OWN or "step" in c or 0 < o.get("xtc_prob", 0) < 1:
        return None
    order = o.get("samplers", ",".join(DEFAULT)).split(",")
    if "top_n_sigma" in o and "temp_range" in o and order.index("top_n_sigma") < order.index("temp"):
        return None  # llama.cpp counts what top_n_sigma dropped as candidates of dynamic temperature
    if "top_n_sigma" in o and {"typical", "top_n_sigma"} <= set(order) and order.index("top_n_sigma") < order.index("typical"):
        return None  # llama.cpp's entropy is a NaN when top_n_sigma left probabilities of zero
    data, arr = llama_array(logits_of(c))
    for s in llama_steps(c):
        L.llama_sampler_apply(s, ctypes.byref(arr))
        L.llama_sampler_free(s)
    l = np.array([arr.data[i].logit for i in range(arr.size)], np.float64)
    ids = [arr.data[i].id for i in range(arr.size)]
    e = np.exp(l - l.max())
    return {i: v for i, v in sorted(zip(ids, (e / e.sum()).tolist())) if v > 0}


def check_dry(path):
    """Ref.dry against llama.cpp's, on sequences that repeat themselves, with breakers of several characters."""
    import llama_cpp.llama_cpp as L

    L.llama_backend_init()
    mp = L.llama_model_default_params()
    mp.vocab_only = True
    model = L.llama_model_load_from_file(path.encode(), mp)
    vocab = L.llama_model_get_vocab(model)
    n_vocab = L.llama_vocab_n_tokens(vocab)

    def text_of(t):
        buf = ctypes.create_string_buffer(256)
        ids = (L.llama_token * 1)(t)
        n = L.llama_detokenize(vocab, ids, 1, buf, 256, False, True)
        return buf.raw[: max(n, 0)].decode("utf-8", "replace")

    def encode(s):
        ids = (L.llama_token * 64)()
        raw = s.encode()
        n = L.llama_tokenize(vocab, raw, len(raw), ids, 64, False, False)
        return list(ids[:n])

    gen, n_hit = np.random.default_rng(5), 0
    texts = ["one two. three :: four", 'he said: "no" and "no" again\n', "a*b*c abcabc", "xyz <END> xyz <EN", "the cat the cat the ca"]
    for trial in range(60):
        pool = [encode(texts[i]) for i in gen.integers(0, len(texts), 3)]
        hist = sum((pool[i] for i in gen.integers(0, 3, 12)), [])
        hist = hist[: int(gen.integers(1, len(hist)))]
        br = [["\n", ":", '"', "*"], ["<END>", " again"], ["cat the", "o"], []][trial % 4]
        o = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": int(gen.integers(1, 4)), "dry_breakers": br,
             "dry_last": int(gen.integers(0, 2) * gen.integers(5, 40))}
        c = {"seed": trial, "vocab": n_vocab, "scale": 4.0, "history": hist, "options": o}
        r = Ref.__new__(Ref)
        r.o, r.hist, r.text_of, r.encode = o, hist, text_of, encode
        r.l, r.ids = np.zeros(n_vocab), np.arange(n_vocab)
        r.dry()
        arr = (ctypes.c_char_p * max(1, len(br)))(*[b.encode() for b in br])
        s = L.llama_sampler_init_dry(vocab, 0.8, 1.75, o["dry_allowed_length"], o["dry_last"] or 4096, arr, len(br))
        for t in hist:
            L.llama_sampler_accept(s, t)
        data, a = llama_array(np.zeros(n_vocab))
        L.llama_sampler_apply(s, ctypes.byref(a))
        got = np.zeros(n_vocab)
        for i in range(a.size):
            got[a.data[i].id] = a.data[i].logit
        if not np.allclose(got, r.l, rtol=1e-4, atol=1e-4):
            bad = np.nonzero(~np.isclose(got, r.l, rtol=1e-4, atol=1e-4))[0]
            sys.exit(f"dry: trial {trial} {o} {[text_of(t) for t in hist]}: token {bad[:5]} llama.cpp {got[bad[:5]]} ref {r.l[bad[:5]]}")
        n_hit += bool((r.l != 0).any())
        L.llama_sampler_free(s)
    print(f"dry with breakers: 60 sequences as llama.cpp, {n_hit} with a penalty")


# ---- cases ----

HIST = [3, 7, 7, 1, 20, 3, 7, 9, 30, 3, 7, 7, 1, 20, 3]  # repeats "3 7 7 1 20 3"
LOOP = [5, 6, 8] * 30 + [5, 6]


def cases():
    out, n = [], 0

    def add(vocab=300, scale=5.0, history=HIST, step=None, **o):
        nonlocal n
        n += 1
        o.setdefault("temp", 1.0)
        c = {"seed": 1000 + n, "vocab": vocab, "scale": scale, "history": history, "options": o}
        if step:
            c["step"] = step
        out.append(c)

    for t in (0.3, 0.7, 1.0, 1.6):
        add(vocab=40, temp=t)
    for k in (1, 2, 5, 40, 64, 299, 300, 1000):
        add(top_k=k, vocab=300 if k > 64 else 5000)
    for p in (0.001, 0.1, 0.5, 0.9, 0.95):
        add(top_p=p, vocab=300)
        add(top_p=p, vocab=5000, scale=12.0, temp=0.8)
    for p in (0.01, 0.05, 0.2, 1.0):
        add(min_p=p, vocab=5000, scale=8.0)
    for p in (0.05, 0.2, 0.5, 0.9, 0.99):
        add(typical=p, vocab=300, scale=8.0)
    for s in (0.1, 0.5, 1.0, 2.0, 3.5):
        add(top_n_sigma=s, vocab=300)
        add(top_n_sigma=s, temp=1.7, vocab=300, samplers="temp,top_n_sigma")
    for h in (0.1, 0.4, 0.8):
        add(top_h=h, vocab=5000, scale=9.0)
        add(top_h=h, vocab=60, temp=0.7)
    for e in (1e-4, 3e-3, 0.05, 0.9):
        add(epsilon_cutoff=e, vocab=300)
        add(eta_cutoff=e, vocab=300)
    for q, t in ((1.0, 0.1), (1.0, 0.05), (0.5, 0.1), (1.0, 0.5), (1.0, 0.6), (0.3, 0.02)):
        add(xtc_prob=q, xtc_threshold=t, vocab=60, scale=4.0)
    add(xtc_prob=1.0, xtc_threshold=0.1, vocab=300, samplers="xtc,temp,top_k", top_k=20)
    add(xtc_prob=1.0, xtc_threshold=0.1, vocab=300, samplers="top_k,xtc", top_k=3)
    for r in (1.05, 1.3, 2.0, 0.7):
        add(repeat_penalty=r, vocab=40)
    add(repeat_penalty=1.3, repeat_last=4, vocab=40)
    add(presence_penalty=0.7, vocab=40)
    add(frequency_penalty=0.4, vocab=40)
    add(presence_penalty=-0.7, frequency_penalty=-0.2, vocab=40)
    add(repeat_penalty=1.1, presence_penalty=0.2, frequency_penalty=0.3, repeat_last=9, vocab=60, temp=0.8, top_p=0.9)
    add(repeat_penalty=1.1, presence_penalty=1.5, vocab=300, samplers="temp,penalties,top_k", top_k=20, temp=0.6)
    add(repeat_penalty=1.5, frequency_penalty=0.5, vocab=60, samplers="top_k,penalties,temp,top_p", top_k=30, temp=0.6, top_p=0.95)
    add(repeat_penalty=1.2, vocab=40, history=[])
    for m, b, a, last in ((0.8, 1.75, 2, 0), (0.8, 1.75, 1, 0), (2.0, 1.2, 4, 0), (0.8, 1.75, 2, 8), (0.5, 3.0, 6, 0), (0.5, 3.0, 7, 0)):
        add(dry_multiplier=m, dry_base=b, dry_allowed_length=a, dry_last=last, dry_breakers=[], vocab=40)
    add(dry_multiplier=0.5, dry_base=2.0, dry_breakers=[], history=LOOP, vocab=40)
    add(dry_multiplier=0.8, dry_breakers=[], history=LOOP, vocab=40, samplers="top_k,dry,temp", top_k=20, temp=0.7)
    add(dry_multiplier=0.8, dry_breakers=[], vocab=40, samplers="temp,dry", temp=0.5)
    for r, e in ((0.5, 1.0), (0.9, 1.0), (0.4, 2.0), (1.5, 0.5)):
        add(temp_range=r, temp_exponent=e, vocab=60, temp=1.0)
        add(temp_range=r, temp_exponent=e, vocab=300, temp=1.0, samplers="top_k,top_p,temp", top_k=40, top_p=0.9)
    for tau in (1.0, 2.0, 3.0, 6.0):
        add(mirostat_tau=tau, vocab=300)
        add(mirostat_tau=tau, vocab=60, temp=0.7, top_k=3, repeat_penalty=1.1)
    add(bias=[[3, 4.0], [5, -3.0], [7, -math.inf]], vocab=40)
    add(bias=[[3, 9.0]], vocab=300, top_k=5, temp=0.7)
    add(no_repeat_ngram=1, vocab=40)
    add(no_repeat_ngram=3, vocab=40)
    add(no_repeat_ngram=2, vocab=40, temp=0.5, top_k=10)
    add(bad_words=[[9], [20, 3, 7], [20, 4, 7], [3, 1]], vocab=40)
    add(mask=[1, 5, 9, 17, 39], vocab=40, top_p=0.9)
    add(mask=[7], vocab=40, repeat_penalty=2.0)
    add(mask=list(range(0, 300, 7)), vocab=300, top_n_sigma=1.0, top_k=10)
    # chains as people use them
    add(vocab=5000, scale=9.0, temp=0.7, top_k=20, top_p=0.8, repeat_penalty=1.05)
    add(vocab=5000, scale=9.0, temp=0.6, top_k=20, top_p=0.95, min_p=0.01)
    add(vocab=5000, scale=9.0, temp=1.0, top_k=64, top_p=0.95)
    add(vocab=300, temp=0.8, top_k=40, top_p=0.95, min_p=0.05, typical=0.9, epsilon_cutoff=1e-3, eta_cutoff=2e-3)
    add(vocab=300, temp=1.3, top_k=100, top_p=0.99, typical=0.7, repeat_penalty=1.2, no_repeat_ngram=2)
    llama = "penalties,top_n_sigma,top_k,typical,top_p,min_p,xtc,temp"
    add(vocab=5000, scale=9.0, temp=0.8, top_k=40, top_p=0.95, min_p=0.05, samplers=llama)
    add(vocab=300, temp=1.5, top_n_sigma=1.2, top_k=50, typical=0.8, top_p=0.9, min_p=0.02, xtc_prob=1.0, xtc_threshold=0.08,
        repeat_penalty=1.1, repeat_last=64, samplers=llama)
    gen = np.random.default_rng(11)
    names = llama.split(",")
    for _ in range(24):  # random orders and values
        o = {"temp": float(gen.choice([0.5, 0.9, 1.4])), "top_k": int(gen.choice([10, 60])), "top_p": float(gen.choice([0.7, 0.95])),
             "min_p": float(gen.choice([0.02, 0.1])), "typical": float(gen.choice([0.6, 0.95])),
             "top_n_sigma": float(gen.choice([1.0, 2.0])), "xtc_prob": 1.0, "xtc_threshold": 0.12, "repeat_penalty": 1.2}
        order = list(gen.permutation(names))[: int(gen.integers(3, 9))]
        if "temp" not in order:
            order.append("temp")
        add(vocab=int(gen.choice([50, 300])), samplers=",".join(order), **o)
    # ties: by id
    add(vocab=40, step=2.0, top_k=7)
    add(vocab=300, step=1.0, top_p=0.6)
    add(vocab=40, step=4.0, typical=0.3)
    add(vocab=5000, step=2.0, top_k=9, temp=0.7)
    add(vocab=40, step=100.0, scale=1.0, top_k=3)
    add(vocab=40, step=100.0, scale=1.0, min_p=0.5, top_p=0.31)
    return out


def text_cases(tok):
    """DRY with breakers, on the carried model's tokenizer."""
    out = []
    texts = ["In the house: the old man. In the house: the old", "He said, \"no no no no\" and went. He said, \"no no",
             "one two three\none two three\none two", "* one * two * one * two *", "a b c d e f a b c d e f a b c d"]
    for i, t in enumerate(texts):
        for br in (None, [], [" the old"], ["two three", "c d e"]):
            o = {"temp": 1.0, "dry_multiplier": 1.5, "dry_allowed_length": 1 + i % 3, "samplers": "dry,temp,top_k", "top_k": 40}
            if br is not None:
                o["dry_breakers"] = br
            hist = tok.encode(t, add_special_tokens=False).ids
            # the tokens that could be penalised must be among the likeliest to be seen
            o["bias"] = [[t, 30.0] for t in sorted(set(hist))]
            out.append({"seed": 5000 + len(out), "vocab": tok.get_vocab_size(), "scale": 5.0, "history": hist, "options": o, "tokenizer": True})
    return out


def differ(a, b, tol):
    keys = set(a) | set(b)
    return [(i, a.get(i, 0), b.get(i, 0)) for i in sorted(keys) if abs(a.get(i, 0) - b.get(i, 0)) > tol]


def number(v):
    return float(f"{v:.7g}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--llama-vocab", help="a GGUF vocabulary for the comparison of DRY's breakers")
    args = ap.parse_args()
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(ROOT / "models/ffai-demo-6m/tokenizer.json"))
    all_cases, n_hf, n_llama = cases() + text_cases(tok), 0, 0
    for c in all_cases:
        kw = {}
        if c.get("tokenizer"):
            kw = {"text_of": lambda t: tok.decode([t], skip_special_tokens=False),
                  "encode": lambda s: tok.encode(s, add_special_tokens=False).ids}
        want = reference(c, **kw)
        for name, got in (("transformers", by_transformers(c)), ("llama.cpp", None if kw else by_llama(c))):
            if got is None:
                continue
            n_hf += name == "transformers"
            n_llama += name == "llama.cpp"
            bad = differ(want, got, 2e-6 if name == "transformers" else 2e-5)
            if bad:
                sys.exit(f"{name} differs: {c}\n{len(want)} {len(got)} {bad[:8]}")
        c["ids"] = list(want)
        c["p"] = [number(v) for v in want.values()]
        for b in c["options"].get("bias", []):
            if b[1] == -math.inf:
                b[1] = -1e30  # JSON has no infinity; the test turns it back
    to = ROOT / "tests/data/sampler/cases.json"
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in all_cases) + "\n]\n")
    print(f"{len(all_cases)} cases, {n_hf} as transformers, {n_llama} as llama.cpp: {to.stat().st_size} bytes")
    if args.llama_vocab:
        check_dry(args.llama_vocab)


if __name__ == "__main__":
    main()
