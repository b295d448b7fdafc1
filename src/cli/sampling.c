/* The sampling flags as ffai_sampling. */
#include "cli/sampling.h"
#include "cli/out.h"

int cli_sampling_check(const cli_opts *o) {
    static const opt_id heat[] = {OPT_GREEDY, OPT_TEMP, OPT_END};
    return cli_exclusive(o, heat);
}

int cli_sampling(const cli_opts *o, const ffai_model *m, ffai_sampling *s) {
    ffai_sampling_default(m, s);
    s->temp = (float)cli_num(o, OPT_TEMP, s->temp);
    s->top_k = (int)cli_int(o, OPT_TOP_K, s->top_k);
    s->top_p = (float)cli_num(o, OPT_TOP_P, s->top_p);
    s->min_p = (float)cli_num(o, OPT_MIN_P, s->min_p);
    if (cli_has(o, OPT_GREEDY)) s->temp = 0;
    /* Without --seed every run is another one. */
    s->seed = cli_has(o, OPT_SEED) ? (uint64_t)cli_int(o, OPT_SEED, 0) : (uint64_t)(out_now() * 1e9);
    return 0;
}
