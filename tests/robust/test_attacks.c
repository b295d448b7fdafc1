/* Inputs that were made to harm, of kinds that broke other engines: checkpoints that lie, tokenizers and texts that
 * explode, templates, grammars and sampling options. Whatever comes, there is a result or one line of an error, soon
 * and within little memory. What a parser's own tests try already is not repeated here (docs/security.md has the list).
 */
#define _XOPEN_SOURCE 700
#include "robust/broken.h"

#include <math.h>
#include <time.h>

#include "base/clock.h"
#include "families/gen.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static ffai_error err;

/* Seconds of the processor, so that others may use it too. */
static double cpu_now(void) { return (double)clock() / CLOCKS_PER_SEC; }

static char *times(const char *piece, size_t n) {
    const size_t len = strlen(piece);
    char *s = (char *)malloc(n * len + 1);
    assert_non_null(s);
    for (size_t i = 0; i < n; i++) memcpy(s + i * len, piece, len);
    s[n * len] = 0;
    return s;
}

/* ---- checkpoints ---- */

typedef struct fixture {
    char dir[256], model[512], base[512]; /* base: as it was made */
} fixture;

static void fixture_open(fixture *f, const char *name) {
    fx x;
    char base[256];
    make_dir(base);
    make_dir(f->dir);
    assert_ok(fx_open(&x, FFAI_SOURCE_DIR "/tests/data/families", name, &err), &err);
    assert_ok(fx_write(&x, base, f->base, &err), &err);
    assert_ok(fx_write(&x, f->dir, f->model, &err), &err);
    fx_close(&x);
    assert_ok(open_and_run(f->model, &err), &err);
}

static void fixture_close(fixture *f) {
    remove_dir(f->dir);
    remove_dir(f->base);
}

typedef struct config_case {
    const char *fixture, *key, *value, *words; /* words NULL: it runs */
} config_case;

static void configs(void **state) {
    (void)state;
    static const config_case cases[] = {
        {"mixtral_plain", "num_experts_per_tok", "7", "num_experts_per_tok|7"},
        {"mixtral_plain", "num_experts_per_tok", "0", "num_experts_per_tok"},
        {"mixtral_plain", "num_experts_per_tok", "-1", "num_experts_per_tok"},
        {"mixtral_plain", "num_experts_per_tok", "1000000000000", "num_experts_per_tok"},
        {"mixtral_plain", "num_local_experts", "0", "missing|mlp.gate_proj"},
        {"mixtral_plain", "num_local_experts", "5", "model.layers.0.block_sparse_moe"},
        {"mixtral_plain", "num_local_experts", "1000000000", "num_local_experts"},
        {"mistral_swa", "sliding_window", "0", NULL} /* no window */,
        {"mistral_swa", "sliding_window", "-5", "sliding_window"},
        {"mistral_swa", "sliding_window", "1000000000000000000", "sliding_window|2147483647"},
        {"mistral_swa", "sliding_window", "\"8\"", "sliding_window"},
        {"mistral_swa", "rms_norm_eps", "NaN", "config.json"},
        {"mistral_swa", "rms_norm_eps", "-1", "rms_norm_eps"},
        {"mistral_swa", "rope_theta", "Infinity", "config.json"},
        {"mistral_swa", "eos_token_id", "[]", NULL},
        {"mistral_swa", "bos_token_id", "99999999999", NULL},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 0, \"group_size\": 64}", "bits|0"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 1, \"group_size\": 64}", "bits|1"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 255, \"group_size\": 64}", "bits|255"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": -4, \"group_size\": 64}", "bits|-4"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 4.5, \"group_size\": 64}", "bits"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 4, \"group_size\": -64}", "group_size|-64"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 4, \"group_size\": 0}", "group_size|0"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 4, \"group_size\": 48}", "group_size|48"},
        {"mlx_qwen3_b4_g64", "quantization", "{\"bits\": 4, \"group_size\": 9223372036854775807}", "group_size"},
        {"mlx_qwen3_b4_g64", "quantization",
         "{\"bits\": 4, \"group_size\": 64, \"model.layers.77.mlp.up_proj\": {\"bits\": 8, \"group_size\": 64}}", NULL},
        {"mlx_qwen3_b4_g64", "quantization", "[4, 64]", "quantization"},
        {"mlx_qwen3_b4_g64", "hidden_size", "130", "embed_tokens|130"},
        {"mlx_qwen3_b4_g64", "tie_word_embeddings", "true", NULL},
        {"mlx_qwen3_b4_g64", "head_dim", "0", "head_dim"},
        {"mlx_qwen3_b4_g64", "num_attention_heads", "0", "num_attention_heads"},
    };
    fixture f = {{0}, {0}, {0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const config_case *c = &cases[i];
        char what[300];
        if (!i || strcmp(c->fixture, cases[i - 1].fixture)) fixture_open(&f, c->fixture);
        put_json(f.model, f.base, "config.json", c->key, c->value);
        snprintf(what, sizeof what, "%s: \"%s\": %.200s", c->fixture, c->key, c->value);
        if (c->words)
            assert_refused(f.model, c->words, what);
        else if (open_and_run(f.model, &err))
            fail_msg("%s: %s", what, err.msg);
        if (i + 1 == sizeof cases / sizeof *cases || strcmp(c->fixture, cases[i + 1].fixture)) fixture_close(&f);
    }
}

