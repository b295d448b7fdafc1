/* The environment of the hub, and its progress. The token is read here and goes into the options and nowhere else. */
#define _POSIX_C_SOURCE 200809L
#include "cli/hub.h"
#include "cli/out.h"
#include "cli/term.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- environment ---- */

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static const char *env2(const char *name, const char *other) { return env(name) ? env(name) : env(other); }

static bool env_true(const char *name) {
    static const char *const yes[] = {"1", "ON", "YES", "TRUE"};
    const char *v = env(name);
    for (size_t i = 0; v && i < 4; i++)
        if (!strcasecmp(v, yes[i])) return true;
    return false;
}

/* a/b, with ~ for the home folder; NULL: out of memory */
static char *join(const char *a, const char *b) {
    const char *home = a[0] == '~' && (!a[1] || a[1] == '/') ? env("HOME") : NULL;
    if (home) a++;
    size_t n = (home ? strlen(home) : 0) + strlen(a) + strlen(b) + 2;
    char *p = (char *)malloc(n);
    if (p) snprintf(p, n, "%s%s%s%s", home ? home : "", a, *b ? "/" : "", b);
    return p;
}

static char *hf_home(void) {
    if (env("HF_HOME")) return join(env("HF_HOME"), "");
    if (env("XDG_CACHE_HOME")) return join(env("XDG_CACHE_HOME"), "huggingface");
    return join("~/.cache", "huggingface");
}

/* The first line of the token file, without blanks. */
static char *read_token(const char *path) {
    char line[1024];
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    if (!got) return NULL;
    got += strspn(got, " \t\r\n");
    got[strcspn(got, " \t\r\n")] = 0;
    return *got ? strdup(got) : NULL;
}

