#!/usr/bin/env bash
# All figures of bench/SPEED.md that need a GPU, in one run of about six minutes on an H100 or H200.
#
#     bench/gpu.sh [ffai program] [folder for results]         (default: build/ffai, bench)
#
# Writes into the folder: gpu-machine.txt (device, driver, limits), gpu-limits.json and gpu.csv: one line per shape, weight format, phase,
# length and batch, as `ffai bench --csv` prints them; the format "bf16:q8" is bf16 with an 8-bit cache. The models are shapes only:
# config.json with random weights made in device memory. Failed parts are named at the end and make the exit status 1; the rest still runs.
set -u
ffai=${1:-build/ffai}
out=${2:-bench}
device=${FFAI_BENCH_DEVICE:-cuda:0}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$out"
# shellcheck source=tools/find_cublaslt.sh
. "$(dirname "$0")/../tools/find_cublaslt.sh"
csv=$out/gpu.csv
failed=()

# name, vocab, dim, layers, heads, kv heads, head dim, mlp, rest of config.json
shape() {
    mkdir -p "$dir/$1"
    cat > "$dir/$1/config.json" <<JSON
{"vocab_size": $2, "hidden_size": $3, "num_hidden_layers": $4, "num_attention_heads": $5, "num_key_value_heads": $6, "head_dim": $7,
 "intermediate_size": $8, "hidden_act": "silu", "max_position_embeddings": 131072, "bos_token_id": 1, "eos_token_id": 2,
 "attention_bias": false, "rms_norm_eps": 1e-05, "torch_dtype": "bfloat16", $9}
JSON
}
llama='"model_type": "llama", "architectures": ["LlamaForCausalLM"], "mlp_bias": false, "rope_theta": 500000.0,
 "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}'
qwen='"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rope_theta": 1000000, "rope_scaling": null'
shape llama-8b 128256 4096 32 32 8 128 14336 "$llama, \"tie_word_embeddings\": false"
shape llama-1b 128256 2048 16 32 8 64 8192 "$llama, \"tie_word_embeddings\": true"
shape qwen3-0.6b 151936 1024 28 16 8 128 3072 "$qwen, \"tie_word_embeddings\": true"

# shape, format[:cache], then options of ffai bench: its lines with the shape and the format in front
measure() {
    local name=$1 format=$2 cache=f16 from
    shift 2
    case $format in *:*) cache=${format#*:} ;; esac
    from=$(date +%s.%N)
    if timeout 120 "$ffai" bench -m "$dir/$name" --synthetic "${format%:*}" --kv-cache "$cache" --device "$device" --csv "$@" > "$dir/csv" 2> "$dir/log"; then
        [ -s "$csv" ] || sed -n "1s/^/model,format,/p" "$dir/csv" > "$csv"
        sed "1d;s/^/$name,$format,/" "$dir/csv" | tee -a "$csv"
    else
        failed+=("$name $format $*: $(tail -n 1 "$dir/log")")
    fi
    printf '# %s %s %s: %.1f s\n' "$name" "$format" "$*" "$(echo "$(date +%s.%N) - $from" | bc 2>/dev/null || echo 0)" >&2
}

: > "$csv"
{
    date -u +%F
    nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.max.sm,clocks.max.mem,power.limit --format=csv 2>&1
    "$ffai" --version
    "$ffai" devices
    "$ffai" bench --device-limits --device "$device"
} > "$out/gpu-machine.txt" 2>&1 || failed+=("device limits: $(tail -n 1 "$out/gpu-machine.txt")")
"$ffai" bench --device-limits --device "$device" --json > "$out/gpu-limits.json" || failed+=("device limits as JSON")
cat "$out/gpu-machine.txt"

# What must be reached comes first: decode at 128 and 32768, prefill of 2048.
measure llama-8b bf16 -p 128 -n 64 -b 1,2,4,8,16 -r 3
measure llama-8b affine4g64 -p 128 -n 64 -b 1,2,4,8,16 -r 3
measure llama-1b bf16 -p 128 -n 128 -b 1,2,4,8,16 -r 3
measure llama-8b bf16 -p 512,2048,8192 -n 8 -b 1 -r 3
measure llama-8b bf16 -p 32768 -n 32 -b 1 -r 2
measure llama-8b affine4g64 -p 512,2048,8192 -n 8 -b 1 -r 3
measure llama-8b affine4g64 -p 32768 -n 32 -b 1 -r 2
for format in affine8g64 mxfp4 q4_0 q8_0; do
    measure llama-8b $format -p 128 -n 64 -b 1,4,16 -r 3
    measure llama-8b $format -p 2048 -n 8 -b 1 -r 2
done
for format in affine4g64 q4_0; do measure llama-1b $format -p 128 -n 128 -b 1,16 -r 3; done
measure llama-1b bf16 -p 512,2048,8192,32768 -n 32 -b 1 -r 3
for format in bf16 affine4g64; do measure qwen3-0.6b $format -p 128,2048 -n 64 -b 1,16 -r 3; done
measure llama-1b bf16 -p 128 -n 64 -b 32,64 -r 3
# The other formats, and caches of 16 and 8 bits.
for format in affine2g64 affine3g64 affine5g64 affine6g64 fp8 nvfp4 q4_k q5_k q6_k; do
    measure llama-8b $format -p 128 -n 64 -b 1,16 -r 2
    measure llama-8b $format -p 2048 -n 8 -b 1 -r 2
done
measure llama-8b bf16:q8 -p 32768 -n 32 -b 1 -r 2
for cache in f16 q8; do measure llama-8b affine4g64:$cache -p 16384 -n 32 -b 1,16 -r 2; done
# Where the time of a decode step goes, and of a prefill.
for p in 128 2048; do
    timeout 60 "$ffai" bench -m "$dir/llama-8b" --synthetic bf16 --device "$device" -p $p -n 16 -b 1 -r 1 --profile > "$out/gpu-profile-$p.txt" 2>&1 ||
        failed+=("profile at $p: $(tail -n 1 "$out/gpu-profile-$p.txt")")
done

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