/* An index that names very many shards, names that differ in case only, and shards that are links to odd things. */
static void indexes(void **state) {
    (void)state;
    char dir[256], path[512], other[512];
    demo_copy(dir);
    drop_file(dir, "model.safetensors");
    fa_buf b = {0};
    fa_buf_puts(&b, "{\"weight_map\": {");
    for (int i = 0; i < 100000; i++) fa_buf_printf(&b, "%s\"t%d\": \"s%d.safetensors\"", i ? "," : "", i, i);
    fa_buf_puts(&b, "}}");
    assert_false(b.failed);
    put_file(dir, "model.safetensors.index.json", b.data, b.len);
    fa_buf_free(&b);
    double t = cpu_now();
    assert_refused(dir, "index.json", "100000 shards");
    assert_true(cpu_now() - t < 10);
    copy_file(dir, DEMO, "model.safetensors");
    path_in(path, dir, "model.safetensors");
    path_in(other, dir, "weights.safetensors");
    assert_int_equal(rename(path, other), 0);
    put_text(dir, "model.safetensors.index.json", "{\"weight_map\": {\"model.norm.weight\": \"Weights.safetensors\"}}");
    assert_refused(dir, "Weights.safetensors", "a name in other case");
    drop_file(dir, "model.safetensors.index.json");
    assert_int_equal(unlink(other), 0);
    path_in(path, dir, "model.safetensors");
    static const char *const devices[] = {"/dev/zero", "/dev/stdin", "/proc/self/mem"};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        assert_int_equal(symlink(devices[i], path), 0);
        assert_refused(dir, "model.safetensors", devices[i]);
        assert_int_equal(unlink(path), 0);
    }
    remove_dir(dir);
}

/* Tensors without end: a header of many megabytes for a file of nothing. */
static void many_tensors(void **state) {
    (void)state;
    const int n = SANITIZED ? 100000 : 1000000;
    char dir[256];
    fa_buf h = {0}, b = {0};
    demo_copy(dir);
    for (int i = 0; i < n; i++)
        fa_buf_printf(&h, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "{", i);
    fa_buf_puts(&h, "}");
    put_le(&b, h.len, 8);
    fa_buf_add(&b, h.data, h.len);
    assert_false(h.failed || b.failed);
    put_file(dir, "model.safetensors", b.data, b.len);
    fa_buf_free(&h);
    fa_buf_free(&b);
    double t = cpu_now();
    assert_refused(dir, "missing", "tensors without end");
    print_message("%d tensors: %.1f s\n", n, cpu_now() - t);
    assert_true(cpu_now() - t < 30);
    remove_dir(dir);
}

/* A config that promises 180 million tensors over a checkpoint that has none of them. */
static void many_experts(void **state) {
    (void)state;
    char dir[256];
    demo_copy(dir);
    put_text(dir, "config.json",
             "{\"architectures\": [\"Qwen3NextForCausalLM\"], \"model_type\": \"qwen3_next\", \"num_experts\": 60000, "
             "\"num_hidden_layers\": 1000}");
    double t = cpu_now();
    assert_refused(dir, "missing|model.layers.0.linear_attn.in_proj_qkv.weight", "experts without end");
    t = cpu_now() - t;
    print_message("60,000 experts in 1,000 layers: %.1f s\n", t);
    assert_true(t < (SANITIZED ? 30 : 5));
    remove_dir(dir);
}

/* ---- tokenizers and texts ---- */

static ffai_model *tokenizer(const char *dir, const char *json) {
    ffai_model *m = NULL;
    ffai_model_opts o = {.tokenizer_only = true};
    put_text(dir, "tokenizer.json", json);
    if (ffai_model_open(&m, dir, &o, &err)) assert_true(err.msg[0] && !strchr(err.msg, '\n'));
    return m;
}

/* Number of ids, or -1 for an error; within `seconds`. */
static long encode(ffai_model *m, const char *text, size_t n, double seconds) {
    int32_t *ids = NULL;
    size_t k = 0;
    double t = cpu_now();
    int rc = ffai_tokenize(m, text, n, 0, &ids, &k, &err);
    t = cpu_now() - t;
    ffai_free(ids);
    if (t > seconds * (SANITIZED ? 20 : 1)) fail_msg("%zu bytes of \"%.10s\" took %.1f s", n, text, t);
    return rc ? -1 : (long)k;
}

