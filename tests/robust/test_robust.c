/* Broken folders: the carried model with one thing wrong at a time. Each must be refused with one line that names the
 * file and the tensor or key, without a crash and without memory that the files do not justify. */
#define _XOPEN_SOURCE 700
#include "robust/broken.h"

typedef struct json_case {
    const char *key, *value, *words;
} json_case;

static void run_json_cases(const char *name, const json_case *c, size_t n) {
    char dir[256], what[300];
    demo_copy(dir);
    for (size_t i = 0; i < n; i++) {
        put_json(dir, DEMO, name, c[i].key, c[i].value);
        snprintf(what, sizeof what, "%s with \"%s\": %.100s", name, c[i].key, c[i].value);
        assert_refused(dir, c[i].words, what);
    }
    remove_dir(dir);
}

/* Tensors of a layer too many are no failure, but are told. */
static void strangers(void **state) {
    (void)state;
    char dir[256];
    ffai_model *m;
    ffai_model_info info;
    ffai_error err;
    demo_copy(dir);
    assert_int_equal(ffai_model_open(&m, dir, NULL, &err), 0);
    ffai_model_get_info(m, &info);
    assert_string_equal(info.extra, "");
    ffai_model_free(m);
    put_json(dir, DEMO, "config.json", "num_hidden_layers", "7");
    assert_int_equal(ffai_model_open(&m, dir, NULL, &err), 0);
    ffai_model_get_info(m, &info);
    assert_non_null(strstr(info.extra, "model.layers.7.mlp.up_proj.weight"));
    assert_null(strstr(info.extra, "model.layers.6."));
    ffai_model_free(m);
    remove_dir(dir);
}

static void config_keys(void **state) {
    (void)state;
    static const json_case cases[] = {
        {"hidden_size", "0", "hidden_size|0"},
        {"hidden_size", "-256", "hidden_size|-256"},
        {"hidden_size", "1099511627776", "hidden_size|1099511627776"},
        {"hidden_size", "1e300", "hidden_size"},
        {"hidden_size", "\"256\"", "hidden_size|integer"},
        {"hidden_size", "256.5", "hidden_size|integer"},
        {"hidden_size", "[256]", "hidden_size"},
        {"hidden_size", "257", "embed_tokens|257"},
        {"hidden_size", "128", "embed_tokens|128"},
        {"intermediate_size", "0", "intermediate_size"},
        {"intermediate_size", "641", "mlp."},
        {"intermediate_size", "1152921504606846976", "intermediate_size"},
        {"num_hidden_layers", "0", "num_hidden_layers"},
        {"num_hidden_layers", "-1", "num_hidden_layers"},
        {"num_hidden_layers", "1000000000", "num_hidden_layers|1000000000"},
        {"num_hidden_layers", "9", "missing|model.layers.8."},
        {"num_hidden_layers", "4096", "missing|36792"},
        {"num_attention_heads", "0", "num_attention_heads"},
        {"num_attention_heads", "7", "num_attention_heads|num_key_value_heads"},
        {"num_attention_heads", "12", "q_proj"},
        {"num_attention_heads", "1e18", "num_attention_heads"},
        {"num_key_value_heads", "0", "num_key_value_heads"},
        {"num_key_value_heads", "3", "num_key_value_heads"},
        {"num_key_value_heads", "16", "num_key_value_heads"},
        {"num_key_value_heads", "8", "k_proj"},
        {"head_dim", "0", "head_dim"},
        {"head_dim", "33", "head_dim|odd"},
        {"head_dim", "64", "q_proj"},
        {"head_dim", "4097", "head_dim"},
        {"vocab_size", "0", "vocab_size"},
        {"vocab_size", "4095", "embed_tokens"},
        {"vocab_size", "1125899906842624", "vocab_size"},
        {"max_position_embeddings", "0", "max_position_embeddings"},
        {"max_position_embeddings", "1000000000000000000", "max_position_embeddings"},
        {"max_position_embeddings", "\"long\"", "max_position_embeddings"},
        {"rms_norm_eps", "-1e-5", "rms_norm_eps"},
        {"rms_norm_eps", "1e999", "config.json"},
        {"rms_norm_eps", "NaN", "config.json"},
        {"rms_norm_eps", "\"small\"", "rms_norm_eps"},
        {"rope_theta", "0", "rope_theta"},
        {"rope_theta", "-10000", "rope_theta"},
        {"rope_theta", "1e-300", "rope_theta"},
        {"rope_theta", "\"big\"", "rope_theta"},
        {"hidden_act", "\"softplus\"", "hidden_act|softplus"},
        {"hidden_act", "7", "hidden_act"},
        {"tie_word_embeddings", "\"yes\"", "tie_word_embeddings"},
        {"tie_word_embeddings", "false", "missing|lm_head"},
        {"attention_bias", "true", "missing|q_proj.bias"},
        {"attention_bias", "1", "attention_bias"},
        {"mlp_bias", "true", "missing|gate_proj.bias"},
    };
    run_json_cases("config.json", cases, sizeof cases / sizeof *cases);
    char dir[256];
    demo_copy(dir); /* model_type and architectures are looked at together */
    put_text(dir, "config.json", "{\"model_type\": \"nonesuch\", \"architectures\": [\"NoneSuch\"]}");
    assert_refused(dir, "nonesuch|NoneSuch|llama|gemma3", "an unknown family");
    put_text(dir, "config.json", "{}");
    assert_refused(dir, "model_type", "an empty config");
    put_text(dir, "config.json", "{\"model_type\": [], \"architectures\": {}, \"text_config\": 3}");
    assert_refused(dir, "config.json", "wrong kinds");
    remove_dir(dir);
}

