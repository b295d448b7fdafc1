/* The formats: one row each. A new format is one row here, and a body parser where none of body.c and body_xml.c reads
 * its calls (docs/tool-calls.md).
 *
 * Order matters for detection only: the first row whose marks are all in the template is taken, so rows with rarer
 * marks stand first. */
#include "text/answer/answer_int.h"

#include <string.h>

#define MARKS(...)                                                                                                     \
    { __VA_ARGS__ }
#define THINK(open, close)                                                                                             \
    {open, FA_ANS_THINK, NULL}, { close, FA_ANS_THINK_END, NULL }
#define SECTION(open, close)                                                                                           \
    {open, FA_ANS_SECTION, NULL}, { close, FA_ANS_SECTION_END, NULL }
#define CALL(open, spec)                                                                                               \
    { open, FA_ANS_CALL, &(spec) }
#define SECTION_CALL(open, spec)                                                                                       \
    { open, FA_ANS_SECTION_CALL, &(spec) }
#define SECTION_DROP(text)                                                                                             \
    { text, FA_ANS_SECTION_DROP, NULL }
#define INNER(text)                                                                                                    \
    { text, FA_ANS_INNER, NULL }
#define DROP(text)                                                                                                     \
    { text, FA_ANS_DROP, NULL }
#define HEADER(text)                                                                                                   \
    { text, FA_ANS_HEADER, NULL }
#define HEADER_END(text)                                                                                               \
    { text, FA_ANS_HEADER_END, NULL }
#define MESSAGE_END(text)                                                                                              \
    { text, FA_ANS_MESSAGE_END, NULL }

/* ---- calls ---- */

#define SPEC static const fa_ans_spec

/* What stands in <tool_call>: the notation is told by its first character, models mix them up. */
SPEC json_in_xml = {.body = fa_ans_body_json, .close = {"</tool_call>"}, .quote = FA_ANS_JSON};
SPEC function_in_xml = {.body = fa_ans_body_function,
                        .close = {"</tool_call>"},
                        .quote = FA_ANS_TAGGED,
                        .from = "<parameter=",
                        .to = "</parameter>"};
SPEC tool_call = {.body = fa_ans_body_glm,
                  .close = {"</tool_call>"},
                  .quote = FA_ANS_TAGGED,
                  .from = "<arg_value>",
                  .to = "</arg_value>",
                  .json = &json_in_xml,
                  .xml = &function_in_xml};
SPEC function = {.body = fa_ans_body_function,
                 .close = {"</function>"},
                 .quote = FA_ANS_TAGGED,
                 .from = "<parameter=",
                 .to = "</parameter>"};
SPEC named = {.body = fa_ans_body_named, .close = {"</function>"}, .quote = FA_ANS_JSON};
SPEC hy = {.body = fa_ans_body_hy,
           .close = {"</tool_call:opensource>"},
           .quote = FA_ANS_TAGGED,
           .from = "<arg_value:opensource>",
           .to = "</arg_value:opensource>"};
SPEC invoke = {.body = fa_ans_body_invoke,
               .close = {"</invoke>"},
               .quote = FA_ANS_TAGGED,
               .from = "<parameter name=",
               .to = "</parameter>"};
SPEC dsml = {.body = fa_ans_body_dsml,
             .close = {"</｜DSML｜invoke>"},
             .quote = FA_ANS_TAGGED,
             .from = "<｜DSML｜parameter name=",
             .to = "</｜DSML｜parameter>"};
SPEC atem = {.body = fa_ans_body_atem,
             .close = {"</atem:invoke>"},
             .quote = FA_ANS_TAGGED,
             .from = "<atem:parameter name=",
             .to = "</atem:parameter>"};
SPEC param = {.body = fa_ans_body_param,
              .close = {"</function>"},
              .quote = FA_ANS_TAGGED,
              .from = "<param name=",
              .to = "</param>"};
SPEC minimax3 = {.body = fa_ans_body_minimax3, .close = {"]<]minimax[>[</invoke>"}};
SPEC kimi3 = {.body = fa_ans_body_kimi3,
              .close = {"<|close|>call<|sep|>"},
              .quote = FA_ANS_TAGGED,
              .from = "<|open|>argument",
              .to = "<|close|>argument<|sep|>"};