#define BPE(rest, vocab, merges) "{" rest "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}}"
#define SPLIT(re)                "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" re "\"},\"behavior\":\"Isolated\"},"

static void tokenizers(void **state) {
    (void)state;
    char dir[256];
    make_dir(dir);
    /* tokens that contain each other, that are empty, that share an id */
    static const char *const odd[] = {
        BPE("\"added_tokens\":[{\"id\":2,\"content\":\"ab\"},{\"id\":3,\"content\":\"abab\"},{\"id\":4,\"content\":"
            "\"a\"}],",
            "\"a\":0,\"b\":1", "[\"a\",\"b\"]"),
        BPE("\"added_tokens\":[{\"id\":2,\"content\":\"\"}],", "\"a\":0,\"b\":1", ""),
        BPE("\"added_tokens\":[{\"id\":0,\"content\":\"x\"},{\"id\":0,\"content\":\"y\"}],", "\"a\":0,\"b\":1", ""),
        BPE("\"added_tokens\":[{\"id\":2147483648,\"content\":\"x\"}],", "\"a\":0", ""),
        BPE("\"added_tokens\":[{\"id\":2147483647,\"content\":\"x\"}],", "\"a\":0", ""),
        BPE("\"added_tokens\":[{\"id\":1e300,\"content\":\"x\"}],", "\"a\":0", ""),
        BPE("\"added_tokens\":[{\"id\":1,\"content\":7}],", "\"a\":0", ""),
        BPE("\"added_tokens\":[{\"id\":1,\"content\":\"a\\u0000b\"}],", "\"a\":0", ""),
        BPE("\"added_tokens\":[[[[]]]],", "\"a\":0", ""),
        BPE("", "\"a\":0,\"b\":0", ""),
        BPE("", "\"a\":0,\"ab\":1,\"b\":2", "[\"a\",\"b\"],[\"a\",\"b\"]"),
        BPE("", "\"a\":0,\"\":1", "[\"\",\"a\"]"),
        BPE("", "\"a\":0", "\" \""),
        BPE("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"xx\"},",
            "\"x\":0,\"a\":1", ""),
        BPE("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\"},\"content\":\"xx\"},", "\"x\":0,\"a\":1",
            ""),
        BPE("\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\"},", "\"a\":0", ""),
        BPE(SPLIT(""), "\"a\":0", ""),
        BPE(SPLIT("(?:)*"), "\"a\":0", ""),
        BPE(SPLIT("(?R)"), "\"a\":0", ""),
        BPE(SPLIT("a{1,99999}"), "\"a\":0", ""),
        BPE(SPLIT("\\\\p{Nonesuch}"), "\"a\":0", ""),
        BPE(SPLIT("(?{1})"), "\"a\":0", ""),
        BPE(SPLIT("\\\\K"), "\"a\":0", ""),
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        ffai_model *m = tokenizer(dir, odd[i]);
        if (!m) continue;
        encode(m, "ababab a b xx", 13, 1);
        encode(m, "", 0, 1);
        encode(m, "\xFF\xC0\x80\xED\xA0\x80\xF8\x88\x80\x80\x80", 11, 1);
        int32_t ids[] = {0, 1, 2, 3, 2147483647, -1};
        for (size_t n = 1; n <= 6; n++) {
            char *text = NULL;
            size_t len;
            if (!ffai_detokenize(m, ids, n, n % 2, &text, &len, &err)) assert_int_equal(text[len], 0);
            ffai_free(text);
        }
        ffai_model_free(m);
    }
    remove_dir(dir);
}

/* Patterns that backtrack forever: an error or a result, soon. */
static void patterns(void **state) {
    (void)state;
    static const char *const bad[] = {
        BPE(SPLIT("(a+)+$"), "\"a\":0,\"b\":1", ""),
        BPE(SPLIT("(a|aa)+$"), "\"a\":0,\"b\":1", ""),
        BPE(SPLIT("(.*)*b\\\\1"), "\"a\":0,\"b\":1", ""),
        BPE(SPLIT("(?=(a+))a*b\\\\1"), "\"a\":0,\"b\":1", ""),
        BPE(SPLIT("(((((a*)*)*)*)*)*$"), "\"a\":0,\"b\":1", ""),
    };
    char dir[256];
    make_dir(dir);
    char *text = times("a", 20000);
    text[19999] = 'b';
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ffai_model *m = tokenizer(dir, bad[i]);
        if (!m) continue;
        double t = cpu_now();
        long n = encode(m, text, 20000, 60);
        print_message("%zu: %ld ids in %.2f s %s\n", i, n, cpu_now() - t, n < 0 ? err.msg : "");
        ffai_model_free(m);
    }
    free(text);
    remove_dir(dir);
}

