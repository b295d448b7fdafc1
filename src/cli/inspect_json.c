/* `ffai inspect --json`: everything that the text says, and every tensor. */
#include "cli/inspect_show.h"
#include "cli/out.h"
#include "cli/session.h"

static void templates(out_json *j, ffai_model *m) {
    inspect_template t;
    char format[64];
    out_json_open(j, "templates", '[');
    for (size_t i = 0; inspect_template_at(m, i, &t); i++) {
        out_json_open(j, NULL, '{');
        out_json_str(j, "name", t.name);
        out_json_int(j, "bytes", (int64_t)t.bytes);
        out_json_bool(j, "system", t.system);
        out_json_bool(j, "tools", t.tools);
        out_json_str(j, "reasoning", t.think);
        out_json_str(j, "error", t.error.code ? t.error.msg : NULL);
        out_json_close(j, '}');
    }
    out_json_close(j, ']');
    out_json_str(j, "answer_format", inspect_answer_format(m, format));
}

static void kinds(out_json *j, ffai_model *m) {
    ffai_weight_kind k;
    out_json_open(j, "weights", '[');
    for (size_t i = 0; ffai_model_kind_at(m, i, &k); i++) {
        out_json_open(j, NULL, '{');
        out_json_str(j, "format", k.format);
        out_json_int(j, "matrices", k.n_matrix);
        out_json_int(j, "parameters", k.n_param);
        out_json_int(j, "bytes", k.bytes);
        out_json_close(j, '}');
    }
    out_json_close(j, ']');
}

static void plan_members(out_json *j, const ffai_plan *p) {
    out_json_int(j, "n_ctx", p->n_ctx);
    out_json_int(j, "n_chunk", p->n_chunk);
    out_json_int(j, "weight_bytes", p->weight_bytes);
    out_json_int(j, "cache_bytes", p->cache_bytes);
    out_json_int(j, "cache_bytes_per_token", p->cache_bytes_per_token);
    out_json_int(j, "arena_bytes", p->arena_bytes);
    out_json_int(j, "total_bytes", p->total_bytes);
    out_json_int(j, "operations", p->n_record);
    out_json_num(j, "decode_bytes", p->decode_bytes);
    out_json_num(j, "decode_flops", p->decode_flops);
    out_json_num(j, "prefill_bytes", p->prefill_bytes);
    out_json_num(j, "prefill_flops", p->prefill_flops);
}

static void memory(out_json *j, const cli_opts *o, ffai_model *m) {
    ffai_plan plan[INSPECT_PLANS];
    ffai_error err;
    int n = inspect_plans(o, m, plan, &err);
    out_json_open(j, "memory", '[');
    for (int i = 0; i < n; i++) {
        out_json_open(j, NULL, '{');
        plan_members(j, &plan[i]);
        out_json_close(j, '}');
    }
    out_json_close(j, ']');
}

static void summary(out_json *j, ffai_model *m) {
    ffai_model_info in;
    ffai_error err;
    char tok[400];
    ffai_model_get_info(m, &in);
    out_json_str(j, "path", in.path);
    out_json_str(j, "family", in.family);
    out_json_str(j, "model_type", in.model_type);
    out_json_str(j, "architecture", in.arch);
    out_json_str(j, "container", in.container);
    out_json_str(j, "format", in.format);
    out_json_int(j, "parameters", in.n_param);
    out_json_int(j, "active_parameters", in.n_active);
    out_json_int(j, "weight_bytes", in.weight_bytes);
    out_json_num(j, "bits_per_weight", in.n_param ? 8.0 * (double)in.weight_bytes / (double)in.n_param : 0);
    kinds(j, m);
    out_json_int(j, "n_layer", in.n_layer);
    out_json_int(j, "dim", in.dim);
    out_json_int(j, "n_head", in.n_head);
    out_json_int(j, "n_kv_head", in.n_kv_head);
    out_json_int(j, "head_dim", in.head_dim);
    out_json_int(j, "ff_dim", in.ff_dim);
    out_json_int(j, "vocab", in.vocab);
    out_json_int(j, "n_expert", in.n_expert);
    out_json_int(j, "n_expert_used", in.n_expert_used);
    out_json_int(j, "expert_dim", in.expert_dim);
    out_json_int(j, "max_ctx", in.max_ctx);
    out_json_int(j, "diffusion_block", in.block);
    out_json_bool(j, "tied", in.tied);
    out_json_str(j, "tokenizer", ffai_tokenizer_text(m, tok, sizeof tok, &err) == 0 ? tok : NULL);
    templates(j, m);
    out_json_raw(j, "config", ffai_model_config_text(m));
    out_json_int(j, "n_file", inspect_files(m));
    out_json_int(j, "n_tensor", in.n_tensor);
    out_json_int(j, "n_unused", in.n_unused);
}

static void tensors(out_json *j, ffai_model *m) {
    ffai_tensor_info t;
    out_json_open(j, "tensors", '[');
    for (size_t i = 0; ffai_model_tensor_at(m, i, &t); i++) {
        out_json_open(j, NULL, '{');
        bool indent = j->indent;
        j->indent = false; /* one tensor a line */
        out_json_str(j, "name", t.name);
        out_json_str(j, "dtype", t.dtype);
        out_json_open(j, "shape", '[');
        for (int k = 0; k < t.n_dim; k++) out_json_int(j, NULL, t.dim[k]);
        out_json_close(j, ']');
        out_json_int(j, "bytes", t.bytes);
        out_json_str(j, "format", t.format);
        out_json_bool(j, "used", t.used);
        out_json_str(j, "file", t.file);
        out_json_close(j, '}');
        j->indent = indent;
    }
    out_json_close(j, ']');
}

int inspect_json(const cli_opts *o, ffai_model *m) {
    ffai_error err;
    ffai_plan plan;
    ffai_engine_opts eo = session_engine_opts(o);
    bool with_plan = cli_has(o, OPT_PLAN);
    out_json j;
    if (with_plan && ffai_engine_plan(m, &eo, &plan, &err)) return cli_fail(o, "%s", err.msg);
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '{');
    summary(&j, m);
    memory(&j, o, m);
    if (with_plan) {
        out_json_open(&j, "plan", '{');
        plan_members(&j, &plan);
        out_json_close(&j, '}');
    }
    tensors(&j, m);
    out_json_close(&j, '}');
    return 0;
}
