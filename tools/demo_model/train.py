#!/usr/bin/env python3
"""Trains the demo model: a Llama of 6.6 million parameters that loses little in 4 bits.

Owns the model and the training loop; train.sh is the recipe that calls it. The corpus is small (two
million tokens), so the recipe fights overfitting: a few larger teachers are trained with strong
dropout, and the small model learns from their averaged predictions as well as from the text. In the
last part of its training every matrix is rounded to the 4-bit format it will be stored in
(quantization-aware: the passes see the rounded weights, the optimizer keeps the exact ones), so
storing it costs almost nothing.

    train.py DATA OUT NAME --dim 384 ... --teacher           a teacher
    train.py DATA OUT NAME --learn-from A.pt B.pt ...        a student; without teachers, from text only

DATA holds prepare.py's files. OUT gets NAME.json (configuration, held-out losses) and either NAME.pt
(a teacher) or NAME.safetensors (float16, HF Llama names, exact weights for export.py) and NAME.txt
(samples).
"""
import argparse
import dataclasses
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

GROUP = 64  # weights that share a scale and a bias in the stored format
BOS = 0


@dataclasses.dataclass
class Config:
    vocab: int = 4096
    dim: int = 256
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    hidden: int = 640
    context: int = 512
    theta: float = 10000.0
    eps: float = 1e-5
    dropout: float = 0.0


@torch.no_grad()
def round_groups(w):
    """The matrix w rounded to 4-bit affine groups along its rows as mlx stores them: q * scale + bias
    with q in 0..15, float16 scale and bias (export.py packs the same numbers)."""
    g = w.float().reshape(-1, GROUP)
    q, scale, bias = affine(g)
    return (q * scale + bias).reshape(w.shape).to(w.dtype)


def affine(g):
    """mlx's rule for groups g [n, GROUP]: q, scale, bias as float32. The end of the range with the
    larger magnitude is met exactly, and so is zero."""
    lo, hi = g.amin(1, keepdim=True), g.amax(1, keepdim=True)
    low_end = lo.abs() > hi.abs()
    scale = ((hi - lo) / 15).clamp_min(1e-7)
    scale = torch.where(low_end, scale, -scale)
    edge = torch.where(low_end, lo, hi)
    q0 = torch.round(edge / scale)
    scale = torch.where(q0 != 0, edge / q0, scale).half().float()
    bias = torch.where(q0 == 0, torch.zeros_like(edge), edge).half().float()
    q = torch.where(scale != 0, torch.round((g - bias) / scale), torch.zeros_like(g)).clamp(0, 15)
    return q, scale, bias


class Rounding:
    """While entered, the matrices of a model hold their rounded values; the exact ones come back at
    exit. Gradients taken inside are those of the straight-through estimator."""

    def __init__(self, model):
        self.matrices = [p for p in model.parameters() if p.ndim == 2]
        self.on = False

    def __enter__(self):
        if self.on:
            flat = torch.cat([p.data.reshape(-1) for p in self.matrices])
            self.exact = flat
            self.put(round_groups(flat))

    def __exit__(self, *_):
        if self.on:
            self.put(self.exact)

    def put(self, flat):
        at = 0
        for p in self.matrices:
            p.data.copy_(flat[at:at + p.numel()].view_as(p))
            at += p.numel()