/* A megabyte of what grows, stacks or repeats; a token of ten megabytes. */
static void texts(void **state) {
    (void)state;
    static const char *const unit[] = {"\xEF\xB7\xBA" /* U+FDFA: 18 characters under NFKC */,
                                       "a\xCC\x81\xCC\xA3\xCD\x85" /* marks that are put in order */,
                                       "\xF0\x9F\x91\xA9\xE2\x80\x8D" /* joined emoji */,
                                       "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8" /* Hangul that composes */,
                                       "\xFF",
                                       "\xC0\x80",
                                       "<|endoftext|>",
                                       "<s></s>",
                                       "\r\n",
                                       "    ",
                                       "'s't're",
                                       "0",
                                       "\xE2\x96\x81"};
    static const char *const step[] = {"", "\"normalizer\":{\"type\":\"NFKC\"},", "\"normalizer\":{\"type\":\"NFD\"},",
                                       "\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true},"};
    char dir[256];
    make_dir(dir);
    for (size_t k = 0; k < sizeof step / sizeof *step; k++) {
        fa_buf b = {0};
        fa_buf_printf(&b,
                      "{%s\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":"
                      "\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}",
                      step[k]);
        ffai_model *m = tokenizer(dir, b.data);
        fa_buf_free(&b);
        assert_non_null(m);
        for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
            const size_t n = (SANITIZED ? 100000 : 1000000) / strlen(unit[u]);
            char *text = times(unit[u], n);
            encode(m, text, strlen(text), 5);
            free(text);
        }
        ffai_model_free(m);
    }
    char *long_token = times("a", 10000000);
    fa_buf b = {0};
    fa_buf_printf(&b, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"%s\":1},\"merges\":[]}}", long_token);
    ffai_model *m = tokenizer(dir, b.data);
    if (m) encode(m, "aaaa", 4, 1);
    ffai_model_free(m);
    b.len = 0;
    fa_buf_printf(&b,
                  "{\"added_tokens\":[{\"id\":1,\"content\":\"%s\"}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
                  "\"merges\":[]}}",
                  long_token);
    assert_null(tokenizer(dir, b.data));
    assert_non_null(strstr(err.msg, "10000000 bytes"));
    static const char *const kinds[] = {"\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",0],[\"%s\",-1]]",
                                        "\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1,\"##%s\":2},"
                                        "\"max_input_chars_per_word\":9999999"};
    for (int k = 0; k < 2; k++)
        for (size_t n = 1000; n <= 1000000; n *= 10) { /* n^2 when it is looked for everywhere */
            char *token = times("a", n), *text = times("a", 1000000);
            b.len = 0;
            fa_buf_puts(&b, "{\"model\":{");
            for (const char *c = kinds[k]; *c; c++) {
                if (c[0] != '%') fa_buf_add(&b, c, 1);
                if (c[0] == '%') fa_buf_puts(&b, token), c++;
            }
            fa_buf_puts(&b, "}}");
            m = tokenizer(dir, b.data);
            if (m) encode(m, text, 1000000, 20);
            if (!m) assert_non_null(strstr(err.msg, "the limit"));
            ffai_model_free(m);
            free(token);
            free(text);
        }
    fa_buf_free(&b);
    free(long_token);
    remove_dir(dir);
}

/* ---- chat templates ---- */

