#!/usr/bin/env bash
# Recurrent layers on a GPU: the shapes of Mamba-2-1.3B and of Qwen 3.5 9B, each beside a dense Llama shape of as many bytes. Decode for 1 and
# 16 sequences, prefill of 1k to 32k tokens (time per token should not grow for the former), and where their time goes.
#
#     bench/gpu_scan.sh [ffai program] [folder for results] [format ...]        (default: build/ffai, bench, bf16 affine4g64)
#
# Prints what `ffai bench` prints, and writes it to gpu-scan.txt in the folder. FFAI_BENCH_SHAPES: which shapes, of mamba2 dense1 qwen35 dense9.
set -u
ffai=${1:-build/ffai}
out=${2:-bench}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- bf16 affine4g64
device=${FFAI_BENCH_DEVICE:-cuda:0}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$out" "$dir"/mamba2 "$dir"/dense1 "$dir"/qwen35 "$dir"/dense9
# shellcheck source=tools/find_cublaslt.sh
. "$(dirname "$0")/../tools/find_cublaslt.sh"
cat > "$dir/mamba2/config.json" <<JSON
{"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "vocab_size": 50288, "hidden_size": 2048, "num_hidden_layers": 48,
 "num_heads": 64, "head_dim": 64, "state_size": 128, "n_groups": 1, "conv_kernel": 4, "expand": 2, "use_conv_bias": true, "use_bias": false,
 "hidden_act": "silu", "rms_norm": true, "norm_before_gate": false, "layer_norm_epsilon": 1e-05, "time_step_limit": [0.0, 1e30],
 "chunk_size": 256, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
JSON
# 24 layers of 51.6 million weights against 48 of 25.8
cat > "$dir/dense1/config.json" <<JSON
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 50288, "hidden_size": 2048, "num_hidden_layers": 24,
 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 6720, "hidden_act": "silu",
 "max_position_embeddings": 65536, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "attention_bias": false, "mlp_bias": false,
 "tie_word_embeddings": true, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0}
JSON
cat > "$dir/qwen35/config.json" <<JSON
{"model_type": "qwen3_5_text", "architectures": ["Qwen3_5ForCausalLM"], "vocab_size": 248320, "hidden_size": 4096, "num_hidden_layers": 32,
 "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 12288, "hidden_act": "silu",
 "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
 "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "attn_output_gate": true, "attention_bias": false,
 "max_position_embeddings": 262144, "rms_norm_eps": 1e-06,
 "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
 "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0}
JSON
# 32 layers of 216.5 million weights
cat > "$dir/dense9/config.json" <<JSON
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 248320, "hidden_size": 4096, "num_hidden_layers": 32,
 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 14208, "hidden_act": "silu",
 "max_position_embeddings": 65536, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "attention_bias": false, "mlp_bias": false,
 "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0}
JSON
failed=0
run() {
    shape=$1
    shift
    printf '\n# %s: ffai bench %s\n' "$shape" "$*"
    timeout 180 "$ffai" bench -m "$dir/$shape" --device "$device" "$@" 2>&1 || failed=1
}
{
    "$ffai" bench --device-limits --device "$device" 2>&1
    for shape in ${FFAI_BENCH_SHAPES:-mamba2 dense1 qwen35 dense9}; do
        for format in "$@"; do
            run "$shape" --synthetic "$format" --ctx 1024 -p 128 -n 128 -b 1,16 -r 3
            run "$shape" --synthetic "$format" --ctx 33280 -p 1024,4096,16384,32768 -n 1 -b 1 -r 2
            case $shape in dense*) continue ;; esac
            run "$shape" --synthetic "$format" --ctx 1024 -p 128 -n 16 -b 1 -r 1 --profile
            run "$shape" --synthetic "$format" --ctx 1024 -p 128 -n 16 -b 16 -r 1 --profile
            run "$shape" --synthetic "$format" --ctx 16640 -p 16384 -n 1 -b 1 -r 1 --profile
        done
    done
} > "$out/gpu-scan.txt"
cat "$out/gpu-scan.txt"
exit $failed