static void config_rope(void **state) {
    (void)state;
    static const json_case cases[] = {
        {"rope_scaling", "3", "rope_scaling"},
        {"rope_scaling", "\"linear\"", "rope_scaling"},
        {"rope_scaling", "[]", "rope_scaling"},
        {"rope_scaling", "{\"type\": \"nonesuch\", \"factor\": 2}", "rope type|nonesuch"},
        {"rope_scaling", "{\"type\": 3, \"factor\": 2}", "rope type"},
        {"rope_scaling", "{\"type\": \"linear\"}", "linear|factor"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 0}", "factor|0"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": -2}", "factor|-2"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": \"2\"}", "factor"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 1e308}", "factor"},
        {"rope_scaling", "{\"type\": \"dynamic\", \"factor\": 0}", "factor"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 0}", "factor"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 0}",
         "original_max_position_embeddings"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 1e29}",
         "original_max_position_embeddings"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": -1}", "beta_fast"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"attention_factor\": 0}", "attention_factor"},
        {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8}", "low_freq_factor"},
        {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}",
         "low_freq_factor|high_freq_factor"},
        {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 0, \"high_freq_factor\": 4}",
         "low_freq_factor"},
        {"rope_scaling", "{\"rope_type\": \"longrope\"}", "short_factor"},
        {"rope_scaling", "{\"rope_type\": \"longrope\", \"short_factor\": [1, 2], \"long_factor\": [1, 2]}",
         "short_factor|16"},
        {"rope_scaling",
         "{\"rope_type\": \"longrope\", \"short_factor\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,0], \"long_factor\": []}",
         "short_factor"},
        {"rope_parameters", "[1]", "rope_parameters"},
        {"original_max_position_embeddings", "1e300", "original_max_position_embeddings"},
        {"original_max_position_embeddings", "\"x\"", "original_max_position_embeddings"},
    };
    run_json_cases("config.json", cases, sizeof cases / sizeof *cases);
}