static const char talk[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";

/* Renders within two seconds and 512 MB; *text may be NULL. */
static int render(const char *source, size_t n, const char *json, size_t n_json, char **text) {
    ffai_template *t;
    size_t len;
    double from = cpu_now();
    *text = NULL;
    int rc = ffai_template_parse(&t, source, n, "t", &err);
    if (!rc) rc = ffai_template_render(t, json, n_json, text, &len, &err);
    if (cpu_now() - from > 10 * (SANITIZED ? 20 : 1)) fail_msg("%.60s took %.1f s", source, cpu_now() - from);
    if (rc) assert_true(err.msg[0] && !strchr(err.msg, '\n'));
    ffai_template_free(t);
    return rc;
}

static void templates(void **state) {
    (void)state;
    /* ways out of jinja2's sandbox, and ways to take forever: none gives anything */
    static const char *const escapes[] = {
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ joiner.__init__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
        "{{ '%s'.__mod__ }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{{ messages|sort(attribute='__class__') }}",
        "{{ messages|groupby('__class__') }}",
        "{{ (namespace()).__dict__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ range.__class__ }}",
        "{{ loop.__class__ }}",
        "{{ get_flashed_messages.__globals__ }}",
        "{{ url_for.__globals__ }}",
        "{{ request.application }}",
        "{{ config.items() }}",
    };
    char *text;
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
        if (!render(escapes[i], strlen(escapes[i]), talk, sizeof talk - 1, &text)) {
            if (strstr(text, "class") || strstr(text, "function") || strstr(text, "object") || strstr(text, "uid="))
                fail_msg("%s gives %s", escapes[i], text);
            ffai_free(text);
        }
    static const char *const costly[] = {
        "{% for i in range(100000) %}{{ 'a' * 1000000 }}{% endfor %}",
        "{% for i in range(100000) %}{{ messages|tojson }}{% endfor %}",
        "{% set n = namespace(x=messages) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
        "{{ (['a'] * 1000000)|join('b' * 1000000) }}",
        "{{ ('a' * 10000000).split('a')|length }}{{ ('ab' * 10000000)|upper|lower|title|trim|urlize }}",
        "{{ ('a' * 1000000)|indent(1000000, true) }}{{ ('\\n' * 1000000)|indent(1000000, true, true) }}",
        "{{ ('a ' * 1000000)|wordwrap(1) }}",
        "{{ range(100000)|list|sort(reverse=true)|map('string')|join|length }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}",
        "{% for i in range(100000) %}{% for j in messages|sort(attribute='role') %}{% endfor %}{% endfor %}",
        "{{ 10 ** 10 ** 10 ** 10 }}",
        "{{ '%1000000000d' % 1 }}{{ '%.1000000000f' % 1.5 }}{{ '%*d' % (1000000000, 1) }}",
        "{{ 'x'|center(100000000000) }}",
        "{{ strftime_now('%Y' * 100000) }}",
        "{% raw %}{% for",
        "{{ raise_exception('no\\nno') }}",
        "{{ messages[0].content.role.content }}",
        "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{% set ns.b = [ns] %}{{ ns.b|tojson }}",
        "{% call(x) messages() %}{% endcall %}",
        "{% set messages = messages + messages %}{{ messages.append(1) }}{{ messages.clear() }}{{ messages }}",
    };
    for (size_t i = 0; i < sizeof costly / sizeof *costly; i++) {
        render(costly[i], strlen(costly[i]), talk, sizeof talk - 1, &text);
        ffai_free(text);
    }
    /* a megabyte of template, of every kind of piece */
    static const char *const piece[] = {"{{ x }}",
                                        "{% if x %}{% endif %}",
                                        "{# c #}",
                                        "{{ 'a' ~ 1 }}",
                                        "{%- set a = 1 -%}",
                                        "{{",
                                        "{%",
                                        "text ",
                                        "{% macro a() %}{% endmacro %}",
                                        "{{ a|b }}",
                                        "\n"};
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        char *source = times(piece[i], 1000000 / strlen(piece[i]));
        render(source, strlen(source), "{}", 2, &text);
        ffai_free(text);
        free(source);
    }
}

/* Messages of wrong kinds, for a template that uses them all. */
static void conversations(void **state) {
    (void)state;
    static const char source[] =
        "{% for m in messages %}{{ m.role }}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}{% for t in m.tool_calls %}"
        "{{ t.function.arguments | tojson }}{% endfor %}{% endfor %}{{ tools | tojson }}";
    static const char *const bad[] = {
        "{\"messages\": []}",
        "{\"messages\": {}}",
        "{\"messages\": \"hi\"}",
        "{\"messages\": null}",
        "{\"messages\": 3}",
        "{\"messages\": [1]}",
        "{\"messages\": [[]]}",
        "{\"messages\": [null]}",
        "{\"messages\": [{}]}",
        "{\"messages\": [{\"role\": 1, \"content\": 2}]}",
        "{\"messages\": [{\"role\": [], \"content\": {}}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [[[[]]]]}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [1, null, true]}]}",
        "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": 7}]}",
        "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"function\": 7}]}], \"tools\": 5}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000\\ud800\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": 1e999}]}",
        "{\"messages\": [{\"role\": NaN}]}",
        "{\"messages\": [{\"role\": \"user\", \"role\": \"user\"}]}",
        "\xEF\xBB\xBF{}",
        "",
        "[]",
        "{",
        "{\"a\": 1}}"};
    char *text;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        render(source, sizeof source - 1, bad[i], strlen(bad[i]), &text);
        ffai_free(text);
    }
    static const char *const nest[][2] = {{"[", "]"}, {"{\"content\":", "}"}};
    for (size_t k = 0; k < 2; k++)
        for (size_t n = 100; n <= 100000; n *= 10) {
            char *open = times(nest[k][0], n), *close = times(nest[k][1], n);
            fa_buf b = {0};
            fa_buf_printf(&b, "{\"messages\": %s1%s}", open, close);
            int rc = render(source, sizeof source - 1, b.data, b.len, &text);
            if (n > 256) assert_true(rc != 0);
            ffai_free(text);
            fa_buf_free(&b);
            free(open);
            free(close);
        }
}

/* ---- grammars and schemas ---- */

static ffai_model *model;
static ffai_engine *engine;