def linear(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)
        return (x32 * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return (x * cos + turned * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.hd = c, c.dim // c.heads
        self.q_proj, self.o_proj = linear(c.dim, c.dim), linear(c.dim, c.dim)
        self.k_proj, self.v_proj = linear(c.dim, self.hd * c.kv_heads), linear(c.dim, self.hd * c.kv_heads)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.c.heads, self.hd).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.c.kv_heads, self.hd).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.c.kv_heads, self.hd).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        rep = self.c.heads // self.c.kv_heads
        k, v = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj, self.up_proj = linear(c.dim, c.hidden), linear(c.dim, c.hidden)
        self.down_proj = linear(c.hidden, c.dim)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(c.dim, c.eps), Attention(c)
        self.post_attention_layernorm, self.mlp = RMSNorm(c.dim, c.eps), MLP(c)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x, cos, sin):
        x = x + self.drop(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + self.drop(self.mlp(self.post_attention_layernorm(x)))


class Llama(nn.Module):
    """Llama with tied embeddings; parameter names are those of a HF checkpoint without `model.`."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab, c.dim)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm, self.drop = RMSNorm(c.dim, c.eps), nn.Dropout(c.dropout)
        hd = c.dim // c.heads
        angle = torch.outer(torch.arange(c.context).float(), c.theta ** (-torch.arange(0, hd, 2).float() / hd))
        self.register_buffer("cos", torch.cat((angle, angle), 1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angle, angle), 1).sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * c.layers) if last else 0.02)

    def forward(self, ids):
        x = self.drop(self.embed_tokens(ids))
        t = ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:t], self.sin[:t])
        return F.linear(self.norm(x), self.embed_tokens.weight)


class Data:
    """Token arrays on the device, random training windows and fixed held-out windows."""

    def __init__(self, path, context, device):
        z = np.load(path)
        self.context, self.device = context, device
        self.train = torch.from_numpy(z["train"].astype(np.int64)).to(device)
        starts = torch.from_numpy(z["starts"].astype(np.int64)).to(device)
        self.starts = starts[starts < len(self.train) - context - 1]
        self.val = {k[4:]: torch.from_numpy(z[k].astype(np.int64)).to(device) for k in z.files if k.startswith("val_")}

    def batch(self, rows):
        """Inputs and targets [rows, context]: half the rows begin at a paragraph with <s> put before
        it, so that the model can be started anywhere in a story; the rest begin at any token."""
        n, half = self.context, rows // 2
        at = self.starts[torch.randint(len(self.starts), (half,), device=self.device)] - 1
        any_at = torch.randint(len(self.train) - n - 1, (rows - half,), device=self.device)
        ids = self.train[torch.cat((at, any_at))[:, None] + torch.arange(n + 1, device=self.device)]
        ids[:half, 0] = BOS
        return ids[:, :-1], ids[:, 1:]

    def held_out(self, source, rows=16):
        """Batches [<= rows, context + 1] that cover the held-out text of a source, less its tail."""
        ids, n = self.val[source], self.context
        windows = torch.stack([ids[i:i + n + 1] for i in range(0, len(ids) - n, n)])
        return windows.split(rows)


@torch.no_grad()
def held_out_losses(model, data):
    """Nats a token per source, and `novels`, the mean over both novelists' tokens."""
    was = model.training
    model.eval()
    total, count = {}, {}
    for source in data.val:
        total[source] = count[source] = 0
        for ids in data.held_out(source):
            with torch.autocast(data.device, torch.bfloat16, enabled=data.device == "cuda"):
                logits = model(ids[:, :-1])
            lp = F.log_softmax(logits.float(), -1)
            total[source] += F.nll_loss(lp.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
            count[source] += ids[:, 1:].numel()
    model.train(was)
    out = {s: total[s] / count[s] for s in total}
    novels = ("austen", "melville")
    out["novels"] = sum(total[s] for s in novels) / sum(count[s] for s in novels)
    return {s: round(v, 4) for s, v in out.items()}


class Ensemble(nn.Module):
    """The averaged probabilities of several models, as logits."""

    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, ids):
        total = sum(F.softmax(m(ids).float(), -1) for m in self.models)
        return torch.log(total / len(self.models))


def load_teachers(paths, device):
    models = []
    for path in paths:
        saved = torch.load(path, map_location=device)
        models.append(Llama(Config(**saved["config"])).to(device).eval())
        models[-1].load_state_dict(saved["weights"])
    return models


def optimizer(model, lr, decay):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim != 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": decay}, {"params": norms, "weight_decay": 0.0}],
                             lr=lr, betas=(0.9, 0.95), fused=matrices[0].is_cuda)


def loss_of(logits, want, hint, alpha):
    """alpha weighs the teachers' predictions (cross entropy with hint) against the text; also returns
    the text's part alone."""
    lp = F.log_softmax(logits.float(), -1)
    text = F.nll_loss(lp.flatten(0, 1), want.flatten())
    if hint is None:
        return text, text
    return (1 - alpha) * text - alpha * (hint.exp() * lp).sum(-1).mean(), text


