/* The flags of block diffusion and self-speculation; the adapter that a checkpoint brings for drafts. */
#define _POSIX_C_SOURCE 200809L
#include "cli/diffusion.h"
#include "cli/session.h"
#include "cli/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static ffai_diffusion_mode mode_of(const cli_opts *o) {
    const char *mode = cli_str(o, OPT_DIFFUSION, "ar");
    return !strcmp(mode, "block")       ? FFAI_DIFFUSION_BLOCK
           : !strcmp(mode, "self-spec") ? FFAI_DIFFUSION_SELF_SPEC
                                        : FFAI_DIFFUSION_OFF;
}

static int check_sampler(const cli_opts *o) {
    const char *given = cli_str(o, OPT_DIFFUSION_SAMPLER, NULL), *name = given;
    for (size_t i = 0; given && (name = ffai_diffusion_sampler_at(i)) && strcmp(name, given); i++) {
    }
    if (name || !given) return 0;
    char list[300] = "";
    for (size_t i = 0, n = 0; (name = ffai_diffusion_sampler_at(i)) && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", name);
    return cli_usage(o, "--diffusion-sampler: \"%s\" is none of %s", given, list);
}

int cli_diffusion_check(const cli_opts *o) {
    static const opt_id block[] = {OPT_DIFFUSION_STEPS,   OPT_DIFFUSION_SAMPLER, OPT_CONFIDENCE,   OPT_MIN_CONFIDENCE,
                                   OPT_CONFIDENCE_FACTOR, OPT_TRANSFER,          OPT_MAX_TRANSFER, OPT_END};
    const ffai_diffusion_mode mode = mode_of(o);
    for (const opt_id *id = block; *id != OPT_END && mode != FFAI_DIFFUSION_BLOCK; id++)
        if (cli_has(o, *id)) return cli_usage(o, "--%s is for --diffusion block", cli_options[*id].name);
    if (cli_has(o, OPT_DRAFT_LORA) && mode != FFAI_DIFFUSION_SELF_SPEC)
        return cli_usage(o, "--draft-lora is for --diffusion self-spec");
    if (cli_has(o, OPT_BLOCK_LENGTH) && mode == FFAI_DIFFUSION_OFF)
        return cli_usage(o, "--block-length is for --diffusion block and self-spec");
    return check_sampler(o);
}

/* --draft-lora, else what lies in the model's folder. Text does not depend on it, only speed. */
static int load_draft(const cli_opts *o, ffai_model *m, ffai_engine *e, diffusion_flags *f) {
    const char *given = cli_str(o, OPT_DRAFT_LORA, NULL);
    char *own = NULL;
    int rc = 0;
    if (given && !strcmp(given, "none")) return 0;
    if (!given) {
        ffai_model_info in;
        struct stat st;
        ffai_model_get_info(m, &in);
        size_t size = strlen(in.path) + 32;
        if (!(own = (char *)malloc(size))) return cli_fail(o, "--diffusion: out of memory");
        snprintf(own, size, "%s/linear_spec_lora", in.path);
        if (stat(own, &st) == 0)
            given = own;
        else
            term_detail("%s: no such folder; drafts go without an adapter", own);
    }
    if (given) rc = session_adapter(o, OPT_DRAFT_LORA, given, e, &f->draft);
    free(own);
    f->d.draft = &f->draft;
    f->d.n_draft = !rc && given ? 1 : 0;
    return rc;
}

/* A number of which 0 means the default to the library, and itself here. */
static float above_zero(const cli_opts *o, opt_id id) {
    double v = cli_num(o, id, 0);
    return cli_has(o, id) && v < 1e-9 ? 1e-9f : (float)v;
}

int cli_diffusion(const cli_opts *o, ffai_model *m, ffai_engine *e, diffusion_flags *f) {
    ffai_model_info in;
    memset(f, 0, sizeof *f);
    f->d = (ffai_diffusion){.mode = mode_of(o),
                            .block = (int)cli_int(o, OPT_BLOCK_LENGTH, 0),
                            .steps = (int)cli_int(o, OPT_DIFFUSION_STEPS, 0),
                            .sampler = cli_str(o, OPT_DIFFUSION_SAMPLER, NULL),
                            .confidence = above_zero(o, OPT_CONFIDENCE),
                            .min_confidence = above_zero(o, OPT_MIN_CONFIDENCE),
                            .factor = above_zero(o, OPT_CONFIDENCE_FACTOR),
                            .n_transfer = (int)cli_int(o, OPT_TRANSFER, 0),
                            .max_transfer = (int)cli_int(o, OPT_MAX_TRANSFER, 0)};
    if (f->d.mode == FFAI_DIFFUSION_OFF) return 0;
    ffai_model_get_info(m, &in);
    if (!in.block)
        return cli_usage(o, "--diffusion %s: %s models only go from left to right", cli_str(o, OPT_DIFFUSION, ""),
                         in.family);
    return f->d.mode == FFAI_DIFFUSION_SELF_SPEC ? load_draft(o, m, e, f) : 0;
}