static void config_quantization(void **state) {
    (void)state;
    static const json_case cases[] = {
        {"quantization", "{\"bits\": 7, \"group_size\": 64}", "bits|7|model.safetensors"},
        {"quantization", "{\"bits\": 8, \"group_size\": 64}", "bits|8"},
        {"quantization", "{\"bits\": 4, \"group_size\": 0}", "group_size|0"},
        {"quantization", "{\"bits\": 4, \"group_size\": 32}", "group_size|32"},
        {"quantization", "{\"bits\": \"4\", \"group_size\": 64}", "bits"},
        {"quantization", "{\"bits\": 4, \"group_size\": 64, \"mode\": \"nvfp4\"}", "mode|nvfp4"},
        {"quantization", "{\"bits\": 4, \"group_size\": 64, \"mode\": 3}", "mode"},
        {"quantization", "{\"bits\": 4, \"group_size\": 32, \"mode\": \"mxfp4\"}", "model.safetensors"},
        {"quantization",
         "{\"bits\": 4, \"group_size\": 64, \"model.layers.3.mlp.down_proj\": {\"bits\": 8, \"group_size\": 64}}",
         "model.layers.3.mlp.down_proj|bits|8"},
    };
    run_json_cases("config.json", cases, sizeof cases / sizeof *cases);
}

static void optional_json(void **state) {
    (void)state;
    static const json_case cases[] = {
        {"eos_token_id", "\"</s>\"", "generation_config.json|eos_token_id"},
        {"eos_token_id", "[1, \"</s>\"]", "generation_config.json|eos_token_id"},
        {"eos_token_id", "{}", "generation_config.json|eos_token_id"},
        {"eos_token_id", "1.5", "generation_config.json|eos_token_id"},
        {"eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "eos_token_id|16"},
        {"temperature", "\"hot\"", "generation_config.json|temperature"},
        {"temperature", "-1", "temperature"},
        {"top_k", "-7", "top_k"},
        {"top_k", "1e20", "top_k"},
        {"top_p", "1.5", "top_p"},
        {"min_p", "[]", "min_p"},
        {"top_p", "1e999", "generation_config.json"},
        {"typical_p", "2", "generation_config.json|typical_p"},
        {"repetition_penalty", "-1", "repetition_penalty"},
        {"repetition_penalty", "true", "repetition_penalty"},
        {"epsilon_cutoff", "1.1", "epsilon_cutoff"},
        {"eta_cutoff", "\"x\"", "eta_cutoff"},
        {"top_h", "-0.1", "top_h"},
        {"no_repeat_ngram_size", "-1", "no_repeat_ngram_size"},
        {"min_new_tokens", "[]", "min_new_tokens"},
        {"suppress_tokens", "5", "suppress_tokens|list"},
        {"suppress_tokens", "[1, \"a\"]", "suppress_tokens"},
        {"begin_suppress_tokens", "{}", "begin_suppress_tokens"},
        {"bad_words_ids", "[1, 2]", "bad_words_ids"},
        {"bad_words_ids", "[[1], [2.5]]", "bad_words_ids"},
        {"sequence_bias", "[[1, 2]]", "sequence_bias"},
        {"sequence_bias", "[[[1], null]]", "sequence_bias"},
        {"sequence_bias", "{}", "sequence_bias"},
    };
    run_json_cases("generation_config.json", cases, sizeof cases / sizeof *cases);
    char dir[256];
    ffai_error err;
    demo_copy(dir);
    put_text(dir, "generation_config.json", "{\"a\": ");
    assert_refused(dir, "generation_config.json", "half a generation_config.json");
    put_text(dir, "generation_config.json", "[]");
    assert_refused(dir, "generation_config.json|object", "an array as generation_config.json");
    drop_file(dir, "generation_config.json");
    assert_ok(open_and_run(dir, &err), &err);
    /* ids that the model does not have, nulls and "all" are usual */
    static const json_case fine[] = {{"eos_token_id", "[1, -1, null, 99999]", ""},
                                     {"eos_token_id", "[]", ""},
                                     {"eos_token_id", "null", ""},
                                     {"top_k", "-1", ""},
                                     {"top_p", "0", ""},
                                     {"temperature", "null", ""},
                                     {"suppress_tokens", "null", ""},
                                     {"suppress_tokens", "[-1, 99999, 3]", ""},
                                     {"bad_words_ids", "[[], [5], [1, 99999], [7, 8]]", ""},
                                     {"sequence_bias", "[[[3], 1.5], [[3, 4], -2]]", ""},
                                     {"num_beams", "4", ""}};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        put_json(dir, DEMO, "generation_config.json", fine[i].key, fine[i].value);
        assert_ok(open_and_run(dir, &err), &err);
    }
    /* a family that is known by its architecture string runs without model_type, and the other way round */
    put_json(dir, DEMO, "config.json", "architectures", "3");
    assert_ok(open_and_run(dir, &err), &err);
    remove_dir(dir);
}