static void open_demo(void) {
    ffai_engine_opts eo = {.n_thread = 2, .n_ctx = 64, .n_slot = 2};
    if (model) return;
    assert_ok(ffai_model_open(&model, DEMO, NULL, &err), &err);
    assert_ok(ffai_engine_create(&engine, model, &eo, &err), &err);
}

/* Runs a request to its end, whatever that is. */
static ffai_finish finish_of(const ffai_request_opts *o) {
    ffai_request *r;
    ffai_event ev;
    if (ffai_submit(engine, o, &r, &err)) return FFAI_FINISH_ERROR;
    while (ffai_engine_step(engine, &err) > 0) {
    }
    ffai_request_poll(r, &ev);
    assert_int_not_equal(ev.finish, FFAI_RUNNING);
    if (ev.finish == FFAI_FINISH_ERROR) assert_true(ffai_request_error(r)->msg[0]);
    ffai_request_free(r);
    return ev.finish;
}

static const int32_t prompt[64] = {1, 2, 3};

static void grammar(const char *kind, const char *text, size_t n) {
    ffai_grammar *g;
    double t = cpu_now();
    if (ffai_grammar_compile(&g, model, kind, text, n, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) fail_msg("%.80s: \"%s\"", text, err.msg);
    } else {
        ffai_request_opts o = {.ids = prompt, .n_ids = 3, .max_new = 8, .sampling = {.top_p = 1}, .grammar = g};
        finish_of(&o);
    }
    if (cpu_now() - t > 20 * (SANITIZED ? 20 : 1)) fail_msg("%s %.80s took %.1f s", kind, text, cpu_now() - t);
    ffai_grammar_free(g);
}

static void grammars(void **state) {
    (void)state;
    static const char *const regexes[] = {"^+[a-z]$",
                                          "{2}x",
                                          "(?<=x)",
                                          "(?<!x)a",
                                          "a{0,1000000}",
                                          "(a{0,1000}){0,1000}",
                                          "a{1000000,}",
                                          "a{2,1}",
                                          "a{-1}",
                                          "(a|b)*a(a|b){25}",
                                          "((((a*)*)*)*)*",
                                          "(a?){1000}a{1000}",
                                          "[z-a]",
                                          "[",
                                          "]",
                                          "(",
                                          ")",
                                          "*",
                                          "?",
                                          "+",
                                          "|",
                                          "||",
                                          "\\",
                                          "\\x",
                                          "\\u{110000}",
                                          "\\p{L}{1,1000}",
                                          "[^\\s\\S]",
                                          "[]",
                                          "[^]",
                                          "(?i)a",
                                          "(?R)",
                                          "\\1",
                                          "a\xFF",
                                          "(?P<n>a)",
                                          "$^",
                                          "\\b\\B",
                                          "(?=a)b",
                                          "",
                                          ".{100000}",
                                          "\xF0\x9F\x98\x80{3}"};
    static const char *const gbnfs[] = {"",
                                        "root ::=",
                                        "root ::= root",
                                        "root ::= root \"a\" | root",
                                        "root ::= a\na ::= b\nb ::= a",
                                        "root ::= \"a\"*{5}",
                                        "root ::= (\"a\"*)*",
                                        "root ::= \"\"",
                                        "root ::= \"\"*",
                                        "root ::= [^\\x00-\\U0010FFFF]",
                                        "root ::= nothere",
                                        "root ::= \"a\"{1000000}",
                                        "root ::= \"a\"{3,2}",
                                        "root ::= \"a\"{-1}",
                                        "root ::= \"a\"{,}",
                                        "x ::= \"a\"",
                                        "root ::= <[99999999]>",
                                        "root ::= <no-such-token>",
                                        "root ::= \"\\xFF\\xFE\"",
                                        "root ::= \"\\ud800\"",
                                        "root ::= [a",
                                        "root ::= (\"a\"",
                                        "root ::= \"a",
                                        "::= \"a\"",
                                        "root = \"a\"",
                                        "root ::= \"a\" |",
                                        "root ::= | | |",
                                        "root ::= root2\nroot2 ::= root3 root2 | \"\"\nroot3 ::= \"\""};
    static const char *const schemas[] = {
        "",
        "false",
        "null",
        "3",
        "\"x\"",
        "[]",
        "{\"not\": {}}",
        "{\"type\": \"nonesuch\"}",
        "{\"type\": 3}",
        "{\"type\": []}",
        "{\"enum\": []}",
        "{\"enum\": 3}",
        "{\"const\": {\"a\": [1e999]}}",
        "{\"$ref\": \"#\"}",
        "{\"$ref\": \"#/$defs/a\"}",
        "{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"$ref\": \"#/$defs/b\"}, \"b\": {\"$ref\": \"#/$defs/a\"}}}",
        "{\"$ref\": \"http://127.0.0.1:9/x.json\"}",
        "{\"$ref\": \"file:///etc/passwd\"}",
        "{\"$ref\": \"../../etc/passwd\"}",
        "{\"$ref\": 3}",
        "{\"allOf\": [{\"$ref\": \"#\"}]}",
        "{\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": \"#\"}]}",
        "{\"anyOf\": []}",
        "{\"allOf\": []}",
        "{\"oneOf\": {}}",
        "{\"minLength\": 1000000000, \"type\": \"string\"}",
        "{\"minLength\": -1, \"type\": \"string\"}",
        "{\"minLength\": 5, \"maxLength\": 3, \"type\": \"string\"}",
        "{\"minLength\": 100, \"type\": \"string\"}",
        "{\"maxLength\": 1e300, \"type\": \"string\"}",
        "{\"minItems\": 1000000000, \"type\": \"array\"}",
        "{\"minItems\": 5, \"maxItems\": 3, \"type\": \"array\"}",
        "{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}, \"minItems\": 1}",
        "{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}",
        "{\"type\": \"object\", \"required\": [\"x\"], \"additionalProperties\": false}",
        "{\"type\": \"object\", \"properties\": []}",
        "{\"type\": \"object\", \"required\": 3}",
        "{\"type\": \"string\", \"pattern\": \"^+[a-z]$\"}",
        "{\"type\": \"string\", \"pattern\": \"{2}x\"}",
        "{\"type\": \"string\", \"pattern\": \"(?<=x)\"}",
        "{\"type\": \"string\", \"pattern\": \"(a+)+$\"}",
        "{\"type\": \"string\", \"pattern\": 3}",
        "{\"type\": \"string\", \"format\": \"nonesuch\"}",
        "{\"type\": \"integer\", \"minimum\": 1e999}",
        "{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 3}",
        "{\"type\": \"integer\", \"minimum\": -9223372036854775808, \"maximum\": 9223372036854775807}",
        "{\"type\": \"number\", \"multipleOf\": 0}",
        "{\"type\": \"integer\", \"minimum\": 0.5, \"maximum\": 0.6}",
        "{\"type\": \"object\", \"patternProperties\": {\"(\": {}}}"};
    open_demo();
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++) grammar("regex", regexes[i], strlen(regexes[i]));
    for (size_t i = 0; i < sizeof gbnfs / sizeof *gbnfs; i++) grammar("gbnf", gbnfs[i], strlen(gbnfs[i]));
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        grammar("json-schema", schemas[i], strlen(schemas[i]));
}

