/* The tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json, for checkpoints that are converted. What
 * SentencePiece says with scores is said with merges, in the order that HuggingFace's converter gives them; patterns
 * come from the table of pre-tokenizers. */
#include "base/alloc.h"
#include "text/gguf_pre.h"
#include "text/tok_gguf.h"
#include "text/tok_write.h"

#include <stdlib.h>
#include <string.h>

/* A token as the file has it. */
typedef struct word {
    const char *s;
    uint32_t len;
    uint8_t type;
    float score;
} word;

typedef struct writer {
    const fa_gguf *g;
    word *at; /* [n] */
    size_t n;
    fa_smap by_text;
    char *signs;            /* runs of word signs, for tokens that are runs of spaces */
    const fa_gguf_pre *pre; /* NULL: SentencePiece */
    bool merges;            /* the file has them */
    bool bos, eos;          /* are put around a text */
    bool prefix;
    fa_buf *b;
} writer;

static const char sign[] = FA_WORD_SIGN;
enum { MAX_RUN = 256 };

/* Runs of spaces are runs of word signs. */
static void take_word(writer *w, size_t i, const char *s, size_t len, int type, bool by_signs) {
    bool run = by_signs && type == FA_PIECE_USER_DEFINED && len && len <= MAX_RUN;
    for (size_t k = 0; run && k < len; k++) run = s[k] == ' ';
    w->at[i] = (word){run ? w->signs : s, (uint32_t)(run ? 3 * len : len), (uint8_t)type, 0};
}

static int read_words(writer *w, const fa_gguf_value *tokens, const fa_gguf_value *types, const fa_gguf_value *scores,
                      bool by_signs, fa_error *err) {
    size_t pos = 0, len;
    const char *s;
    w->n = (size_t)tokens->n;
    w->at = FA_NEWN(word, w->n + 1);
    w->signs = FA_NEWN(char, 3 * MAX_RUN + 1);
    bool ok = w->at && w->signs && fa_smap_reserve(&w->by_text, w->n);
    for (size_t i = 0; ok && i < MAX_RUN; i++) memcpy(w->signs + 3 * i, sign, 3);
    for (size_t i = 0; ok && i < w->n && fa_gguf_next_str(tokens, &pos, &s, &len); i++) {
        take_word(w, i, s, len, fa_tgguf_type(types, i), by_signs);
        if (scores) w->at[i].score = (float)fa_gguf_num_at(scores, i);
        ok = fa_smap_put(&w->by_text, w->at[i].s, w->at[i].len, (uint32_t)i) >= 0;
    }
    return ok ? 0 : fa_fail(err, FFAI_ENOMEM, "no memory for a tokenizer of %zu tokens", w->n);
}

/* ---- merges out of scores ---- */

typedef struct merge {
    uint32_t whole, left, right; /* tokens */
    uint32_t order;
    float score;
} merge;

typedef struct merges {
    merge *at;
    size_t n, cap;
} merges;

static bool add_merge(merges *l, merge m) {
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 1 << 16;
        merge *grown = (merge *)fa_realloc(l->at, cap, sizeof *grown);
        if (!grown) return false;
        l->at = grown;
        l->cap = cap;
    }
    m.order = (uint32_t)l->n;
    l->at[l->n++] = m;
    return true;
}

