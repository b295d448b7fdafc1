/* Vocabularies of before tokenizer.json: vocab.json with merges.txt, and vocab.txt. What they leave open - how words
 * are cut, which special tokens there are - is what the class of the tokenizer does, as transformers builds it. The
 * files are put together to the tokenizer.json that transformers would write, and that is loaded. */
#include "text/tok_files.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

#define QWEN2_PATTERN                                                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+"        \
    "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define CLIP_PATTERN "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"
#define BYTE_LEVEL(prefix, regex)                                                                                      \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":" prefix ",\"trim_offsets\":true,\"use_regex\":" regex "}"

enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, N_NAMED };
static const char *const named_key[N_NAMED] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                               "pad_token", "cls_token", "mask_token"};

/* A tokenizer class: what it does around its model. % in `pre` is the class's add_prefix_space. */
static const struct class_row {
    const char *classes, *types; /* tokenizer_class without Tokenizer or Fast; model_type; between blanks */
    const char *norm, *pre, *suffix;
    const char *name[N_NAMED]; /* special tokens where the files name none */
    int wrap[2];               /* named tokens in front and behind; -1 none */
    bool add_bos;
} class_rows[] = {
    {"Qwen2",
     "qwen2 qwen3 qwen2_moe qwen3_moe qwen2_vl qwen2_5_vl",
     "{\"type\":\"NFC\"}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" QWEN2_PATTERN
     "\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("%", "false") "]}",
     "",
     {NULL, "<|endoftext|>", "<|endoftext|>", NULL, "<|endoftext|>", NULL, NULL},
     {-1, -1},
     false},
    {"Roberta Bart LED Longformer LayoutLMv3 Mvp Blenderbot",
     "roberta bart led longformer layoutlmv3 mvp blenderbot",
     "null",
     BYTE_LEVEL("%", "true"),
     "",
     {"<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"},
     {CLS, SEP},
     false},
    {"CLIP",
     "clip clip_text_model",
     "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":"
     "{\"Regex\":\"\\\\s+\"},\"content\":\" \"},{\"type\":\"Lowercase\"}]}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" CLIP_PATTERN
     "\"},\"behavior\":\"Removed\",\"invert\":true}," BYTE_LEVEL("false", "true") "]}",
     "</w>",
     {"<|startoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, "<|endoftext|>", NULL, NULL},
     {BOS, EOS},
     false},
    {"Deberta",
     "deberta",
     "null",
     BYTE_LEVEL("%", "true"),
     "",
     {"[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"},
     {CLS, SEP},
     false},
    {"Whisper",
     "whisper",
     "null",
     BYTE_LEVEL("%", "true"),
     "",
     {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, NULL, NULL, NULL},
     {-1, -1},
     false},
    {"",
     "",
     "null",
     BYTE_LEVEL("%", "true"),
     "", /* GPT-2, CodeGen and all that say nothing */
     {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, NULL, NULL, NULL},
     {-1, -1},
     false},
};
static const struct class_row bert_row = {
    "", "", "", "", "", {NULL, NULL, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}, {CLS, SEP}, false};

/* ---- which class ---- */

/* One of the words of `list` is s, which may go on with "Tokenizer" or "TokenizerFast". */
static bool listed(const char *list, const char *s) {
    for (const char *p = list; s && *p;) {
        size_t k = strcspn(p, " ");
        if (k && strncmp(p, s, k) == 0 && (!s[k] || strncmp(s + k, "Tokenizer", 9) == 0)) return true;
        p += k + (p[k] == ' ');
    }
    return false;
}

static const struct class_row *find_class(const fa_tok_about *about) {
    enum { N = sizeof class_rows / sizeof *class_rows };
    const char *name = fa_jstr(fa_jget(about->config, "tokenizer_class"), NULL),
               *type = fa_jstr(fa_jget(about->model, "model_type"), NULL);
    for (size_t i = 0; i < N; i++)
        if (listed(class_rows[i].classes, name)) return &class_rows[i];
    for (size_t i = 0; i < N && !name; i++)
        if (listed(class_rows[i].types, type)) return &class_rows[i];
    return &class_rows[N - 1];
}

/* ---- special and added tokens ---- */

typedef struct writer {
    fa_buf b;
    const fa_tok_about *about;
    const struct class_row *row;
    const char *name[N_NAMED];
    size_t n_name[N_NAMED];
    const fa_jnode *named[N_NAMED]; /* where the files have it, for its options */
    fa_strtab have;                 /* contents of the added tokens, and the vocabulary */
    int64_t next;                   /* id of the next new token */
    bool first;
} writer;