static void large_grammars(void **state) {
    (void)state;
    static const char *const nest[][4] = {{"regex", "(", "a", ")"},
                                          {"gbnf", "(", "\"a\"", ")"},
                                          {"json-schema", "{\"items\":", "{}", "}"},
                                          {"json-schema", "{\"anyOf\":[", "{}", "]}"},
                                          {"json-schema", "{\"properties\":{\"a\":", "{}", "}}"},
                                          {"json-schema", "{\"not\":", "{}", "}"}};
    open_demo();
    for (size_t k = 0; k < sizeof nest / sizeof *nest; k++)
        for (size_t n = 60; n <= 60000; n *= 10) {
            char *open = times(nest[k][1], n), *close = times(nest[k][3], n);
            fa_buf b = {0};
            fa_buf_printf(&b, "%s%s%s%s", strcmp(nest[k][0], "gbnf") ? "" : "root ::= ", open, nest[k][2], close);
            grammar(nest[k][0], b.data, b.len);
            fa_buf_free(&b);
            free(open);
            free(close);
        }
    fa_buf b = {0};
    const int many = SANITIZED ? 30000 : 1000000;
    fa_buf_puts(&b, "{\"enum\":[");
    for (int i = 0; i < many; i++) fa_buf_printf(&b, "%s%d", i ? "," : "", i);
    fa_buf_puts(&b, "]}");
    grammar("json-schema", b.data, b.len);
    b.len = 0;
    fa_buf_puts(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 10000; i++) fa_buf_printf(&b, "%s\"p%d\":{\"type\":\"integer\"}", i ? "," : "", i);
    fa_buf_puts(&b, "}}");
    grammar("json-schema", b.data, b.len);
    b.len = 0;
    fa_buf_puts(&b, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{"); /* a chain, twice at each link */
    for (int i = 0; i < 60; i++)
        fa_buf_printf(
            &b, "\"d%d\":{\"type\":\"array\",\"prefixItems\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]},",
            i, i + 1, i + 1);
    fa_buf_puts(&b, "\"d60\":{}}}");
    grammar("json-schema", b.data, b.len);
    b.len = 0;
    for (int i = 0; i < 60; i++) fa_buf_printf(&b, "%s%d ::= r%d r%d\n", i ? "r" : "root ::= r0\nr", i, i + 1, i + 1);
    fa_buf_puts(&b, "r60 ::= \"a\"?\n");
    grammar("gbnf", b.data, b.len);
    fa_buf_free(&b);
}

/* ---- requests ---- */

static void requests(void **state) {
    (void)state;
    static const float odd[] = {0, 1e-30f, 1e-38f, 1e30f, 3e38f, -1, 1.5f, 1e9f, NAN, INFINITY, -INFINITY};
    open_demo();
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int k = 0; k < 9; k++) {
            ffai_sampling s = {.temp = 1, .seed = UINT64_MAX};
            float *const field[] = {&s.temp,
                                    &s.top_p,
                                    &s.min_p,
                                    &s.typical,
                                    &s.top_n_sigma,
                                    &s.repeat_penalty,
                                    &s.presence_penalty,
                                    &s.mirostat_tau,
                                    &s.dry_multiplier};
            *field[k] = odd[i];
            ffai_request_opts o = {.ids = prompt, .n_ids = 3, .max_new = 2, .sampling = s, .ignore_eos = true};
            ffai_finish f = finish_of(&o);
            if (f != FFAI_FINISH_LENGTH && f != FFAI_FINISH_ERROR) fail_msg("field %d, %g: %d", k, (double)odd[i], f);
        }
    /* counts and lists that make no sense */
    ffai_logit_bias none[4096], bias[] = {{-1, 1}, {1 << 30, 1}, {5, NAN}, {5, INFINITY}, {5, 1e38f}, {5, 3e38f}};
    for (int i = 0; i < 4096; i++) none[i] = (ffai_logit_bias){i, -INFINITY};
    ffai_request_opts all = {.ids = prompt, .n_ids = 3, .max_new = 2, .sampling = {.bias = none, .n_bias = 4096}};
    finish_of(&all); /* nothing may come */
    all.sampling.temp = 1;
    finish_of(&all);
    for (int i = 0; i < 6; i++) {
        ffai_request_opts o = {.ids = prompt, .n_ids = 3, .max_new = 2, .sampling = {.bias = &bias[i], .n_bias = 1}};
        finish_of(&o);
    }
    const int64_t news[] = {-1, INT64_MIN, INT64_MAX};
    for (int i = 0; i < 3; i++) {
        ffai_request_opts o = {
            .ids = prompt, .n_ids = 3, .max_new = news[i], .sampling = {.top_k = -5}, .n_logprob = 1 << 30};
        finish_of(&o);
        o.sampling.top_k = INT32_MAX;
        o.n_logprob = -7;
        finish_of(&o);
        o.n_logprob = 0;
        o.sampling = (ffai_sampling){.repeat_last = -1,
                                     .dry_last = -1,
                                     .repeat_penalty = 2,
                                     .dry_multiplier = 1,
                                     .no_repeat_ngram = INT32_MIN,
                                     .min_new = INT32_MAX,
                                     .min_length = INT32_MIN};
        finish_of(&o);
    }
    /* no prompt, one as long as the context, one token too long; ids that are none */
    for (size_t n = 0; n <= 65; n += n ? 1 : 62) {
        int32_t ids[65] = {0};
        ffai_request_opts o = {.ids = ids, .n_ids = n, .sampling = {.top_p = 1}, .ignore_eos = true};
        ffai_finish f = finish_of(&o);
        assert_int_equal(f, n && n < 64 ? FFAI_FINISH_LENGTH : n == 64 ? f : FFAI_FINISH_ERROR);
    }
    static const int32_t bad[] = {-1, 4096, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        ffai_request_opts o = {.ids = &bad[i], .n_ids = 1, .max_new = 1};
        assert_int_equal(finish_of(&o), FFAI_FINISH_ERROR);
    }
    /* stop strings without end, and empty ones */
    enum { STOPS = 100000 };
    const char **stop = (const char **)calloc(STOPS, sizeof *stop);
    for (int i = 0; i < STOPS; i++) stop[i] = i % 2 ? "never to be seen" : "";
    ffai_request_opts o = {.ids = prompt, .n_ids = 3, .max_new = 4, .stop = stop, .n_stop = STOPS, .ignore_eos = true};
    double t = cpu_now();
    finish_of(&o);
    assert_true(cpu_now() - t < 20);
    free(stop);
    /* and the engine is as it was */
    o = (ffai_request_opts){.ids = prompt, .n_ids = 3, .max_new = 2, .ignore_eos = true};
    assert_int_equal(finish_of(&o), FFAI_FINISH_LENGTH);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs),      cmocka_unit_test(indexes),        cmocka_unit_test(many_tensors),
        cmocka_unit_test(many_experts), cmocka_unit_test(tokenizers),     cmocka_unit_test(patterns),
        cmocka_unit_test(texts),        cmocka_unit_test(templates),      cmocka_unit_test(conversations),
        cmocka_unit_test(grammars),     cmocka_unit_test(large_grammars), cmocka_unit_test(requests),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ffai_engine_free(engine);
    ffai_model_free(model);
    return failed;
}