static int by_parts(const void *a, const void *b) {
    const merge *x = (const merge *)a, *y = (const merge *)b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static int by_score(const void *a, const void *b) {
    const merge *x = (const merge *)a, *y = (const merge *)b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* All ways to make token i of two others. */
static bool splits_of(const writer *w, size_t i, merges *l) {
    const word *t = &w->at[i];
    const size_t from = l->n;
    bool ok = true;
    if (t->type != FA_PIECE_NORMAL && t->type != FA_PIECE_USER_DEFINED) return true;
    if (t->len > 1024) return true;
    for (uint32_t k = 1; ok && k < t->len; k++) {
        uint32_t a, b;
        if (((unsigned char)t->s[k] & 0xC0) == 0x80) continue;
        if (!fa_smap_get(&w->by_text, t->s, k, &a) || !fa_smap_get(&w->by_text, t->s + k, t->len - k, &b)) continue;
        /* user-defined ones come first, long before short */
        const float score = t->type == FA_PIECE_USER_DEFINED ? 1e20f * (float)t->len : t->score;
        ok = add_merge(l, (merge){(uint32_t)i, a, b, 0, score});
    }
    if (l->n > from) qsort(l->at + from, l->n - from, sizeof *l->at, by_parts);
    for (size_t k = from; k < l->n; k++) l->at[k].order = (uint32_t)k;
    return ok;
}

static void put_pair(fa_buf *b, bool first, const char *a, size_t n, const char *z, size_t m) {
    fa_buf_puts(b, first ? "\n      [" : ",\n      [");
    fa_buf_json(b, a, n);
    fa_buf_puts(b, ", ");
    fa_buf_json(b, z, m);
    fa_buf_puts(b, "]");
}

static int merges_of_scores(writer *w, fa_error *err) {
    merges l = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < w->n; i++) ok = splits_of(w, i, &l);
    if (ok && l.n) qsort(l.at, l.n, sizeof *l.at, by_score);
    for (size_t i = 0; ok && i < l.n; i++) {
        const word *a = &w->at[l.at[i].left], *z = &w->at[l.at[i].right];
        put_pair(w->b, !i, a->s, a->len, z->s, z->len);
    }
    fa_free(l.at);
    return ok ? 0 : fa_fail(err, FFAI_ENOMEM, "no memory for the merges of a tokenizer");
}

/* "a b", where the first space behind the first character divides. */
static void merges_of_file(writer *w, const fa_gguf_value *list) {
    size_t pos = 0, len;
    const char *s;
    bool first = true;
    while (list && fa_gguf_next_str(list, &pos, &s, &len)) {
        const char *space = len > 1 ? (const char *)memchr(s + 1, ' ', len - 1) : NULL;
        if (!space) continue;
        put_pair(w->b, first, s, (size_t)(space - s), space + 1, len - (size_t)(space + 1 - s));
        first = false;
    }
}

/* ---- the parts of tokenizer.json ---- */

static int64_t id_of(const writer *w, const char *key) {
    const fa_gguf_value *v = fa_gguf_find(w->g, key);
    return v && v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR && v->i >= 0 && v->i < (int64_t)w->n ? v->i : -1;
}

static void put_word(const writer *w, int64_t id) { fa_buf_json(w->b, w->at[id].s, w->at[id].len); }

static void put_added(const writer *w) {
    bool any = false;
    fa_buf_puts(w->b, "  \"added_tokens\": [");
    for (size_t i = 0; i < w->n; i++) {
        const int type = w->at[i].type;
        if (type != FA_PIECE_CONTROL && type != FA_PIECE_UNKNOWN && type != FA_PIECE_USER_DEFINED) continue;
        fa_buf_printf(w->b, "%s\n    {\"id\": %zu, \"content\": ", any ? "," : "", i);
        put_word(w, (int64_t)i);
        fa_buf_printf(w->b,
                      ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                      "\"special\": %s}",
                      type == FA_PIECE_USER_DEFINED ? "false" : "true");
        any = true;
    }
    fa_buf_puts(w->b, "\n  ],\n");
}

static void put_steps(const writer *w) {
    static const char byte_level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                                     "\"use_regex\": false}";
    fa_buf *b = w->b;
    if (!w->pre || w->pre->words == FA_GGUF_SIGNS) {
        fa_buf_printf(b,
                      "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [%s{\"type\": \"Replace\", "
                      "\"pattern\": {\"String\": \" \"}, \"content\": \"%s\"}]},\n  \"pre_tokenizer\": null,\n",
                      w->prefix ? "{\"type\": \"Prepend\", \"prepend\": \"" FA_WORD_SIGN "\"}, " : "", sign);
        fa_buf_printf(b,
                      "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                      "{\"String\": \"%s\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": "
                      "\"Fuse\"}%s]},\n",
                      sign, w->prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : "");
        return;
    }
    fa_buf_printf(b, "  \"normalizer\": %s,\n", w->pre->nfc ? "{\"type\": \"NFC\"}" : "null");
    fa_buf_puts(b, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    for (int i = 0; i < FA_GGUF_PATTERNS && w->pre->pattern[i]; i++) {
        fa_buf_puts(b, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        fa_buf_json(b, w->pre->pattern[i], strlen(w->pre->pattern[i]));
        fa_buf_puts(b, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    }
    fa_buf_printf(b, "%s]},\n  \"decoder\": %s,\n", byte_level, byte_level);
}

static void put_template(const writer *w) {
    const int64_t bos = w->bos ? id_of(w, "tokenizer.ggml.bos_token_id") : -1,
                  eos = w->eos ? id_of(w, "tokenizer.ggml.eos_token_id") : -1;
    const int64_t id[2] = {bos, eos};
    if (bos < 0 && eos < 0) {
        fa_buf_puts(w->b, "  \"post_processor\": null,\n");
        return;
    }
    fa_buf_puts(w->b, "  \"post_processor\": {\"type\": \"TemplateProcessing\"");
    for (int pair = 0; pair < 2; pair++) {
        bool any = false;
        fa_buf_printf(w->b, ", \"%s\": [", pair ? "pair" : "single");
        for (int part = 0; part <= pair; part++) {
            for (int end = 0; end < 2; end++) {
                if (end)
                    fa_buf_printf(w->b, "%s{\"Sequence\": {\"id\": \"%c\", \"type_id\": %d}}", any ? ", " : "",
                                  part ? 'B' : 'A', part),
                        any = true;
                if (id[end] < 0) continue;
                fa_buf_printf(w->b, "%s{\"SpecialToken\": {\"id\": ", any ? ", " : "");
                put_word(w, id[end]);
                fa_buf_printf(w->b, ", \"type_id\": %d}}", part);
                any = true;
            }
        }
        fa_buf_puts(w->b, "]");
    }
    fa_buf_puts(w->b, ", \"special_tokens\": {");
    for (int end = 0, any = 0; end < 2; end++) {
        if (id[end] < 0 || (end && id[1] == id[0])) continue;
        fa_buf_puts(w->b, any++ ? ", " : "");
        put_word(w, id[end]);
        fa_buf_puts(w->b, ": {\"id\": ");
        put_word(w, id[end]);
        fa_buf_printf(w->b, ", \"ids\": [%lld], \"tokens\": [", (long long)id[end]);
        put_word(w, id[end]);
        fa_buf_puts(w->b, "]}");
    }
    fa_buf_puts(w->b, "}},\n");
}

static int put_model(writer *w, const fa_gguf_value *merges_list, fa_error *err) {
    const bool by_signs = !w->pre || w->pre->words == FA_GGUF_SIGNS;
    const int64_t unk = by_signs ? id_of(w, "tokenizer.ggml.unknown_token_id") : -1;
    int rc = 0;
    fa_buf_puts(w->b, "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (unk >= 0)
        put_word(w, unk);
    else
        fa_buf_puts(w->b, "null");
    fa_buf_printf(w->b,
                  ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": %s, "
                  "\"byte_fallback\": %s, \"ignore_merges\": %s,\n    \"vocab\": {",
                  by_signs ? "true" : "false", by_signs ? "true" : "false",
                  w->pre && w->pre->ignore_merges ? "true" : "false");
    for (size_t i = 0, any = 0; i < w->n; i++) {
        uint32_t first;
        if (fa_smap_get(&w->by_text, w->at[i].s, w->at[i].len, &first) && first != i) continue;
        fa_buf_puts(w->b, any++ ? ",\n      " : "\n      ");
        put_word(w, (int64_t)i);
        fa_buf_printf(w->b, ": %zu", i);
    }
    fa_buf_puts(w->b, "\n    },\n    \"merges\": [");
    if (w->merges)
        merges_of_file(w, merges_list);
    else
        rc = merges_of_scores(w, err);
    fa_buf_puts(w->b, "\n    ]\n  }\n}\n");
    return rc;
}

/* ---- tokenizer_config.json ---- */

static void put_config(writer *w, fa_buf *b) {
    static const char *const names[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"},
                                           {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                           {"pad_token", "tokenizer.ggml.padding_token_id"}};
    const fa_gguf_value *chat = fa_gguf_find(w->g, "tokenizer.chat_template");
    w->b = b;
    fa_buf_printf(b,
                  "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"add_bos_token\": %s,\n  "
                  "\"add_eos_token\": %s,\n  \"clean_up_tokenization_spaces\": false",
                  w->bos ? "true" : "false", w->eos ? "true" : "false");
    for (size_t i = 0; i < 4; i++) {
        const int64_t id = id_of(w, names[i][1]);
        if (id < 0) continue;
        fa_buf_printf(b, ",\n  \"%s\": ", names[i][0]);
        put_word(w, id);
    }
    if (chat && chat->type == FA_GGUF_STR) {
        fa_buf_puts(b, ",\n  \"chat_template\": ");
        fa_buf_json(b, (const char *)chat->data, (size_t)chat->n);
    }
    fa_buf_puts(b, "\n}\n");
}

/* ---- the whole ---- */

static bool text_is(const fa_gguf_value *v, const char *s) {
    return v && v->type == FA_GGUF_STR && v->n == strlen(s) && !memcmp(v->data, s, (size_t)v->n);
}

static bool is_list(const fa_gguf_value *v, bool text, uint64_t n) {
    return v && v->type == FA_GGUF_ARR && (v->elem == FA_GGUF_STR) == text && v->elem != FA_GGUF_ARR &&
           (!n || v->n == n);
}

static int write_both(writer *w, fa_buf *json, fa_buf *config, const fa_gguf_value *list, fa_error *err) {
    w->b = json;
    fa_buf_puts(json, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(w);
    put_steps(w);
    put_template(w);
    int rc = put_model(w, list, err);
    if (!rc) put_config(w, config);
    if (!rc && (json->failed || config->failed)) rc = fa_fail(err, FFAI_ENOMEM, "no memory for tokenizer.json");
    return rc;
}

int fa_tok_write_gguf(const fa_gguf *g, fa_buf *json, fa_buf *config, bool *done, fa_error *err) {
    const fa_gguf_value *model = fa_gguf_find(g, "tokenizer.ggml.model"), *pre = fa_gguf_find(g, "tokenizer.ggml.pre"),
                        *tokens = fa_gguf_find(g, "tokenizer.ggml.tokens"),
                        *types = fa_gguf_find(g, "tokenizer.ggml.token_type"),
                        *scores = fa_gguf_find(g, "tokenizer.ggml.scores"),
                        *list = fa_gguf_find(g, "tokenizer.ggml.merges");
    const bool spm = text_is(model, "llama"), gemma4 = text_is(model, "gemma4"), bpe = text_is(model, "gpt2");
    static const fa_gguf_pre signs = {.words = FA_GGUF_SIGNS, .bos = true};
    writer w = {.g = g, .pre = gemma4 ? &signs : NULL};
    *done = false;
    if ((!spm && !gemma4 && !bpe) || !is_list(tokens, true, 0) || tokens->n > 1 << 24) return 0;
    if (bpe)
        w.pre = pre && pre->type == FA_GGUF_STR ? fa_gguf_find_pre((const char *)pre->data, (size_t)pre->n)
                                                : fa_gguf_find_pre("default", 7);
    if ((bpe && (!w.pre || w.pre->words == FA_GGUF_PLAIN)) || (!spm && !is_list(list, true, 0))) return 0;
    if (spm && !is_list(scores, false, tokens->n)) return 0;
    w.merges = !spm;
    w.prefix = spm && fa_tgguf_flag(g, "tokenizer.ggml.add_space_prefix", true);
    w.bos = fa_tgguf_flag(g, "tokenizer.ggml.add_bos_token", spm || (w.pre && w.pre->bos));
    w.eos = fa_tgguf_flag(g, "tokenizer.ggml.add_eos_token", false);
    int rc = read_words(&w, tokens, is_list(types, false, tokens->n) ? types : NULL, spm ? scores : NULL, spm || gemma4,
                        err);
    if (!rc) rc = write_both(&w, json, config, list, err);
    *done = !rc;
    fa_smap_free(&w.by_text);
    fa_free(w.at);
    fa_free(w.signs);
    return rc;
}
