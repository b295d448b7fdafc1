#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/torch: small files of torch.save, each in another of the ways in which checkpoints are saved. Tensor i of a file holds
i, i + 1, i + 2, ... in row order (cut to the type); tests/io/test_torch.c knows this, and tests/fuzz/fuzz_torch.c begins with them. Needs torch."""
import os
from collections import OrderedDict

import torch

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fuzz", "corpus", "torch")


def count(i, *shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    return (torch.arange(n) + i).to(dtype).reshape(shape)


def put(name, obj, **kw):
    torch.save(obj, os.path.join(ROOT, name), **kw)


if __name__ == "__main__":
    os.makedirs(ROOT, exist_ok=True)
    two = lambda: OrderedDict(a=count(0, 2, 3), b=count(1, 4, dtype=torch.float16))
    module = torch.nn.Linear(2, 3)
    module.load_state_dict({"weight": count(0, 3, 2), "bias": count(1, 3)})
    types = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16,
             torch.uint32, torch.float8_e4m3fn, torch.float8_e5m2]
    whole, tied = count(0, 2, 3), count(0, 3)
    put("plain", two())
    put("module", module.state_dict())  # with _metadata
    put("parameters", {k: torch.nn.Parameter(v) for k, v in two().items()})
    put("protocol4", two(), pickle_protocol=4)
    put("before_1_6", two(), _use_new_zipfile_serialization=False)
    put("types", {f"t{i}": count(i, 3, dtype=t) for i, t in enumerate(types)})
    put("transposed", {"a": count(0, 2, 3).t().contiguous().t(), "b": count(1, 2, 2, 2).permute(2, 0, 1).contiguous().permute(1, 2, 0)})
    put("views", {"a": whole[0], "b": count(0, 9)[1:5], "c": torch.tensor(2.0), "d": torch.zeros(0, 4)})
    put("tied", {"a": tied, "extra": 3, "name": "x", "nothing": None, "c": tied})
    put("before_1_6_views", {"a": whole[0], "b": count(0, 9)[1:5]}, _use_new_zipfile_serialization=False)
    put("list", [count(0, 2)])  # no dict: refused
    put("nested", {"model": two()})  # refused
    put("storage", two()["a"])  # refused
