/* Any bytes as a session file, its checksums and the model's hash put right so that the checks behind them are reached:
 * refused with a message or loaded, and then the engine goes on from it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/smap.h"
#include "ffai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 96, BLOCK = 1 << 18, MAX_SIZE = 1 << 20 };

static const char config[] =
    "{\"model_type\": \"gemma3_text\", \"hidden_size\": 32, \"intermediate_size\": 32, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 16, \"vocab_size\": 64, "
    "\"max_position_embeddings\": 512, \"sliding_window\": 8, \"sliding_window_pattern\": 2}";

static ffai_model *model;
static ffai_engine *engine;
static char path[64];
static int fd;
static uint8_t model_hash[8];

static void check(int rc, const ffai_error *err) {
    if (!rc) return;
    fprintf(stderr, "%s\n", err->msg);
    abort();
}

static void run(const int32_t *ids, size_t n, bool save) {
    ffai_error err;
    ffai_request *r = NULL;
    ffai_request_opts o = {.ids = ids, .n_ids = n, .max_new = 3, .ignore_eos = true};
    if (ffai_submit(engine, &o, &r, &err)) return; /* no room behind it */
    while (ffai_engine_step(engine, &err) > 0) {
    }
    if (save) check(ffai_session_save(r, path, &err), &err);
    ffai_request_free(r);
}

/* A model of random weights, and the hash that its sessions have. */
static void set_up(void) {
    char dir[] = "/tmp/ffai-fuzz-XXXXXX", file[64];
    ffai_error err;
    const int32_t ids[3] = {1, 2, 3};
    if (!mkdtemp(dir)) abort();
    snprintf(file, sizeof file, "%s/config.json", dir);
    FILE *f = fopen(file, "wb");
    if (!f || fputs(config, f) < 0 || fclose(f)) abort();
    ffai_model_opts mo = {.synthetic = "f32"};
    check(ffai_model_open(&model, dir, &mo, &err), &err);
    ffai_engine_opts eo = {.n_ctx = 200, .n_chunk = 16, .n_thread = 1, .n_slot = 2, .precision = "exact"};
    check(ffai_engine_create(&engine, model, &eo, &err), &err);
    snprintf(path, sizeof path, "%s/session", dir);
    run(ids, 3, true);
    f = fopen(path, "rb");
    if (!f || fseek(f, 16, SEEK_SET) || fread(model_hash, 8, 1, f) != 1 || fclose(f)) abort();
    unlink(path);
    unlink(file);
    rmdir(dir);
    fd = memfd_create("session", MFD_CLOEXEC);
    if (fd < 0) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
}

static void put(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static void seal(uint8_t *p, size_t size) {
    uint64_t h[2] = {0, 0};
    for (size_t at = HEAD; at < size; at += BLOCK) {
        h[1] = fa_hash(p + at, size - at < BLOCK ? size - at : BLOCK);
        h[0] = fa_hash(h, sizeof h);
    }
    memcpy(p + 16, model_hash, 8);
    put(p + 24, h[0]);
    put(p + 88, fa_hash(p, 88));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ffai_error err;
    int32_t *ids;
    size_t n;
    if (!engine) set_up();
    if (size > MAX_SIZE) return 0;
    uint8_t *copy = (uint8_t *)malloc(size + 1);
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    if (size >= HEAD) seal(copy, size);
    if (ftruncate(fd, 0) || pwrite(fd, copy, size, 0) != (ssize_t)size) abort();
    free(copy);
    int rc = ffai_session_load(engine, path, &ids, &n, &err);
    if (rc && (strchr(err.msg, '\n') || !err.msg[0] || ids || n)) abort();
    if (!rc && (n < 1 || n > 200)) abort();
    if (!rc) run(ids, n, false);
    ffai_free(ids);
    return 0;
}