SPEC kimi = {.body = fa_ans_body_kimi,
             .close = {"<|tool_call_end|>"},
             .stop = {"<|tool_calls_section_end|>"},
             .quote = FA_ANS_JSON};
SPEC solar = {.body = fa_ans_body_solar, .close = {"<|tool_call:end|>"}, .quote = FA_ANS_JSON};
SPEC mistral = {.body = fa_ans_body_mistral, .quote = FA_ANS_JSON, .value = true};
SPEC message = {.body = fa_ans_body_to, .quote = FA_ANS_JSON, .close = {"<|call|>", "<|end|>", "<|return|>"}};
SPEC recipient = {.body = fa_ans_body_to, .quote = FA_ANS_JSON, .stop = {">>>"}};
SPEC gemma = {
    .body = fa_ans_body_gemma, .close = {"<tool_call|>"}, .quote = FA_ANS_TAGGED, .from = "<|\"|>", .to = "<|\"|>"};
SPEC gemma_fn = {.body = fa_ans_body_gemma_fn,
                 .close = {"<end_function_call>"},
                 .quote = FA_ANS_TAGGED,
                 .from = "<escape>",
                 .to = "<escape>"};
SPEC tool_calls = {.body = fa_ans_body_json, .close = {"</tool_calls>"}, .quote = FA_ANS_JSON};
SPEC toolcall = {.body = fa_ans_body_json, .close = {"</TOOLCALL>"}, .quote = FA_ANS_JSON};
SPEC apertus = {.body = fa_ans_body_keyed, .close = {"<|tools_suffix|>"}, .quote = FA_ANS_JSON};
SPEC action = {.body = fa_ans_body_json, .close = {"<|END_ACTION|>"}, .quote = FA_ANS_JSON};
SPEC block = {.body = fa_ans_body_action, .close = {"```"}, .quote = FA_ANS_JSON};
SPEC plugin = {.body = fa_ans_body_json, .close = {"<|action_end|>"}, .quote = FA_ANS_JSON};
SPEC value = {.body = fa_ans_body_json, .quote = FA_ANS_JSON, .value = true};
SPEC lfm = {.body = fa_ans_body_python_or_json, .close = {"<|tool_call_end|>"}, .quote = FA_ANS_PY};

SPEC olmo = {.body = fa_ans_body_python, .close = {"</function_calls>"}, .quote = FA_ANS_PY};
SPEC python_end = {.body = fa_ans_body_python_or_json, .close = {"<|python_end|>"}, .quote = FA_ANS_PY};
SPEC code = {.body = fa_ans_body_code, .stop = {"<|eom_id|>", "<|eot_id|>"}, .quote = FA_ANS_PLAIN, .json = &value};

/* The three spellings of DeepSeek's tags. */
#define DEEPSEEK(name, sep)                                                                                            \
    SPEC name = {.body = fa_ans_body_deepseek,                                                                         \
                 .close = {"<｜tool" sep "call" sep "end｜>"},                                                         \
                 .stop = {"<｜tool" sep "calls" sep "end｜>"},                                                         \
                 .quote = FA_ANS_JSON}
DEEPSEEK(deepseek_1, "▁");
DEEPSEEK(deepseek_2, "_");
DEEPSEEK(deepseek_3, " ");
#define DEEPSEEK_TAGS(spec, sep)                                                                                       \
    SECTION("<｜tool" sep "calls" sep "begin｜>", "<｜tool" sep "calls" sep "end｜>"),                                 \
        CALL("<｜tool" sep "call" sep "begin｜>", spec), DROP("<｜tool" sep "sep｜>"),                                 \
        DROP("<｜tool" sep "call" sep "end｜>")

/* ---- calls without a tag ---- */

/* Past the white space behind s[from]; more than a little of it fits nothing. */
static size_t gap(const char *s, size_t n, size_t from) {
    size_t i = fa_ans_space(s, n < FA_ANS_MAX_FIT / 2 ? n : FA_ANS_MAX_FIT / 2, from);
    return i == FA_ANS_MAX_FIT / 2 ? SIZE_MAX : i;
}

