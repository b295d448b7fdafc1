#!/usr/bin/env bash
# The program end to end with the carried model: what it writes where, and that the ways of saying the same give the same. No golden text:
# tokens of the fast path may differ between instruction sets.
set -uo pipefail
model=$(find "$FFAI_SOURCE_DIR/models" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort | head -1)
[ -n "$model" ] || { echo "skipped: no model under models/"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0
fail() { echo "FAIL: $*"; status=1; }
same() { cmp -s "$1" "$2" || fail "$3: $1 and $2 differ"; }
gen() { "$FFAI" generate -m "$model" "$@"; }

# The same text however the prompt comes in; only the text on stdout.
gen -p "The old house" -n 24 --greedy >a 2>a.err || fail "generate"
[ -s a ] || fail "no text"
[ ! -s a.err ] || fail "stderr is not empty: $(cat a.err)"
printf 'The old house' >prompt.txt
gen --prompt-file prompt.txt -n 24 --temp 0 >b
same a b "--prompt-file and --temp 0"
gen -p - --tokens=24 --greedy --raw <prompt.txt >c
same a c "standard input"
{ printf 'The old house'; cat a; } >echoed
gen -p "The old house" -n 24 --greedy --echo >d
same echoed d "--echo"
gen -p "The old house" -n 24 --greedy --threads 1 --stats 2>stats >e
grep -q 'tokens/s' stats || fail "--stats"

# Sampling: a seed repeats, another one differs.
gen -p "The old house" -n 24 --temp 1 --seed 1 >s1
gen -p "The old house" -n 24 --temp 1 --seed 1 >s2
gen -p "The old house" -n 24 --temp 1 --seed 2 >s3
same s1 s2 "--seed"
cmp -s s1 s3 && fail "two seeds gave the same text"
gen -p "The old house" -n 24 --temp 5 --top-k 1 --seed 3 >s4
same a s4 "--top-k 1 against --greedy"
gen -p "The old house" -n 24 --temp 5 --min-p 1 --seed 3 >s5
same a s5 "--min-p 1 against --greedy"

# A stop string ends the text and is not part of it.
word=$(head -c 12 a | tail -c 6)
gen -p "The old house" -n 24 --greedy --stop "never in the text" --stop "$word" >stopped
printf '%s' "$(cat a)" | head -c "$(wc -c <stopped)" | cmp -s - stopped || fail "--stop: not a prefix"
grep -qF -- "$word" stopped && fail "--stop: the stop string was written"

# Stats: JSON on the last line of stderr, with these keys.
gen -p "The old house" -n 7 --greedy --ignore-eos --stats=json --profile 2>err >/dev/null
for key in load_s prompt_tokens prefill_s prefill_tok_s gen_tokens decode_s decode_tok_s ttft_s peak_rss_bytes device_bytes device threads precision; do
    tail -1 err | grep -q "\"$key\": " || fail "--stats=json lacks $key"
done
tail -1 err | grep -q '"gen_tokens": 7,' || fail "gen_tokens: $(tail -1 err)"

# Tokens: there and back, with text that is not ASCII, one by one and as lines.
text='Hello,  world! naïve – 你好 😀'
"$FFAI" tokenize -m "$model" -p "$text" >ids || fail "tokenize"
"$FFAI" tokenize -m "$model" --decode --file ids >back || fail "tokenize --decode"
[ "$(cat back)" = "$text" ] || fail "tokenize: round trip gave $(cat back)"
printf '"Hello"\n"na\\u00efve \\ud83d\\ude00\\n"\n' >lines
# a config of Python's: state-space models have an infinity in it
mkdir wide && cp "$model"/tokenizer* wide/
sed '0,/{/s//{"time_step_limit": [0.0, Infinity], /' "$model/config.json" >wide/config.json
"$FFAI" tokenize -m wide -p "$text" >wide.ids || fail "tokenize beside a config with Infinity"
same ids wide.ids "a config with Infinity"
"$FFAI" tokenize -m "$model" --jsonl lines >lines.ids || fail "tokenize --jsonl"
[ "$(wc -l <lines.ids)" = 2 ] || fail "tokenize --jsonl: $(cat lines.ids)"
"$FFAI" tokenize -m "$model" --decode --jsonl lines.ids >lines.back
printf '"Hello"\n"naïve 😀\\n"\n' | cmp -s - lines.back || fail "tokenize --decode --jsonl: $(cat lines.back)"
printf '"good"\nbad\n' >broken
"$FFAI" tokenize -m "$model" --jsonl broken >/dev/null 2>err && fail "a line that is no JSON string passed"
grep -q 'broken:2: ' err || fail "the line is not named: $(cat err)"
for line in '"\ud800"' '7' '"open' '"a" "b"'; do # a lone surrogate is no text
    printf '"good"\n\n%s\n' "$line" >broken
    "$FFAI" tokenize -m "$model" --jsonl broken >/dev/null 2>err && fail "$line passed as a JSON string"
    { [ "$(wc -l <err)" = 1 ] && grep -q 'broken:3: ' err; } || fail "--jsonl $line: $(cat err)"
done

# Inspect: the ways of feeding give the same logits; files have the right size.
ids=1,5,9,13,17,21,25,29
eval_ids() { "$FFAI" inspect -m "$model" --token-ids $ids "$@" || fail "inspect $*"; }
eval_ids --logits whole.npy
eval_ids --logits again.npy
same whole.npy again.npy "inspect repeats"
head -c 6 whole.npy | grep -q NUMPY || fail "whole.npy is no .npy"
eval_ids --logits chunked.npy --chunk 3
eval_ids --logits decoded.npy --decode-from 2
eval_ids --logits batched.npy --batch 2
for f in chunked decoded batched; do [ "$(wc -c <$f.npy)" = "$(wc -c <whole.npy)" ] || fail "$f.npy has another size"; done
echo "$ids" | tr , '\n' >ids.txt
"$FFAI" inspect -m "$model" --token-ids-file ids.txt --logits file.npy || fail "--token-ids-file"
same whole.npy file.npy "--token-ids-file"
npy() { # TYPE DATA: a .npy of eight values, data as printf writes them
    local head="{'descr': '$1', 'fortran_order': False, 'shape': (8,), }"
    printf '\223NUMPY\001\000%b\000%s\n' "\\x$(printf %x $((${#head} + 1)))" "$head"
    printf '%b' "$2"
}
npy '<i4' "$(for i in ${ids//,/ }; do printf '\\x%02x\\0\\0\\0' "$i"; done)" >ids4.npy
npy '<i8' "$(for i in ${ids//,/ }; do printf '\\x%02x\\0\\0\\0\\0\\0\\0\\0' "$i"; done)" >ids8.npy
npy '<i8' "$(for i in ${ids//,/ }; do printf '\\x%02x\\0\\0\\0\\0\\0\\0\\x40' "$i"; done)" >far.npy
npy '<i4' '\x01\0\0\0' >short.npy
for f in ids4 ids8; do
    "$FFAI" inspect -m "$model" --token-ids-file $f.npy --logits file.npy || fail "--token-ids-file $f.npy"
    same whole.npy file.npy "--token-ids-file $f.npy"
done
eval_ids --layer-trace --taps taps.npz >trace
grep -q 'rms' trace || fail "--layer-trace"
head -c 2 taps.npz | grep -q PK || fail "taps.npz is no zip"
eval_ids >top
[ "$(wc -l <top)" = 5 ] || fail "no top tokens"
"$FFAI" inspect -m "$model" --json --plan --ctx 64 >plan.json
grep -q '"cache_bytes"' plan.json || fail "inspect --json --plan"
"$FFAI" inspect -m "$model" >summary
grep -q '^family' summary || fail "inspect"

# Failures name what is wrong, in one line.
refused() { # PATTERN ARGUMENTS...
    local pattern=$1 rc=0
    shift
    "$FFAI" "$@" >out 2>err || rc=$?
    [ $rc = 1 ] || fail "$*: exit status $rc"
    [ "$(wc -l <err)" = 1 ] || fail "$*: not one line: $(cat err)"
    grep -qE -- "$pattern" err || fail "$*: $(cat err)"
    [ ! -s out ] || fail "$*: wrote to stdout"
}
refused '1000000' inspect -m "$model" --token-ids 1,1000000
refused '-1' inspect -m "$model" --token-ids=-1
refused 'far.npy: .*4611686018427387905' inspect -m "$model" --token-ids-file far.npy
refused 'short.npy: .*4 bytes' inspect -m "$model" --token-ids-file short.npy
refused 'whole.npy: .*int32' inspect -m "$model" --token-ids-file whole.npy
refused 'nowhere' inspect -m "$model" --token-ids 1 --logits /nowhere/x.npy
refused '.' generate -m "$model" -p "The old house in the old town" --ctx 3
refused 'cuda' generate -m "$model" -p x --device cuda:999
refused 'is not cpu, cuda, cuda:N or auto' generate -m "$model" -p x --device tpu
FFAI_CUDA_MODULE=/nowhere/module.so refused '/nowhere/module.so' generate -m "$model" -p x --device cuda
FFAI_CPU=sse9 refused 'sse9' generate -m "$model" -p x
cp -r "$model" other-model
echo '{"model_type": "abacus", "architectures": ["Abacus"]}' >other-model/config.json
refused 'abacus.*llama' generate -m other-model -p x
cp -r "$model" broken-model && truncate -s 1000 broken-model/model.safetensors
refused 'model.safetensors' generate -m broken-model -p x

# Ctrl-C ends cleanly with what was generated so far. (A shell in the background ignores SIGINT, so SIGTERM stands for it.)
"$FFAI" generate -m "$model" -p "The old house" -n 0 --ignore-eos --temp 1 --seed 1 --ctx 100000 --stats=json >long 2>long.err &
pid=$!
for _ in $(seq 100); do [ -s long ] && break; sleep 0.05; done
kill -TERM $pid
sleep 0.002
kill -TERM $pid 2>/dev/null # as `timeout` does: to the process, then to its group
wait $pid
rc=$?
[ $rc = 0 ] || fail "interrupted: exit status $rc"
[ -s long ] || fail "interrupted: no text"
tail -1 long.err | grep -q '"gen_tokens"' || fail "interrupted: no stats"

"$FFAI" bench -m "$model" -p 16 -n 4 -r 2 -b 1,2 --json >bench.json || fail "bench"
[ "$(grep -c '"phase"' bench.json)" = 4 ] || fail "bench --json: $(cat bench.json)"

"$FFAI" bench --device-limits --device cpu --csv >limits.csv || fail "bench --device-limits --csv"
[ "$(grep -cE '^(read_bytes_s,|[0-9])' limits.csv)" = 2 ] || fail "bench --device-limits --csv: $(cat limits.csv)"
"$FFAI" bench -m "$model" --device cpu -p 16 -n 2 -r 1 --csv --device-limits >speed.csv 2>limits || fail "bench --device-limits with a model"
[ "$(head -c 6 speed.csv)" = phase, ] || fail "bench: limits among the speeds: $(cat speed.csv)"
grep -q 'GB/s' limits || fail "bench: no limits: $(cat limits)"
refused 'ctx 20: 32 ' bench -m "$model" -p 8,32 -n 2 --ctx 20
"$FFAI" bench -m "$model" --device cpu -p 8 -n 2 -r 1 --pin on -t 3 -v >/dev/null 2>err || fail "--pin on"
grep -q 'processors: .*; pin o' err || fail "--verbose does not tell where threads run: $(cat err)"

# Random weights: config.json is all that is needed, or written as a checkpoint that is read like any other.
mkdir shape && cp "$model/config.json" shape
for format in affine4g64 mxfp4 nvfp4 mxfp8 fp8 q8_0 iq4_nl; do
    "$FFAI" bench -m shape --synthetic $format -p 8 -n 2 -r 1 --csv >synthetic.csv || fail "bench --synthetic $format"
    [ "$(grep -cE '^(prefill|decode),8,1,' synthetic.csv)" = 2 ] || fail "bench --synthetic $format: $(cat synthetic.csv)"
done
# A model without attention has no keys to count in a profile.
mkdir recurrent && cat >recurrent/config.json <<'JSON'
{"model_type": "mamba2", "vocab_size": 288, "hidden_size": 128, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 64, "state_size": 32,
 "n_groups": 1, "conv_kernel": 4, "expand": 2, "torch_dtype": "bfloat16"}
JSON
"$FFAI" bench -m recurrent --synthetic bf16 --ctx 64 -p 8 -n 2 -r 1 --profile >/dev/null 2>err || fail "bench --profile without attention"
grep -q '^ssd ' err || fail "bench --profile: $(cat err)"
# Bytes, operations and what the limits of the machine would need for them, for every operation.
head -1 err | grep -qE '^operation +calls +seconds +share +GB/s +Gop/s +MB/call +Mop/call +at limit +reached +bound$' ||
    fail "bench --profile: heading $(head -1 err)"
grep -qE '^linear +[0-9]+ +[0-9.]+ +[0-9.]+ % +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ % +(memory|products)$' err ||
    fail "bench --profile: no roofline: $(cat err)"
grep -q '^attend ' err && fail "bench --profile: a row of an operation that did not run: $(cat err)"
"$FFAI" bench -m shape --synthetic affine4g64 --write-synthetic written || fail "--write-synthetic"
"$FFAI" inspect -m written --token-ids 1,2,3 --logits written.npy || fail "a written checkpoint does not run"
"$FFAI" inspect -m written --json >written.json
grep -q '"format": "affine 4-bit g64"' written.json || fail "a written checkpoint has another format"
[ "$(grep -c '"quantization' written/config.json)" = 1 ] || fail "--write-synthetic: $(cat written/config.json)"
for format in mxfp8 nvfp4 fp8; do
    mkdir -p written-$format
    "$FFAI" bench -m shape --synthetic $format --write-synthetic written-$format || fail "--write-synthetic of $format"
    "$FFAI" inspect -m written-$format --token-ids 1,2,3 --json >written.json || fail "a written $format does not run"
done
"$FFAI" bench -m shape --synthetic bf16 --write-synthetic plain || fail "--write-synthetic of bf16"
grep -q '"quantization' plain/config.json && fail "bf16 weights with the quantization of the shape's source"
refused 'affine4g33' bench -m shape --synthetic affine4g33
refused 'q9_9.*bf16' bench -m shape --synthetic q9_9
refused 'shape: .*safetensors' bench -m shape
refused 'q8_0.*safetensors' bench -m shape --synthetic q8_0 --write-synthetic written-too
refused 'synthetic' bench -m "$model" --write-synthetic written-too
refused 'plain: .*already' bench -m shape --synthetic bf16 --write-synthetic plain
[ ! -e written-too ] || fail "--write-synthetic leaves a folder behind when it fails"
refused 'nowhere' bench -m shape --synthetic bf16 --write-synthetic /nowhere/x
exit $status
