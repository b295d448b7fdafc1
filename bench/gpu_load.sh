#!/usr/bin/env bash
# From file to first token on a GPU: a checkpoint of the 8B shape in bf16 (16 GB of random weights) is written once, then loaded five times from the
# page cache. Prints for each start the wall time of the whole process and the program's own times.
#
#     bench/gpu_load.sh [ffai program] [folder for the checkpoint]      (default: build/ffai, /tmp/ffai-load)
set -eu
ffai=${1:-build/ffai}
dir=${2:-/tmp/ffai-load}
device=${FFAI_BENCH_DEVICE:-cuda:0}
top=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -e "$dir/model/config.json" ]; then
    mkdir -p "$dir/shape"
    cat > "$dir/shape/config.json" <<'JSON'
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
 "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": false,
 "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu", "torch_dtype": "bfloat16",
 "bos_token_id": 1, "eos_token_id": 2}
JSON
    from=$(date +%s%N)
    "$ffai" bench -m "$dir/shape" --synthetic bf16 --write-synthetic "$dir/model"
    echo "written in $((($(date +%s%N) - from) / 1000000)) ms"
    cp "$top"/models/ffai-demo-6m/tokenizer.json "$dir/model/"
fi
cat "$dir"/model/*.safetensors > /dev/null # into the page cache
for _ in 1 2 3 4 5; do
    from=$(date +%s%N)
    "$ffai" generate -m "$dir/model" --raw -p "The capital of France is" -n 1 --greedy --ignore-eos --device "$device" --stats=json > /dev/null 2> "$dir/log" || { cat "$dir/log"; exit 1; }
    echo "wall $((($(date +%s%N) - from) / 1000000)) ms  $(tail -n 1 "$dir/log")"
done