/* ---- whole files ---- */

static void whole_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *words;
    } texts[] = {{"", "config.json|empty"},
                 {" \n", "config.json|empty"},
                 {"[]", "config.json|object"},
                 {"null", "config.json"},
                 {"\"x\"", "config.json"},
                 {"{", "config.json"},
                 {"{\"a\" 1}", "config.json"},
                 {"\xEF\xBB\xBF{}", "config.json|byte order"},
                 {"{\"a\": \"\xFF\"}", "config.json"}};
    char dir[256], path[600];
    demo_copy(dir);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put_text(dir, "config.json", texts[i].text);
        assert_refused(dir, texts[i].words, texts[i].text);
    }
    size_t deep = 1000000;
    char *text = (char *)malloc(deep);
    assert_non_null(text);
    memset(text, '[', deep);
    put_file(dir, "config.json", text, deep);
    assert_refused(dir, "config.json", "a million brackets");
    for (size_t i = 0; i + 5 <= deep; i += 5) memcpy(text + i, "{\"a\":", 5);
    put_file(dir, "config.json", text, deep);
    assert_refused(dir, "config.json", "objects in objects");
    free(text);
    for (size_t i = 0; i < 3; i++) { /* a folder, a dangling link, a loop in place of each file that must be read */
        static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors"};
        copy_file(dir, DEMO, "config.json");
        drop_file(dir, names[i]);
        path_in(path, dir, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_refused(dir, names[i], "a folder as file");
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(symlink("/nonexistent/file", path), 0);
        assert_refused(dir, names[i], "a dangling link");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink(names[i], path), 0);
        assert_refused(dir, names[i], "a link to itself");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_refused(dir, names[i], "a FIFO");
        assert_int_equal(unlink(path), 0);
        copy_file(dir, DEMO, names[i]);
        if (geteuid() != 0) { /* root reads everything */
            assert_int_equal(chmod(path, 0), 0);
            assert_refused(dir, names[i], "an unreadable file");
            assert_int_equal(chmod(path, 0600), 0);
        }
    }
    drop_file(dir, "config.json");
    assert_refused(dir, "config.json", "no config.json");
    copy_file(dir, DEMO, "config.json");
    drop_file(dir, "model.safetensors");
    assert_refused(dir, "safetensors", "no weights");
    remove_dir(dir);
    assert_refused(dir, dir, "no folder");
    assert_refused("org/repo", "org/repo|folder", "a repo id");
    assert_refused("", "", "an empty path");
    char longest[6000];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_refused(longest, "too long", "a path of 6000 bytes");
}

static void odd_names(void **state) { /* spaces, newlines and bytes that are no UTF-8 are fine in a path */
    (void)state;
    char dir[256], from[300], to[600];
    ffai_error err;
    demo_copy(dir);
    snprintf(from, sizeof from, "%s", dir);
    snprintf(to, sizeof to, "%s %%s\n\xFF", dir);
    assert_int_equal(rename(from, to), 0);
    assert_ok(open_and_run(to, &err), &err);
    char path[700];
    snprintf(path, sizeof path, "%s/config.json", to);
    assert_int_equal(truncate(path, 10), 0);
    assert_refused(to, "config.json", "half a config under an odd name");
    assert_int_equal(rename(to, from), 0);
    remove_dir(dir);
}