/* `{` and the first key of a call. */
static int fits_object(const char *s, size_t n) {
    static const char *const keys[] = {"\"name\"",       "\"type\"",      "\"function\"",
                                       "\"parameters\"", "\"arguments\"", "\"id\""};
    if (s[0] != '{') return 0;
    size_t i = gap(s, n, 1), len;
    for (size_t k = 0; i <= n && k < sizeof keys / sizeof *keys; k++) {
        len = strlen(keys[k]);
        if (memcmp(s + i, keys[k], n - i < len ? n - i : len) == 0) return n - i < len ? -1 : 1;
    }
    return 0;
}

static bool is_name(char c, bool first) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && ((c >= '0' && c <= '9') || c == '.' || c == '-'));
}

/* `[` and name( of a call. */
static int fits_python(const char *s, size_t n) {
    if (s[0] != '[') return 0;
    size_t from = gap(s, n, 1), i = from;
    if (from > n) return 0;
    while (i < n && i < FA_ANS_MAX_FIT && is_name(s[i], i == from)) i++;
    if (i == FA_ANS_MAX_FIT) return 0;
    return i == n ? -1 : i > from && s[i] == '(';
}

static int fits_either(const char *s, size_t n) { return s[0] == '{' ? fits_object(s, n) : fits_python(s, n); }

static int fits_array(const char *s, size_t n) {
    size_t i = gap(s, n, 0);
    return i > n ? 0 : i == n ? -1 : s[i] == '[';
}

SPEC bare_python = {.body = fa_ans_body_python, .quote = FA_ANS_PY, .value = true, .fits = fits_python};
SPEC bare_object = {.body = fa_ans_body_bare, .quote = FA_ANS_JSON, .value = true, .fits = fits_object};
SPEC functools = {.body = fa_ans_body_json, .quote = FA_ANS_JSON, .value = true, .fits = fits_array};

SPEC bare_either = {.body = fa_ans_body_bare_or_python, .quote = FA_ANS_PY, .value = true, .fits = fits_either};

/* ---- headers ---- */

/* The text behind the last `what` in a header, up to a space or a tag, into *to. */
static bool behind(const char *s, size_t n, const char *what, fa_buf *to) {
    size_t len = strlen(what);
    for (size_t i = n < len ? 0 : n - len + 1; i-- > 0;) {
        if (memcmp(s + i, what, len) != 0) continue;
        size_t from = i + len, end = from;
        while (end < n && !fa_ans_is_space(s[end]) && s[end] != '<') end++;
        to->len = 0;
        fa_buf_add(to, s + from, end - from);
        return end > from && !to->failed;
    }
    return false;
}

/* GPT-OSS: "assistant<|channel|>analysis", "assistant to=functions.f<|channel|>commentary json". */
static fa_ans_mode harmony_header(const char *s, size_t n, const char *end, fa_buf *to) {
    (void)end;
    if (behind(s, n, "to=", to) && strcmp(to->data, "assistant") != 0 && strcmp(to->data, "user") != 0)
        return FA_ANS_M_CALL;
    if (behind(s, n, "<|channel|>", to) && strcmp(to->data, "analysis") == 0) return FA_ANS_M_THINK;
    return FA_ANS_M_TEXT;
}

/* Muse: "assistant to=self" is reasoning, "to=user" text; messages to others hold a call in tags of its own. */
static fa_ans_mode muse_header(const char *s, size_t n, const char *end, fa_buf *to) {
    (void)end;
    if (!behind(s, n, "to=", to) || strcmp(to->data, "user") == 0) return FA_ANS_M_TEXT;
    return strcmp(to->data, "self") == 0 ? FA_ANS_M_THINK : FA_ANS_M_SECTION;
}

static fa_ans_mode solar_header(const char *s, size_t n, const char *end, fa_buf *to) {
    (void)s, (void)n, (void)to;
    return strcmp(end, "<|think|>") == 0        ? FA_ANS_M_THINK
           : strcmp(end, "<|tool_calls|>") == 0 ? FA_ANS_M_SECTION
                                                : FA_ANS_M_TEXT;
}

