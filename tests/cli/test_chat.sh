#!/usr/bin/env bash
# ffai chat, as a person uses it (on a pseudo-terminal) and as a script does (through pipes), and generate --chat, with the carried model.
set -uo pipefail
model=$FFAI_SOURCE_DIR/models/ffai-demo-6m
pty=$FFAI_BUILD_DIR/pty_tool
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export HOME=$work TERM=xterm LC_ALL=C.UTF-8
unset XDG_STATE_HOME NO_COLOR
status=0
fail() { echo "FAIL: $*"; status=1; }
# play NAME STATUS ARGUMENTS...: the script comes on standard input
play() {
    "$pty" "$FFAI" "${@:3}" 2>"$1.log"
    local got=$?
    [ $got = "$2" ] || { fail "$1: status $got, not $2"; cat "$1.log"; }
}
chat() { "$FFAI" chat -m "$model" --seed 1 "$@"; }

# A conversation: answers come, the prompt comes back, history and editing work, /quit leaves with 0.
play talk 0 chat -m "$model" -n 12 --seed 1 <<'S'
expect /help lists the commands
prompt > 
send How do you do?\n
prompt \n> 
send /stats\n
expect from the cache
expect tokens/s
prompt \n> 
send /regen\n
prompt \n> 
send /stat\n
expect did you mean /stats?
prompt > 
send /save talk.json\n
expect 2 messages saved to talk.json
prompt > 
send /reset\n
expect a new conversation
prompt > 
send /load talk.json\n
expect 2 messages loaded
prompt > 
send \e[A\n
expect 2 messages loaded
prompt > 
send /nonsense-xyz\n
expect /help lists them
prompt > 
send /quit\n
end
S
grep -q '"role": "user", "content": "How do you do?"' talk.json || fail "/save: $(cat talk.json)"
[ -s .local/state/ffai/chat_history ] || fail "no history was kept"

# Ctrl-C stops the answer, not the program; at the prompt it empties the line; Ctrl-D leaves.
play interrupt 0 chat -m "$model" --ignore-eos --temp 1 --seed 3 --ctx 4096 <<'S'
prompt > 
send Tell me a long story.\n
expect  the
send \x03
expect stopped
prompt > 
send rubbish\x03
expect Ctrl-D or /quit leaves
prompt > 
send \x04
end
S

# Several lines, umlauts, a system message, a terminal that is resized.
play lines 0 chat -m "$model" -n 4 --seed 1 <<'S'
prompt > 
size 30 60
send /system Schöne Grüße\n
expect system message set
prompt > 
send one\\\n
prompt … 
send two\n
prompt \n> 
send """three\n
prompt … 
send four"""\n
prompt \n> 
send /save lines.json\n
expect messages saved
prompt > 
send \x04
end
S
grep -q '"role": "system", "content": "Schöne Grüße"' lines.json || fail "/system: $(cat lines.json)"
grep -q '"content": "one\\ntwo"' lines.json || fail "backslash: $(cat lines.json)"
grep -q '"content": "three\\nfour"' lines.json || fail "fence: $(cat lines.json)"

# A terminal that cannot move the cursor: a prompt without editing; Ctrl-C empties the line there too.
TERM=dumb play dumb 0 chat -m "$model" -n 4 --seed 1 <<'S'
expect /help lists the commands
expect > 
send one\\\n
expect .. 
send two\n
expect \n> 
send rubbish\x03
expect Ctrl-D or /quit leaves
expect > 
send /save dumb.json\n
expect 2 messages saved
expect > 
send \x04
end
S
grep -q '"content": "one\\ntwo"' dumb.json || fail "TERM=dumb: $(cat dumb.json)"
said=$(printf '/system x\n/save one.json\n' | chat 2>&1) || fail "/save of one message"
[[ $said == *'1 message saved to one.json'* ]] || fail "one message: $said"

# SIGTERM at the prompt ends the program.
play term 0 chat -m "$model" <<'S'
prompt > 
signal 15
end
S

# Through pipes: one message a line, only answers on standard output; the same as generate --chat.
printf 'How do you do?\n/save piped.json\n' | chat -n 12 --greedy >piped 2>err || fail "piped"
"$FFAI" generate -m "$model" --chat -p 'How do you do?' -n 12 --greedy >once || fail "generate --chat"
[ "$(cat piped)" = "$(cat once)" ] || fail "chat and generate --chat differ: $(cat piped) / $(cat once)"
"$FFAI" template -m "$model" --messages piped.json >/dev/null || fail "the saved conversation is no input of ffai template"
printf '/load none.json\n' | chat >/dev/null 2>err && fail "a failing command of a script must fail"
grep -q 'none.json' err || fail "/load: $(cat err)"
# The same conversation in one go and in two processes, greedy.
printf 'How do you do?\nAnd your sister?\n' | chat -n 12 --greedy >both
{ printf '/load piped.json\n'; printf 'And your sister?\n'; } | chat -n 12 --greedy >second 2>err
[ "$(tail -n +2 both)" = "$(cat second)" ] || fail "a loaded conversation goes on differently: $(cat both) / $(cat second)"
# More turns than the context holds.
for i in $(seq 30); do echo "This is message number $i, and it is here to fill the context of the model."; done | chat -n 8 --ctx 128 --greedy >long 2>err || fail "long conversation: $(cat err)"
grep -q 'outgrew' err || fail "nothing was said about the context: $(cat err)"
[ "$(wc -l <long)" -ge 30 ] || fail "answers are missing"

# Raw and chat.
"$FFAI" generate -m "$model" -p 'How do you do?' -n 8 --greedy >raw1
"$FFAI" generate -m "$model" -p 'How do you do?' -n 8 --greedy --raw >raw2
cmp -s raw1 raw2 || fail "the carried model's default is not raw"
"$FFAI" generate -m "$model" -p x --raw --system y 2>err && fail "--raw --system"
grep -q -- '--system' err || fail "--raw --system: $(cat err)"
"$FFAI" generate -m "$model" -p 'x' --template-arg nonsense 2>err && fail "--template-arg"
"$FFAI" generate -m "$model" -p 'x' --chat --template-name other 2>err && fail "--template-name"
grep -q 'other' err || fail "--template-name: $(cat err)"
# A template of one's own: the answer ends where its next question would begin; a broken one names line and column.
printf '{{ bos_token }}{%% for m in messages %%}{{ m.role }}: {{ m.content }}\n{%% endfor %%}assistant:' >plain.jinja
"$FFAI" generate -m "$model" -p 'How do you do?' --template plain.jinja -n 12 --greedy --echo >own || fail "--template"
[[ $(cat own) == '<s>user: How do you do?'$'\n''assistant:'* ]] || fail "--template: $(cat own)"
printf '{%% if %%}' >broken.jinja
"$FFAI" generate -m "$model" -p x --template broken.jinja 2>err && fail "a broken template"
grep -q 'line 1, column' err || fail "a broken template: $(cat err)"
exit $status
