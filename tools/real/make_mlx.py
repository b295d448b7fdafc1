#!/usr/bin/env python3
"""make_mlx.py GGUF OUT_DIR BITS: the weights of a Gemma 3 GGUF file, dequantized and quantized again in mlx layout (affine, group 64,
bfloat16 scales), as mlx-lm converts a bfloat16 checkpoint. Needs numpy, gguf and mlx (the CPU build does)."""
import json, os, sys

import mlx.core as mx

from gemma_gguf import load


def main():
    path, out, bits = sys.argv[1], sys.argv[2], int(sys.argv[3])
    mx.set_default_device(mx.cpu)
    config, state = load(path)
    tensors = {}
    for name, w in state.items():
        a = mx.array(w).astype(mx.bfloat16)
        if a.ndim == 1:
            tensors[name] = a
            continue
        stem = name[: -len(".weight")]
        tensors[name], tensors[stem + ".scales"], tensors[stem + ".biases"] = mx.quantize(a, group_size=64, bits=bits)
    os.makedirs(out, exist_ok=True)
    mx.save_safetensors(os.path.join(out, "model.safetensors"), dict(sorted(tensors.items())), {"format": "mlx"})
    config["quantization"] = config["quantization_config"] = {"group_size": 64, "bits": bits}
    config["torch_dtype"] = "bfloat16"
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)


if __name__ == "__main__":
    main()