/* ---- safetensors ---- */

typedef struct st_file {
    char *text; /* whole file */
    size_t n, head;
} st_file;

static st_file st_read(void) {
    st_file f;
    f.text = slurp(DEMO, "model.safetensors", &f.n);
    uint64_t head;
    memcpy(&head, f.text, 8);
    f.head = (size_t)head;
    return f;
}

/* Writes the file with `from`, which must be in the header, replaced. */
static void st_edit(const char *dir, const st_file *f, const char *from, const char *to) {
    char *head = fa_strndup(f->text + 8, f->head), *at = strstr(head, from);
    if (!at) fail_msg("no %s in the header", from);
    fa_buf h = {0}, b = {0};
    fa_buf_add(&h, head, (size_t)(at - head));
    fa_buf_puts(&h, to);
    fa_buf_puts(&h, at + strlen(from));
    put_le(&b, h.len, 8);
    fa_buf_add(&b, h.data, h.len);
    fa_buf_add(&b, f->text + 8 + f->head, f->n - 8 - f->head);
    put_file(dir, "model.safetensors", b.data, b.len);
    fa_buf_free(&h);
    fa_buf_free(&b);
    fa_free(head);
}

/* The header text of one tensor, from its name on. */
static char *st_entry(const st_file *f, const char *name) {
    char *head = fa_strndup(f->text + 8, f->head), quoted[200];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    char *at = strstr(head, quoted);
    if (!at) fail_msg("no tensor %s", name);
    char *entry = fa_strndup(at, (size_t)(strchr(at, '}') - at) + 1);
    fa_free(head);
    return entry;
}

/* Replaces `from` inside the entry of one tensor. */
static void st_edit_entry(const char *dir, const st_file *f, const char *name, const char *from, const char *to) {
    char *entry = st_entry(f, name), *at = strstr(entry, from);
    if (!at) fail_msg("no %s in %s", from, entry);
    fa_buf b = {0};
    fa_buf_add(&b, entry, (size_t)(at - entry));
    fa_buf_puts(&b, to);
    fa_buf_puts(&b, at + strlen(from));
    st_edit(dir, f, entry, b.data);
    fa_buf_free(&b);
    fa_free(entry);
}

static void weights_truncated(void **state) {
    (void)state;
    char dir[256], path[512];
    demo_copy(dir);
    path_in(path, dir, "model.safetensors");
    st_file f = st_read();
    const size_t at[] = {0, 1, 7, 8, 9, 8 + f.head / 2, 8 + f.head - 1, 8 + f.head, 8 + f.head + 1, f.n / 2, f.n - 1};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        put_file(dir, "model.safetensors", f.text, at[i]);
        assert_refused(dir, "model.safetensors", "truncated weights");
    }
    put_file(dir, "model.safetensors", f.text, f.n);
    FILE *more = fopen(path, "ab");
    fputc(0, more);
    fclose(more);
    assert_refused(dir, "model.safetensors", "a byte too much");
    const uint64_t lies[] = {0, 1, f.n, f.n - 7, UINT64_C(1) << 62, UINT64_MAX, (100 << 20) + 1};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char *copy = fa_strndup(f.text, f.n);
        memcpy(copy, &lies[i], 8);
        put_file(dir, "model.safetensors", copy, f.n);
        assert_refused(dir, "model.safetensors", "a lie about the header's length");
        fa_free(copy);
    }
    fa_free(f.text);
    remove_dir(dir);
}