/* Functionary 3.2: ">>>all\n" is text, ">>>name\n" a call. */
static fa_ans_mode recipient_header(const char *s, size_t n, const char *end, fa_buf *to) {
    (void)end;
    if (n >= 3 && memcmp(s, ">>>", 3) == 0) s += 3, n -= 3;
    fa_buf_add(to, s, n);
    if (to->failed || (n == 3 && memcmp(s, "all", 3) == 0)) return FA_ANS_M_TEXT;
    return FA_ANS_M_CALL;
}

/* ---- rows ---- */

static const fa_ans_format formats[] = {
    {.name = "none"},
    {.name = "harmony",
     .marks = MARKS("<|channel|>", "<|message|>", "<|start|>"),
     .tags = {HEADER("<|start|>"), HEADER("<|channel|>"), HEADER_END("<|message|>"), MESSAGE_END("<|end|>"),
              MESSAGE_END("<|return|>"), MESSAGE_END("<|call|>"), DROP("<|constrain|>")},
     .header = harmony_header,
     .message = &message,
     .header_word = "to="},
    {.name = "muse",
     .marks = MARKS("<atem:function_calls>", "<|message|>"),
     .tags = {HEADER("<|start|>"), HEADER_END("<|message|>"), MESSAGE_END("<|eom|>"), MESSAGE_END("<|eot|>"),
              SECTION_DROP("<atem:function_calls>"), SECTION_DROP("</atem:function_calls>"),
              SECTION_CALL("<atem:invoke name=\"", atem)},
     .header = muse_header,
     .header_word = "to="},
    {.name = "solar",
     .marks = MARKS("<|tool_call:begin|>", "<|tool_call:args|>"),
     .tags = {HEADER("<|begin|>"), HEADER_END("<|think|>"), HEADER_END("<|content|>"), HEADER_END("<|tool_calls|>"),
              MESSAGE_END("<|end|>"), MESSAGE_END("<|calls|>"), CALL("<|tool_call:begin|>", solar),
              DROP("<|tool_call:name|>"), DROP("<|tool_call:args|>"), DROP("<|tool_call:end|>")},
     .header = solar_header,
     .header_word = "<"},
    {.name = "functionary_v32",
     .marks = MARKS(">>>all"),
     .tags = {HEADER(">>>"), HEADER_END("\n")},
     .header = recipient_header,
     .message = &recipient},
    {.name = "kimi_k3",
     .marks = MARKS("<|open|>", "<|close|>", "<|end_of_msg|>"),
     .tags = {THINK("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
              {"<|open|>response<|sep|>", FA_ANS_THINK_END, NULL},
              DROP("<|close|>response<|sep|>"),
              SECTION("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
              CALL("<|open|>call tool=\"", kimi3),
              DROP("<|close|>message<|sep|>"),
              DROP("<|end_of_msg|>"),
              DROP("<|open|>"),
              DROP("<|close|>"),
              DROP("<|sep|>")},
     .call_in_think = true},
    {.name = "kimi_k2",
     .marks = MARKS("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
     .tags = {THINK("<think>", "</think>"), SECTION("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
              CALL("<|tool_call_begin|>", kimi), DROP("<|tool_call_argument_begin|>"), DROP("<|tool_call_end|>")},
     .call_in_think = true},
    {.name = "deepseek_dsml",
     .marks = MARKS("DSML", "invoke"),
     .tags = {THINK("<think>", "</think>"), SECTION("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
              SECTION("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"), CALL("<｜DSML｜invoke name=\"", dsml)},
     .call_in_think = true},
    {.name = "deepseek",
     .marks = MARKS("<｜tool▁calls▁begin｜>\n<｜tool_calls_begin｜>\n<｜tool calls begin｜>"),
     .tags = {THINK("<think>", "</think>"), DEEPSEEK_TAGS(deepseek_1, "▁"), DEEPSEEK_TAGS(deepseek_2, "_"),
              DEEPSEEK_TAGS(deepseek_3, " ")},
     .call_in_think = true},
    {.name = "minimax_m3",
     .marks = MARKS("]<]minimax[>["),
     .tags = {THINK("<mm:think>", "</mm:think>"), SECTION("]<]minimax[>[<tool_call>", "]<]minimax[>[</tool_call>"),
              CALL("]<]minimax[>[<invoke name=\"", minimax3)}},
    {.name = "minimax_m2",
     .marks = MARKS("<minimax:tool_call>"),
     .tags = {THINK("<think>", "</think>"), SECTION("<minimax:tool_call>", "</minimax:tool_call>"),
              SECTION_CALL("<invoke name=\"", invoke)}},
    {.name = "hunyuan_hy",
     .marks = MARKS("<tool_sep{}>\n<tool_sep:opensource>"),
     .tags = {THINK("<think:opensource>", "</think:opensource>"),
              SECTION("<tool_calls:opensource>", "</tool_calls:opensource>"), CALL("<tool_call:opensource>", hy)}},
    {.name = "glm",
     .marks = MARKS("<arg_key>"),
     .tags = {THINK("<think>", "</think>"), CALL("<tool_call>", tool_call)}},
    {.name = "seed_oss",
     .marks = MARKS("<seed:think>\n<seed:tool_call>"),
     .tags = {THINK("<seed:think>", "</seed:think>"), SECTION("<seed:tool_call>", "</seed:tool_call>"),
              CALL("<function=", function), DROP("<seed:cot_budget_reflect>"), DROP("</seed:cot_budget_reflect>")}},
    {.name = "qwen3_coder",
     .marks = MARKS("<function=", "<parameter="),
     .tags = {THINK("<think>", "</think>"),
              CALL("<tool_call>", tool_call),
              CALL("<function=", function),
              {"</tool_call>", FA_ANS_SECTION_END, NULL}},
     .call_in_think = true},
    {.name = "functionary_v31",
     .marks = MARKS("<function=", "</function>"),
     .tags = {CALL("<function=", named), CALL("<|python_tag|>", code)}},
    {.name = "minicpm5",
     .marks = MARKS("<function name=", "<param name="),
     .tags = {THINK("<think>", "</think>"), CALL("<function name=\"", param)}},
    {.name = "mistral",
     .marks = MARKS("[TOOL_CALLS]"),
     .tags = {THINK("[THINK]", "[/THINK]"), CALL("[TOOL_CALLS]", mistral), INNER("[CALL_ID]"), INNER("[ARGS]")}},
    {.name = "gemma4",
     .marks = MARKS("<|tool_call>call:\n<|channel>thought"),
     .tags = {THINK("<|channel>thought", "<channel|>"), CALL("<|tool_call>", gemma), DROP("<|channel>"),
              DROP("<|tool_response>"), DROP("<tool_call|>")}},
    {.name = "function_gemma",
     .marks = MARKS("<start_function_call>"),
     .tags = {CALL("<start_function_call>", gemma_fn), DROP("<start_function_response>"), DROP("<end_function_call>")}},
    {.name = "nemotron",
     .marks = MARKS("<TOOLCALL>"),
     .tags = {THINK("<think>", "</think>"), CALL("<TOOLCALL>", toolcall)}},
    {.name = "apertus",
     .marks = MARKS("<|tools_prefix|>"),
     .tags = {THINK("<|inner_prefix|>", "<|inner_suffix|>"), CALL("<|tools_prefix|>", apertus)}},
    {.name = "lfm2",
     .marks = MARKS("List of tools: [\n<|tool_list_start|>"),
     .tags = {THINK("<think>", "</think>"), CALL("<|tool_call_start|>", lfm)}},
    {.name = "command_r7b",
     .marks = MARKS("<|START_ACTION|>"),
     .tags = {THINK("<|START_THINKING|>", "<|END_THINKING|>"), CALL("<|START_ACTION|>", action),
              DROP("<|START_RESPONSE|>"), DROP("<|END_RESPONSE|>"), DROP("<|START_TEXT|>"), DROP("<|END_TEXT|>"),
              DROP("<|END_ACTION|>")}},
    {.name = "command_r",
     .marks = MARKS("Action:", "```json", "tool_name"),
     .tags = {CALL("Action: ```json", block), CALL("Action:\n```json", block)}},
    {.name = "internlm2",
     .marks = MARKS("<|action_start|>"),
     .tags = {CALL("<|action_start|><|plugin|>", plugin), CALL("<|action_start|> <|plugin|>", plugin)}},
    {.name = "olmo3",
     .marks = MARKS("<function_calls>"),
     .tags = {THINK("<think>", "</think>"), CALL("<function_calls>", olmo)}},
    {.name = "phi4_mini",
     .marks = MARKS("<|tool|>", "<|/tool|>"),
     .tags = {CALL("<|tool_call|>", value), DROP("<|/tool_call|>"), CALL("functools", functools)}},
    {.name = "granite",
     .marks = MARKS("<|tool_call|>"),
     .tags = {THINK("<think>", "</think>"), THINK("Here is my thought process:", "Here is my response:"),
              DROP("<response>"), DROP("</response>"), CALL("<|tool_call|>", value), CALL("<tool_call>", value)}},
    {.name = "functools", .marks = MARKS("functools["), .tags = {CALL("functools", functools)}},
    {.name = "gigachat",
     .marks = MARKS("<|message_sep|>", "<|role_sep|>"),
     .tags = {CALL("<|message_sep|>\n\nfunction call<|role_sep|>\n", value), CALL("<|function_call|>", value),
              CALL("function call<|role_sep|>\n", value), DROP("<|message_sep|>"), DROP("<|role_sep|>")}},
    {.name = "apriel",
     .marks = MARKS("<tool_calls>", "[BEGIN FINAL RESPONSE]"),
     .tags = {THINK("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"), DROP("[END FINAL RESPONSE]"),
              THINK("<thinking>", "</thinking>"), CALL("<tool_calls>", tool_calls)}},
    {.name = "tool_calls",
     .marks = MARKS("<tool_calls>"),
     .tags = {THINK("<think>", "</think>"), CALL("<tool_calls>", tool_calls), DROP("<answer>"), DROP("</answer>")}},
    {.name = "hermes",
     .marks = MARKS("<tool_call>\nReasoning Mode: "),
     .tags = {THINK("<think>", "</think>"), CALL("<tool_call>", tool_call)}},
    {.name = "llama4",
     .marks = MARKS("<|header_start|>"),
     .tags = {CALL("<|python_start|>", python_end), DROP("<|python_end|>")},
     .bare = &bare_either},
    {.name = "llama3_json",
     .marks = MARKS("<|start_header_id|>", "\"parameters\": "),
     .tags = {THINK("<think>", "</think>"), CALL("<|python_tag|>", code)},
     .bare = &bare_either},
    {.name = "pythonic", .tags = {THINK("<think>", "</think>")}, .bare = &bare_python},
    {.name = "json", .tags = {THINK("<think>", "</think>")}, .bare = &bare_object},
    {.name = "think", .marks = MARKS("<think>\n</think>"), .tags = {THINK("<think>", "</think>")}},
};

enum { N_FORMATS = sizeof formats / sizeof *formats };

const char *fa_answer_format_at(size_t i) { return i < N_FORMATS ? formats[i].name : NULL; }

const fa_ans_format *fa_ans_find(const char *name) {
    for (size_t i = 0; name && i < N_FORMATS; i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

/* One of the spellings in `mark`, which newlines part, is in the source. */
static bool has_mark(const char *source, const char *mark) {
    char one[64];
    while (*mark) {
        size_t n = strcspn(mark, "\n");
        if (n < sizeof one) {
            memcpy(one, mark, n);
            one[n] = 0;
            if (strstr(source, one)) return true;
        }
        mark += n + (mark[n] == '\n');
    }
    return false;
}

const char *fa_answer_detect(const char *source) {
    for (size_t i = 1; source && i < N_FORMATS; i++) {
        bool all = formats[i].marks[0] != NULL;
        for (int k = 0; all && k < FA_ANS_MAX_MARK && formats[i].marks[k]; k++)
            all = has_mark(source, formats[i].marks[k]);
        if (all) return formats[i].name;
    }
    return "none";
}