static void read_names(writer *w) {
    for (int i = 0; i < N_NAMED; i++) {
        const fa_jnode *v = fa_jget(w->about->config, named_key[i]);
        bool null = v && fa_jtype_of(v) == FA_JNULL;
        if (!v) v = fa_jget(w->about->special, named_key[i]);
        w->named[i] = fa_jtype_of(v) == FA_JOBJ ? v : NULL;
        w->name[i] = fa_jstr(w->named[i] ? fa_jget(v, "content") : v, &w->n_name[i]);
        if (w->name[i] || null) continue;
        w->name[i] = w->row->name[i];
        w->n_name[i] = w->name[i] ? strlen(w->name[i]) : 0;
    }
}

/* One entry of added_tokens; id < 0: the vocabulary's, or a new one. */
static void put_added(writer *w, const char *s, size_t n, int64_t id, const fa_jnode *options, bool special) {
    static const char *const option[] = {"single_word", "lstrip", "rstrip"};
    int32_t have = fa_strtab_find(&w->have, s, n);
    if (have >= 0)
        id = have;
    else if (id < 0)
        id = w->next;
    if (id >= w->next) w->next = id + 1;
    special = fa_jbool(fa_jget(options, "special"), special);
    fa_buf_printf(&w->b, "%s{\"id\":%lld,\"content\":", w->first ? "" : ",", (long long)id);
    fa_buf_json(&w->b, s, n);
    for (int i = 0; i < 3; i++)
        fa_buf_printf(&w->b, ",\"%s\":%s", option[i], fa_jbool(fa_jget(options, option[i]), false) ? "true" : "false");
    fa_buf_printf(&w->b, ",\"normalized\":%s,\"special\":%s}",
                  fa_jbool(fa_jget(options, "normalized"), !special) ? "true" : "false", special ? "true" : "false");
    w->first = false;
}

static void put_all_added(writer *w) {
    const fa_jnode *decoder = fa_jget(w->about->config, "added_tokens_decoder");
    const fa_jnode *more = fa_jget(w->about->config, "additional_special_tokens");
    size_t n;
    const char *s;
    if (!more) more = fa_jget(w->about->special, "additional_special_tokens");
    w->first = true;
    fa_buf_puts(&w->b, "\"added_tokens\":[");
    for (const fa_jnode *v = fa_jfirst(decoder); v; v = fa_jnext(v)) {
        const char *key = fa_jkey(v, NULL);
        if ((s = fa_jstr(fa_jget(v, "content"), &n))) put_added(w, s, n, key ? strtoll(key, NULL, 10) : -1, v, false);
    }
    for (const fa_jnode *v = fa_jfirst(w->about->added); v; v = fa_jnext(v))
        if ((s = fa_jkey(v, &n))) put_added(w, s, n, fa_jint(v, -1), NULL, false);
    for (int i = 0; i < N_NAMED; i++) {
        bool again = false; /* named twice, or listed in the decoder with options of its own */
        for (int k = 0; k < i && !again; k++) again = w->name[i] && w->name[k] && strcmp(w->name[i], w->name[k]) == 0;
        for (const fa_jnode *v = fa_jfirst(decoder); v && !again; v = fa_jnext(v))
            again = w->name[i] && (s = fa_jstr(fa_jget(v, "content"), NULL)) && strcmp(s, w->name[i]) == 0;
        if (w->name[i] && !again) put_added(w, w->name[i], w->n_name[i], -1, w->named[i], true);
    }
    for (const fa_jnode *v = fa_jfirst(more); v; v = fa_jnext(v)) {
        const fa_jnode *o = fa_jtype_of(v) == FA_JOBJ ? v : NULL;
        if ((s = fa_jstr(o ? fa_jget(v, "content") : v, &n)) && n) put_added(w, s, n, -1, o, true);
    }
    fa_buf_puts(&w->b, "]");
}

/* ---- around a text ---- */

static void put_special(writer *w, int which, const char *before) {
    fa_buf_printf(&w->b, "%s{\"SpecialToken\":{\"id\":", before);
    fa_buf_json(&w->b, w->name[which], w->n_name[which]);
    fa_buf_puts(&w->b, ",\"type_id\":0}}");
}