static void weights_wrong(void **state) {
    (void)state;
    static const struct {
        const char *tensor, *from, *to, *words;
    } cases[] = {
        {"model.embed_tokens.weight", "\"U32\"", "\"I32\"", "model.embed_tokens.weight|I32"},
        {"model.embed_tokens.weight", "\"U32\"", "\"F32\"", "model.embed_tokens.weight|F32"},
        {"model.embed_tokens.weight", "\"U32\"", "\"F8_E4M3\"", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "\"U32\"", "\"NONE\"", "model.embed_tokens.weight|NONE"},
        {"model.embed_tokens.weight", "\"U32\"", "32", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[32,4096]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[131072]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[2048,64]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[1,4096,32]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[-4096,-32]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[4294967296,4294967296]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[0,32]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[4096,\"32\"]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[4096,1e30]", "model.embed_tokens.weight"},
        {"model.embed_tokens.weight", "[4096,32]", "[1,1,1,1,1,1,1,4096,32]", "model.embed_tokens.weight"},
        {"model.embed_tokens.scales", "[4096,4]", "[4,4096]", "model.embed_tokens"},
        {"model.embed_tokens.scales", "[4096,4]", "[16384]", "model.embed_tokens"},
        {"model.embed_tokens.scales", "\"F16\"", "\"BF16\"", "model.embed_tokens"},
        {"model.embed_tokens.scales", "\"F16\"", "\"I16\"", "model.embed_tokens"},
        {"model.embed_tokens.biases", "[4096,4]", "[2048,8]", "model.embed_tokens"},
        {"model.embed_tokens.biases", "model.embed_tokens.biases", "model.embed_tokens.offsets", "model.embed_tokens"},
        {"model.embed_tokens.scales", "model.embed_tokens.scales", "model.embed_tokens.scale",
         "model.embed_tokens.weight"},
        {"model.norm.weight", "[256]", "[128,2]", "model.norm.weight|256"},
        {"model.norm.weight", "[256]", "[256,1]", "model.norm.weight|256"},
        {"model.norm.weight", "\"F16\"", "\"I16\"", "model.norm.weight|I16"},
        {"model.norm.weight", "model.norm.weight", "model.norm.w", "missing|model.norm.weight"},
        {"model.norm.weight", "model.norm.weight", "model.embed_tokens.weight", "model.embed_tokens.weight"},
        {"model.layers.3.self_attn.k_proj.weight", "k_proj", "x_proj",
         "missing|model.layers.3.self_attn.k_proj.weight|not known: model.layers.3.self_attn.x_proj.weight"},
    };
    char dir[256], what[300];
    demo_copy(dir);
    st_file f = st_read();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_edit_entry(dir, &f, cases[i].tensor, cases[i].from, cases[i].to);
        snprintf(what, sizeof what, "%s: %s -> %s", cases[i].tensor, cases[i].from, cases[i].to);
        char words[300];
        snprintf(words, sizeof words, "%s|%s", strncmp(cases[i].words, "missing", 7) ? "model.safetensors" : dir,
                 cases[i].words);
        assert_refused(dir, words, what);
    }
    fa_free(f.text);
    remove_dir(dir);
}

/* NaN in the weights is no crash: the first step says so. */
static void weights_nan(void **state) {
    (void)state;
    char dir[256];
    demo_copy(dir);
    st_file f = st_read();
    char *entry = st_entry(&f, "model.norm.weight"), *at = strstr(entry, "\"data_offsets\"");
    unsigned long from, to;
    assert_non_null(at);
    assert_int_equal(sscanf(strchr(at, '['), "[%lu,%lu]", &from, &to), 2);
    memset(f.text + 8 + f.head + from, 0xFF, to - from);
    put_file(dir, "model.safetensors", f.text, f.n);
    assert_refused(dir, "logits", "NaN in the last norm");
    fa_free(entry);
    fa_free(f.text);
    remove_dir(dir);
}

