/* config.json of the mamba_ssm package (state-spaces/mamba-130m, mamba2-130m, ...) in the words of transformers, as its
 * conversion scripts translate them: tensors have the same names in both. Known by d_model, n_layer and ssm_cfg without
 * a model_type. Defaults: mamba_ssm's MambaConfig, Mamba and Mamba2. */
#include "io/ckpt_impl.h"

#include <math.h>
#include <string.h>

typedef struct reader {
    const fa_jnode *root, *ssm;
    fa_buf *json;
    const char *file;
    fa_error *err;
    int rc;
} reader;

enum { MOST = 1 << 24 };

static void refuse(reader *r, const char *key, const char *why) {
    if (!r->rc) r->rc = fa_fail(r->err, FFAI_ENOTSUP, "%s: mamba_ssm: \"%s\" %s", r->file, key, why);
}

static const fa_jnode *present(const fa_jnode *obj, const char *key) {
    const fa_jnode *n = fa_jget(obj, key);
    return fa_jtype_of(n) == FA_JNULL ? NULL : n;
}

static int64_t whole(reader *r, const fa_jnode *obj, const char *key, int64_t otherwise) {
    const fa_jnode *n = present(obj, key);
    const int64_t v = n ? fa_jint(n, 0) : otherwise;
    if (v >= 1 && v <= MOST) return v;
    if (!r->rc)
        r->rc = fa_fail(r->err, FFAI_EFORMAT, "%s: mamba_ssm: \"%s\" is no number from 1 to %d", r->file, key, MOST);
    return 1;
}

static bool is(reader *r, const fa_jnode *obj, const char *key, bool otherwise) {
    const fa_jnode *n = present(obj, key);
    if (n && fa_jtype_of(n) != FA_JBOOL) refuse(r, key, "is not true or false");
    return fa_jbool(n, otherwise);
}

static void put_int(reader *r, const char *key, int64_t v) {
    fa_buf_printf(r->json, ",\"%s\":%lld", key, (long long)v);
}

static void put_bool(reader *r, const char *key, bool v) {
    fa_buf_printf(r->json, ",\"%s\":%s", key, v ? "true" : "false");
}

/* What only the second mixer has; width: expand * d_model. */
static void put_second(reader *r, int64_t width) {
    const int64_t head = whole(r, r->ssm, "headdim", 64);
    const fa_jnode *limit = present(r->ssm, "dt_limit"), *low = fa_jfirst(limit), *high = fa_jnext(low);
    if (!is(r, r->ssm, "rmsnorm", true)) refuse(r, "rmsnorm", "is false");
    if (is(r, r->ssm, "norm_before_gate", false)) refuse(r, "norm_before_gate", "is true");
    if (is(r, r->ssm, "D_has_hdim", false)) refuse(r, "D_has_hdim", "is true");
    if (whole(r, r->ssm, "d_ssm", width) != width) refuse(r, "d_ssm", "is not the whole width");
    if (width % head) refuse(r, "headdim", "does not divide the width");
    put_int(r, "num_heads", width / head);
    put_int(r, "head_dim", head);
    put_int(r, "n_groups", whole(r, r->ssm, "ngroups", 1));
    if (!limit) return;
    const double a = fa_jnum(low, NAN), b = fa_jnum(high, NAN);
    if (fa_jlen(limit) != 2 || !(a >= 0) || !(b >= a))
        refuse(r, "dt_limit", "is no range");
    else
        fa_buf_printf(r->json, ",\"time_step_limit\":[%.17g,%.17g]", a, b);
}

static void put_first(reader *r, int64_t width) {
    const fa_jnode *rank = present(r->ssm, "dt_rank");
    put_int(r, "intermediate_size", width);
    if (rank && fa_jtype_of(rank) != FA_JSTR) put_int(r, "time_step_rank", whole(r, r->ssm, "dt_rank", 1));
}

static void put_tokens(reader *r, int64_t vocab) {
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const fa_jnode *n = present(r->root, keys[i]);
        if (n && fa_jtype_of(n) == FA_JINT)
            put_int(r, keys[i], fa_jint(n, 0));
        else if (vocab == 50277) /* GPT-NeoX's tokenizer: <|endoftext|> is all three */
            put_int(r, keys[i], 0);
    }
}

static void translate(reader *r) {
    const char *layer = fa_jstr(present(r->ssm, "layer"), NULL);
    const int64_t dim = whole(r, r->root, "d_model", 1), n_layer = whole(r, r->root, "n_layer", 1),
                  vocab = whole(r, r->root, "vocab_size", 50277), expand = whole(r, r->ssm, "expand", 2),
                  pad = whole(r, r->root, "pad_vocab_size_multiple", 8);
    const bool second = layer && strcmp(layer, "Mamba2") == 0;
    if (layer && !second && strcmp(layer, "Mamba1") != 0) refuse(r, "layer", "is neither Mamba1 nor Mamba2");
    if (fa_jlen(present(r->root, "attn_layer_idx"))) refuse(r, "attn_layer_idx", "names layers that attend");
    if (fa_jint(present(r->root, "d_intermediate"), 0)) refuse(r, "d_intermediate", "is not 0: layers have an MLP");
    if (!is(r, r->root, "rms_norm", true)) refuse(r, "rms_norm", "is false");
    fa_buf_printf(r->json, "{\"model_type\":\"%s\",\"architectures\":[\"%s\"]", second ? "mamba2" : "mamba",
                  second ? "Mamba2ForCausalLM" : "MambaForCausalLM");
    put_int(r, "hidden_size", dim);
    put_int(r, "num_hidden_layers", n_layer);
    put_int(r, "vocab_size", (vocab + pad - 1) / pad * pad);
    put_int(r, "expand", expand);
    put_int(r, "state_size", whole(r, r->ssm, "d_state", second ? 128 : 16));
    put_int(r, "conv_kernel", whole(r, r->ssm, "d_conv", 4));
    put_bool(r, "use_bias", is(r, r->ssm, "bias", false));
    put_bool(r, "use_conv_bias", is(r, r->ssm, "conv_bias", true));
    put_bool(r, "tie_word_embeddings", is(r, r->root, "tie_embeddings", true));
    (second ? put_second : put_first)(r, expand * dim);
    put_tokens(r, vocab);
    fa_buf_puts(r->json, "}");
}

int fa_mamba_ssm_config(fa_json **config, const char *file, fa_error *err) {
    fa_buf json = {0};
    fa_json *made = NULL;
    reader r = {.root = fa_json_root(*config), .json = &json, .file = file, .err = err};
    r.ssm = fa_jget(r.root, "ssm_cfg");
    if (fa_jget(r.root, "model_type") || fa_jtype_of(r.ssm) != FA_JOBJ || !fa_jget(r.root, "d_model") ||
        !fa_jget(r.root, "n_layer"))
        return FFAI_OK;
    translate(&r);
    if (!r.rc && json.failed) r.rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for the config", file);
    if (!r.rc) r.rc = fa_json_parse(&made, json.data, json.len, file, err);
    fa_buf_free(&json);
    if (r.rc) return r.rc;
    fa_json_free(*config);
    *config = made;
    return FFAI_OK;
}
