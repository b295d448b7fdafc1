#!/usr/bin/env bash
# Mixture of experts on a GPU: the shape of Qwen3-30B-A3B with 8 layers, decode and prefill, and where their time goes.
#
#     bench/gpu_moe.sh [ffai program] [folder for results] [format ...]        (default: build/ffai, bench, affine4g64 bf16)
#
# Prints what `ffai bench` prints, and writes it to gpu-moe.txt in the folder. Under two minutes on an H100.
set -u
ffai=${1:-build/ffai}
out=${2:-bench}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- affine4g64 bf16
device=${FFAI_BENCH_DEVICE:-cuda:0}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$out"
# shellcheck source=tools/find_cublaslt.sh
. "$(dirname "$0")/../tools/find_cublaslt.sh"
cat > "$dir/config.json" <<JSON
{"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 151936, "hidden_size": 2048,
 "num_hidden_layers": 8, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
 "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "decoder_sparse_step": 1,
 "mlp_only_layers": [], "hidden_act": "silu", "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
 "attention_bias": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
JSON
failed=0
run() {
    printf '\n# ffai bench %s\n' "$*"
    timeout 120 "$ffai" bench -m "$dir" --device "$device" "$@" 2>&1 || failed=1
}
{
    "$ffai" bench --device-limits --device "$device" 2>&1
    for format in "$@"; do
        run --synthetic "$format" --ctx 8192 -p 128 -n 64 -b 1,4,16,64 -r 3
        run --synthetic "$format" --ctx 8192 -p 4096 -n 8 -b 1 -r 3
        run --synthetic "$format" --ctx 8192 -p 128 -n 16 -b 1 -r 1 --profile
        run --synthetic "$format" --ctx 8192 -p 4096 -n 1 -b 1 -r 1 --profile
    done
} > "$out/gpu-moe.txt"
cat "$out/gpu-moe.txt"
exit $failed