/* HF_TOKEN, else the file that `hf auth login` writes. */
static bool find_token(hub_env *e, const char *home) {
    const char *given = env2("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN");
    if (env_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return true;
    if (given) {
        given += strspn(given, " \t\r\n");
        e->token = strdup(given);
        if (!e->token) return false;
        e->token[strcspn(e->token, " \t\r\n")] = 0;
        return true;
    }
    char *path = env("HF_TOKEN_PATH") ? join(env("HF_TOKEN_PATH"), "") : join(home, "token");
    if (path) e->token = read_token(path);
    free(path);
    return true;
}

static bool progress(void *user, const ffai_hub_progress *p);

int hub_env_init(hub_env *e, const cli_opts *o) {
    memset(e, 0, sizeof *e);
    e->cli = o;
    char *home = hf_home();
    const char *cache = env2("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE");
    if (home) e->cache = cache ? join(cache, "") : join(home, "hub");
    bool ok = home && e->cache && find_token(e, home);
    free(home);
    if (!ok) {
        hub_env_free(e);
        return cli_fail(o, "out of memory");
    }
    e->o.cache = e->cache;
    e->o.token = e->token;
    e->o.endpoint = env("HF_ENDPOINT");
    e->o.offline = env_true("HF_HUB_OFFLINE") || env_true("TRANSFORMERS_OFFLINE");
    e->o.https_proxy = env2("https_proxy", "HTTPS_PROXY");
    e->o.http_proxy = env("http_proxy"); /* not in capitals: a web server sets that from a request's header */
    const char *all = env2("all_proxy", "ALL_PROXY");
    if (!e->o.https_proxy) e->o.https_proxy = all;
    if (!e->o.http_proxy) e->o.http_proxy = all;
    e->o.no_proxy = env2("no_proxy", "NO_PROXY");
    e->o.ca_file = env2("CURL_CA_BUNDLE", "SSL_CERT_FILE");
    if (env("REQUESTS_CA_BUNDLE")) e->o.ca_file = env("REQUESTS_CA_BUNDLE");
    e->o.progress = progress;
    e->o.user = e;
    return 0;
}

void hub_env_free(hub_env *e) {
    free(e->cache);
    free(e->token);
    e->cache = e->token = NULL;
}

/* ---- progress ---- */

static void clear_line(hub_env *e) {
    if (e->shown) fputs("\r\033[K", stderr);
    e->shown = false;
}

static void time_left(char *buf, size_t size, double s) {
    if (!(s >= 0) || s > 360000)
        snprintf(buf, size, "-");
    else if (s < 3600)
        snprintf(buf, size, "%d:%02d", (int)s / 60, (int)s % 60);
    else
        snprintf(buf, size, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
}

/* "org/name: 3/7 files, 1.2 GiB of 4.5 GiB, 27 %, 312 MiB/s, 0:11 left" */
static bool progress(void *user, const ffai_hub_progress *p) {
    hub_env *e = (hub_env *)user;
    double now = out_now();
    bool tty = isatty(STDERR_FILENO) != 0;
    if (term_interrupted()) return false;
    if (term_is_quiet() || (!p->bytes && !p->waiting) || now - e->said < (tty ? 0.2 : 30)) return true;
    if (!e->bytes) e->had = p->bytes_done;
    e->bytes = p->bytes;
    if (!tty && e->said == 0) { /* nobody watches: only downloads that take long are told of */
        e->said = now;
        return true;
    }
    e->said = now;
    char done[16], all[16], rate[16], left[32], line[256];
    time_left(left, sizeof left, p->bytes_per_s > 0 ? (double)(p->bytes - p->bytes_done) / p->bytes_per_s : -1);
    int n = snprintf(line, sizeof line, "%s: %lld/%lld files, %s of %s, %.0f %%, ", p->repo, (long long)p->n_file_done,
                     (long long)p->n_file, out_bytes(done, (double)p->bytes_done), out_bytes(all, (double)p->bytes),
                     p->bytes ? 100.0 * (double)p->bytes_done / (double)p->bytes : 0);
    if (p->waiting)
        snprintf(line + n, sizeof line - (size_t)n, "waiting: %s", p->waiting);
    else
        snprintf(line + n, sizeof line - (size_t)n, "%s/s, %s left", out_bytes(rate, p->bytes_per_s), left);
    if (!tty) {
        term_note("%s", line);
        return true;
    }
    fprintf(stderr, "\r\033[K%.*s", term_width(stderr) - 1, line);
    e->shown = true;
    return true;
}

int hub_pull(hub_env *e, const char *id, ffai_hub_model **m) {
    ffai_error err;
    ffai_hub_model_info in;
    char size[16], rate[16];
    e->began = out_now();
    int rc = ffai_hub_pull(m, id, &e->o, &err);
    clear_line(e);
    if (rc == FFAI_ECANCEL)
        return cli_fail(e->cli, "interrupted; what has come stays in the cache, and the same command goes on there");
    if (rc) return cli_fail(e->cli, "%s", err.msg);
    ffai_hub_model_get_info(*m, &in);
    double s = out_now() - e->began;
    if (in.n_fetched && !e->o.dry_run)
        term_note("%s: fetched %lld file%s, %s in %.1f s (%s/s)", in.repo, (long long)in.n_fetched,
                  in.n_fetched == 1 ? "" : "s", out_bytes(size, (double)in.bytes_fetched), s,
                  out_bytes(rate, s > 0 ? (double)in.bytes_fetched / s : 0));
    return 0;
}

int hub_path(const cli_opts *o, const char *given, bool no_weights, char **path) {
    struct stat st;
    *path = NULL;
    if (stat(given, &st) == 0 || !ffai_hub_is_id(given)) {
        *path = strdup(given);
        return *path ? 0 : cli_fail(o, "out of memory");
    }
    hub_env e;
    ffai_hub_model *m = NULL;
    ffai_hub_model_info in;
    int rc = hub_env_init(&e, o);
    if (rc) return rc;
    e.o.no_weights = no_weights;
    rc = hub_pull(&e, given, &m);
    if (!rc) {
        ffai_hub_model_get_info(m, &in);
        *path = strdup(in.path);
        if (!*path) rc = cli_fail(o, "out of memory");
    }
    ffai_hub_model_free(m);
    hub_env_free(&e);
    return rc;
}