def fit(name, model, data, teachers, a):
    """Trains model for a.steps steps or a.seconds, whichever ends first; the learning rate and the
    beginning of the rounding follow the part of it that is done. Returns the held-out losses seen."""
    on_gpu = data.device == "cuda"
    opt, rounding = optimizer(model, a.lr, a.decay), Rounding(model)
    step_fn = torch.compile(model) if on_gpu else model
    teacher = None
    if teachers:
        teacher = Ensemble([torch.compile(t) if on_gpu else t for t in teachers])
    history, began, step, part, shown = [], None, 0, 0.0, 0
    while part < 1:
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1.0, (step + 1) / a.warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))
        if part >= a.round_from and not a.teacher and not rounding.on:
            history.append(dict(step=step, before_rounding=held_out_losses(model, data)))
            print(name, history[-1], flush=True)
            rounding.on = True
        ids, want = data.batch(a.rows)
        with rounding:
            with torch.autocast(data.device, torch.bfloat16, enabled=on_gpu):
                logits = step_fn(ids)
                with torch.no_grad():
                    hint = teacher(ids) if teacher else None
            loss, text = loss_of(logits, want, hint, a.alpha)
            opt.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        if began is None:
            if on_gpu:
                torch.cuda.synchronize()
            began = time.time()  # compilation is not counted
        part = max(step / a.steps, (time.time() - began) / a.seconds)
        if int(part * 12) > shown or part >= 1:
            shown = int(part * 12)
            with rounding:
                history.append(dict(step=step, seconds=round(time.time() - began, 1), text=round(text.item(), 3),
                                    held_out=held_out_losses(model, data)))
            print(name, history[-1], flush=True)
    return history


@torch.no_grad()
def sample(model, ids, count, temperature, top_p):
    """Continues ids by count tokens; temperature 0 is greedy."""
    ids = ids[None]
    for _ in range(count):
        logits = model(ids[:, -model.c.context:])[0, -1].float()
        if temperature == 0:
            nxt = logits.argmax()[None]
        else:
            p, order = F.softmax(logits / temperature, -1).sort(descending=True)
            p[p.cumsum(0) - p > top_p] = 0
            nxt = order[torch.multinomial(p, 1)]
        ids = torch.cat((ids, nxt[None]), 1)
    return ids[0].tolist()


def write_samples(model, data, tokenizer, path, count):
    prompts = ["It was a fine morning in the month of May, and", "The captain looked at the sea, and", "She had never", ""]
    with open(path, "w", encoding="utf-8") as f:
        for prompt in prompts:
            for t in (0, 0.8):
                ids = torch.tensor(tokenizer.encode(prompt).ids, device=data.device)
                text = tokenizer.decode(sample(model, ids, count, t, 0.95), skip_special_tokens=False)
                print(f"--- temperature {t}\n{text}\n", file=f)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("data", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("name")
    p.add_argument("--teacher", action="store_true", help="keep float weights for students to learn from")
    p.add_argument("--learn-from", nargs="*", default=[], metavar="PT")
    p.add_argument("--alpha", type=float, default=0.9, help="weight of the teachers against the text")
    p.add_argument("--round-from", type=float, default=0.8, help="part of the training after which weights are rounded")
    p.add_argument("--dim", type=int, default=Config.dim)
    p.add_argument("--layers", type=int, default=Config.layers)
    p.add_argument("--heads", type=int, default=Config.heads)
    p.add_argument("--kv-heads", type=int, default=Config.kv_heads)
    p.add_argument("--hidden", type=int, default=Config.hidden)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--seconds", type=float, default=1e9, help="end after so long, compilation not counted")
    p.add_argument("--rows", type=int, default=32)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--warmup", type=int, default=200)
    p.add_argument("--decay", type=float, default=0.1)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--sample", type=int, default=160, help="tokens in each sample")
    return p.parse_args()


def main():
    a = arguments()
    from tokenizers import Tokenizer
    a.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    config = Config(dim=a.dim, layers=a.layers, heads=a.heads, kv_heads=a.kv_heads, hidden=a.hidden, dropout=a.dropout)
    data = Data(a.data / "tokens.npz", config.context, device)
    teachers = load_teachers(a.learn_from, device)
    report = dict(name=a.name, config=dataclasses.asdict(config), arguments={k: str(v) for k, v in vars(a).items()})
    if len(teachers) > 1:
        report["ensemble"] = held_out_losses(Ensemble(teachers), data)
        print(a.name, "ensemble", report["ensemble"], flush=True)
    model = Llama(config).to(device)
    report["history"] = fit(a.name, model, data, teachers, a)
    (a.out / f"{a.name}.json").write_text(json.dumps(report, indent=1))
    weights = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    if a.teacher:
        torch.save(dict(config=dataclasses.asdict(config), weights=weights), a.out / f"{a.name}.pt")
        return
    save_file({f"model.{k}": v.half().cpu() for k, v in weights.items()}, str(a.out / f"{a.name}.safetensors"))
    rounding, model = Rounding(model), model.eval()
    rounding.on = True
    with rounding:
        write_samples(model, data, Tokenizer.from_file(str(a.data / "tokenizer.json")), a.out / f"{a.name}.txt", a.sample)


if __name__ == "__main__":
    main()