static void shards(void **state) {
    (void)state;
    static const struct {
        const char *index, *words;
    } cases[] = {
        {"", "index.json|empty"},
        {"[]", "index.json"},
        {"{}", "index.json|weight_map"},
        {"{\"weight_map\": {}}", "index.json|weight_map"},
        {"{\"weight_map\": []}", "index.json|weight_map"},
        {"{\"weight_map\": {\"a\": 1}}", "index.json|\"a\""},
        {"{\"weight_map\": {\"a\": \"none.safetensors\"}}", "index.json|none.safetensors"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "index.json|/etc/passwd"},
        {"{\"weight_map\": {\"a\": \"../x.safetensors\"}}", "index.json|../x"},
        {"{\"weight_map\": {\"a\": \"\"}}", "index.json"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "index.json"},
        {"{\"weight_map\": {\"a\": \"b\\u0000c\"}}", "index.json"},
        {"{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}", "index.json"},
        {"{\"weight_map\": {\"a\": \"w.safetensors\"}}", "index.json|tensor a|w.safetensors"},
    };
    char dir[256], from[512], to[512];
    ffai_error err;
    demo_copy(dir);
    path_in(from, dir, "model.safetensors");
    path_in(to, dir, "w.safetensors");
    assert_int_equal(rename(from, to), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(dir, "model.safetensors.index.json", cases[i].index);
        assert_refused(dir, cases[i].words, cases[i].index);
    }
    drop_file(dir, "model.safetensors.index.json");
    assert_ok(open_and_run(dir, &err), &err);
    path_in(from, dir, "w-00001-of-00002.safetensors");
    assert_int_equal(rename(to, from), 0);
    assert_refused(dir, "w-00002-of-00002.safetensors", "a missing shard");
    copy_file(dir, DEMO, "model.safetensors");
    path_in(from, dir, "model.safetensors");
    path_in(to, dir, "w-00002-of-00002.safetensors");
    assert_int_equal(rename(from, to), 0);
    assert_refused(dir, "two files", "the same tensors twice");
    remove_dir(dir);
}

/* ---- the tokenizer: a model without one still runs by ids ---- */

static void tokenizers(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "[]",
                                        "{}",
                                        "null",
                                        "{\"model\": 3}",
                                        "{\"model\": {\"type\": \"BPE\"}}",
                                        "{\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": {}}}",
                                        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"b\"}, \"merges\": []}}",
                                        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1e18}, \"merges\": []}}",
                                        "{\"model\": {\"type\": \"Nonesuch\", \"vocab\": {}}}"};
    char dir[256], text[300];
    size_t n;
    demo_copy(dir);
    char *whole = slurp(DEMO, "tokenizer.json", &n);
    for (size_t i = 0; i < sizeof texts / sizeof *texts + 8; i++) {
        ffai_error err = {0};
        ffai_model *m;
        int32_t *ids;
        size_t count = sizeof texts / sizeof *texts;
        if (i < count)
            put_text(dir, "tokenizer.json", texts[i]);
        else
            put_file(dir, "tokenizer.json", whole, n * (i - count) / 8);
        assert_ok(open_and_run(dir, &err), &err);
        assert_ok(ffai_model_open(&m, dir, NULL, &err), &err);
        int rc = ffai_tokenizer_text(m, text, sizeof text, &err);
        if (rc == 0 || !strstr(err.msg, "tokenizer.json")) fail_msg("%zu: %d %s", i, rc, err.msg);
        assert_int_equal(ffai_tokenize(m, "a", 1, 0, &ids, &n, &err), rc);
        assert_null(ids);
        ffai_model_free(m);
        n = strlen(whole);
    }
    drop_file(dir, "tokenizer.json");
    ffai_error err;
    assert_ok(open_and_run(dir, &err), &err);
    fa_free(whole);
    remove_dir(dir);
}

static void memory_stayed_small(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    skip();
#endif
#endif
    assert_true(peak_kib() < 100 << 10); /* of all the cases above */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_keys),
        cmocka_unit_test(strangers),
        cmocka_unit_test(config_rope),
        cmocka_unit_test(config_quantization),
        cmocka_unit_test(optional_json),
        cmocka_unit_test(whole_files),
        cmocka_unit_test(odd_names),
        cmocka_unit_test(weights_truncated),
        cmocka_unit_test(weights_wrong),
        cmocka_unit_test(weights_nan),
        cmocka_unit_test(shards),
        cmocka_unit_test(tokenizers),
        cmocka_unit_test(memory_stayed_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