/* ids of special_tokens may be any: the loader asks the vocabulary. */
static void put_post(writer *w) {
    int front = w->row->wrap[0], back = w->row->wrap[1];
    if (front >= 0 && !w->name[front]) front = -1;
    if (back >= 0 && !w->name[back]) back = -1;
    if (w->row->wrap[0] < 0 && w->name[BOS] && fa_jbool(fa_jget(w->about->config, "add_bos_token"), w->row->add_bos))
        front = BOS;
    if (w->row->wrap[1] < 0 && w->name[EOS] && fa_jbool(fa_jget(w->about->config, "add_eos_token"), false)) back = EOS;
    if (front < 0 && back < 0) return;
    fa_buf_puts(&w->b, ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    if (front >= 0) put_special(w, front, "");
    fa_buf_printf(&w->b, "%s{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}", front >= 0 ? "," : "");
    if (back >= 0) put_special(w, back, ",");
    fa_buf_puts(&w->b, "],\"pair\":[],\"special_tokens\":{");
    for (int i = 0; i < 2; i++) {
        int k = i ? back : front;
        if (k < 0 || (i && front >= 0 && strcmp(w->name[front], w->name[back]) == 0)) continue;
        int32_t id = fa_strtab_find(&w->have, w->name[k], w->n_name[k]);
        fa_buf_puts(&w->b, i && front >= 0 ? "," : "");
        fa_buf_json(&w->b, w->name[k], w->n_name[k]);
        fa_buf_puts(&w->b, ":{\"id\":");
        fa_buf_json(&w->b, w->name[k], w->n_name[k]);
        fa_buf_printf(&w->b, ",\"ids\":[%d],\"tokens\":[", (int)(id < 0 ? 0 : id));
        fa_buf_json(&w->b, w->name[k], w->n_name[k]);
        fa_buf_puts(&w->b, "]}");
    }
    fa_buf_puts(&w->b, "}}");
}

/* ---- models ---- */

static void put_with_prefix(writer *w, const char *pre) {
    bool space = fa_jbool(fa_jget(w->about->config, "add_prefix_space"), false);
    for (const char *p = pre; *p; p++) {
        if (*p == '%')
            fa_buf_puts(&w->b, space ? "true" : "false");
        else
            fa_buf_add(&w->b, p, 1);
    }
}

static size_t next_line(const char **s, const char *end, const char **line) {
    const char *stop = (const char *)memchr(*s, '\n', (size_t)(end - *s));
    *line = *s;
    *s = stop ? stop + 1 : end;
    if (!stop) stop = end;
    if (stop > *line && stop[-1] == '\r') stop--;
    return (size_t)(stop - *line);
}

static void put_merges(writer *w, const char *text, size_t len) {
    const char *s = text, *end = text + len, *line;
    bool first = true;
    fa_buf_puts(&w->b, "\"merges\":[");
    while (s < end) {
        size_t n = next_line(&s, end, &line);
        if (!n || (n >= 8 && memcmp(line, "#version", 8) == 0)) continue;
        if (!first) fa_buf_puts(&w->b, ",");
        fa_buf_json(&w->b, line, n);
        first = false;
    }
    fa_buf_puts(&w->b, "]");
}

static int finish(writer *w, fa_tok **out, const char *what, fa_error *err) {
    int rc = w->b.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", what)
                         : fa_tok_from_json(out, w->b.data, w->b.len, NULL, 0, what, err);
    if (!rc) {
        int32_t *const id[] = {&(*out)->bos, &(*out)->eos, &(*out)->unk, NULL, &(*out)->pad};
        for (int i = 0; i <= PAD; i++)
            if (id[i] && w->name[i]) *id[i] = fa_tok_id(*out, w->name[i], w->n_name[i]);
    }
    fa_buf_free(&w->b);
    fa_strtab_free(&w->have);
    return rc;
}

static int know_vocab(writer *w, const fa_jnode *vocab, const char *what, fa_error *err) {
    bool ok = true;
    if (fa_jtype_of(vocab) != FA_JOBJ || !fa_jlen(vocab))
        return fa_fail(err, FFAI_EFORMAT, "%s/vocab.json: not an object with tokens", what);
    uint64_t limit = (uint64_t)fa_jlen(vocab) * 4 + FA_TOK_ID_SLACK;
    for (const fa_jnode *v = fa_jfirst(vocab); v && ok; v = fa_jnext(v)) {
        size_t n;
        const char *s = fa_jkey(v, &n);
        int64_t id = fa_jint(v, -1);
        if (id < 0 || (uint64_t)id >= limit)
            return fa_fail(err, FFAI_EFORMAT, "%s/vocab.json: token \"%.60s\" has no usable id", what, s);
        ok = fa_strtab_set(&w->have, (uint32_t)id, s, n);
    }
    w->next = (int64_t)fa_jlen(vocab);
    return ok && fa_strtab_index(&w->have, NULL) ? FFAI_OK
                                                 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", what);
}

int fa_tok_from_vocab(fa_tok **out, const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                      const fa_tok_about *about, const char *what, fa_error *err) {
    static const fa_tok_about none = {0};
    writer w = {.about = about ? about : &none};
    fa_json *j = NULL;
    *out = NULL;
    int rc = fa_json_parse(&j, vocab, n_vocab, what, err);
    if (!rc) rc = know_vocab(&w, fa_json_root(j), what, err);
    fa_json_free(j);
    if (rc) {
        fa_strtab_free(&w.have);
        return rc;
    }
    w.row = find_class(w.about);
    read_names(&w);
    fa_buf_puts(&w.b, "{\"version\":\"1.0\",");
    put_all_added(&w);
    fa_buf_printf(&w.b, ",\"normalizer\":%s,\"pre_tokenizer\":", w.row->norm);
    put_with_prefix(&w, w.row->pre);
    put_post(&w);
    fa_buf_puts(&w.b, ",\"decoder\":" BYTE_LEVEL("true", "true") ",\"model\":{\"type\":\"BPE\",");
    if (*w.row->suffix) { /* a letter that no word ends with may be missing: unknown */
        fa_buf_printf(&w.b, "\"end_of_word_suffix\":\"%s\",\"unk_token\":", w.row->suffix);
        fa_buf_json(&w.b, w.name[UNK] ? w.name[UNK] : "", w.name[UNK] ? w.n_name[UNK] : 0);
        fa_buf_puts(&w.b, ",");
    }
    put_merges(&w, merges, n_merges);
    fa_buf_puts(&w.b, ",\"vocab\":");
    fa_buf_add(&w.b, vocab, n_vocab);
    fa_buf_puts(&w.b, "}}");
    return finish(&w, out, what, err);
}

/* ---- vocab.txt ---- */

/* A line is a token, without white space at its end; its number is the id. */
static int read_words(writer *w, const char *text, size_t len, const char *what, fa_error *err) {
    const char *s = text, *end = text + len, *line;
    uint32_t id = 0;
    bool ok = true;
    while (s < end && ok) {
        size_t n = next_line(&s, end, &line);
        while (n && (line[n - 1] == ' ' || (line[n - 1] >= 9 && line[n - 1] <= 13))) n--;
        fa_buf_puts(&w->b, id ? "," : "{");
        fa_buf_json(&w->b, line, n);
        fa_buf_printf(&w->b, ":%u", (unsigned)id);
        ok = !w->b.failed && fa_strtab_set(&w->have, id++, line, n);
    }
    if (!id) return fa_fail(err, FFAI_EFORMAT, "%s: the file has no tokens", what);
    fa_buf_puts(&w->b, "}");
    w->next = (int64_t)id;
    return ok && fa_strtab_index(&w->have, NULL) ? FFAI_OK
                                                 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", what);
}

static const char *yes(bool b) { return b ? "true" : "false"; }

int fa_tok_from_word_list(fa_tok **out, const char *text, size_t len, const fa_tok_about *about, const char *what,
                          fa_error *err) {
    static const fa_tok_about none = {0};
    writer w = {.about = about ? about : &none, .row = &bert_row};
    *out = NULL;
    read_names(&w);
    const fa_jnode *c = w.about->config, *accents = fa_jget(c, "strip_accents");
    fa_buf_puts(&w.b, "{\"version\":\"1.0\",\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"##\","
                      "\"max_input_chars_per_word\":100,\"unk_token\":");
    fa_buf_json(&w.b, w.name[UNK] ? w.name[UNK] : "[UNK]", w.name[UNK] ? w.n_name[UNK] : 5);
    fa_buf_puts(&w.b, ",\"vocab\":");
    int rc = read_words(&w, text, len, what, err);
    if (rc) {
        fa_buf_free(&w.b);
        fa_strtab_free(&w.have);
        return rc;
    }
    fa_buf_printf(&w.b,
                  "},\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":%s,"
                  "\"strip_accents\":%s,\"lowercase\":%s},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},",
                  yes(fa_jbool(fa_jget(c, "tokenize_chinese_chars"), true)),
                  fa_jtype_of(accents) == FA_JBOOL ? yes(fa_jbool(accents, false)) : "null",
                  yes(fa_jbool(fa_jget(c, "do_lower_case"), true)));
    put_all_added(&w);
    put_post(&w);
    fa_buf_puts(&w.b, ",\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}}");
    return finish(&w, out, what, err);
}
