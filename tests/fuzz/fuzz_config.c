/* Any bytes as what describes a model, through its family to the shapes of all weights and the plan of an engine. The
 * first byte says what it is: 'S' config.json, a NUL, generation_config.json, for weights that are made up; 'D' the
 * same over the weights of the carried model; 'G' a GGUF file, for weights that are made up. */
#define _XOPEN_SOURCE 700
#include "ffai.h"
#include "folder.h"

static void look(ffai_model *m) {
    ffai_error err;
    ffai_plan plan;
    ffai_sampling s;
    ffai_model_info info;
    ffai_engine_opts o = {.n_thread = 1, .n_ctx = 64, .device = "cpu"};
    volatile size_t sink = 0;
    check_error(ffai_engine_plan(m, &o, &plan, &err), &err);
    ffai_sampling_default(m, &s);
    check_error(ffai_sampling_check(m, &s, &err), &err);
    ffai_model_get_info(m, &info);
    sink = sink + strlen(info.format) + strlen(info.extra) + strlen(info.ignored) + strlen(ffai_model_config_text(m));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ffai_model *m;
    ffai_error err = {0};
    char path[600], link[600];
    if (!size) return 0;
    const bool demo = data[0] == 'D', gguf = data[0] == 'G';
    ffai_model_opts o = {.synthetic = demo ? NULL : "affine4g64"};
    snprintf(link, sizeof link, "%s/model.safetensors", folder());
    unlink(link);
    if (gguf) {
        folder_put("model.gguf", data + 1, size - 1);
        snprintf(path, sizeof path, "%s/model.gguf", folder());
    } else {
        pieces p = {data + 1, data + size};
        size_t n;
        const char *s = next_piece(&p, &n);
        folder_put("config.json", s, n);
        s = next_piece(&p, &n);
        folder_put("generation_config.json", n ? s : "{}", n ? n : 2);
        snprintf(path, sizeof path, "%s", folder());
        if (demo && symlink(FFAI_SOURCE_DIR "/models/ffai-demo-6m/model.safetensors", link) != 0) abort();
    }
    int rc = ffai_model_open(&m, path, &o, &err);
    check_error(rc, &err);
    if (!rc) look(m);
    ffai_model_free(m);
    return 0;
}
