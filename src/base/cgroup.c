/* How much processor time the cgroups of this process allow: cpu.max (v2) and cpu.cfs_quota_us over cpu.cfs_period_us
 * (v1) of its own group and of all above it, as far as they are mounted here. Kernel: admin-guide/cgroup-v2.rst,
 * scheduler/sched-bwc.rst; mountinfo: filesystems/proc.rst. */
#define _GNU_SOURCE
#include "base/cpus.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_CAP = 2048, LINE_CAP = 8192 };

typedef struct group {
    bool v2;
    char path[PATH_CAP]; /* of the process's group in its hierarchy, "/a/b" */
    char root[PATH_CAP]; /* the group that is mounted ... */
    char at[PATH_CAP];   /* ... here */
} group;

static FILE *open_text(const char *root, const char *path) {
    char full[PATH_CAP];
    return (size_t)snprintf(full, sizeof full, "%s%s", root, path) < sizeof full ? fopen(full, "re") : NULL;
}

/* The next line without its end; lines that are longer than cap are passed over. */
static bool next_line(FILE *f, char *line, size_t cap) {
    while (fgets(line, (int)cap, f)) {
        size_t n = strlen(line);
        if (n && line[n - 1] == '\n') {
            line[n - 1] = 0;
            return true;
        }
        if (n + 1 < cap) return n > 0; /* the last line, without an end */
        for (int c = 0; c != '\n' && c != EOF;) c = getc(f);
    }
    return false;
}

/* Whether a comma-separated list holds the word. */
static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, word, n) && (p[n] == ',' || !p[n])) return true;
    return false;
}

/* /proc/self/cgroup: "0::/path" (v2), "N:cpu,cpuacct:/path" (v1). */
static bool find_path(const char *root, group *g) {
    char line[LINE_CAP];
    FILE *f = open_text(root, "/proc/self/cgroup");
    bool found = false;
    while (f && !found && next_line(f, line, sizeof line)) {
        char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
        if (!path || path[1] != '/' || strlen(path + 1) >= sizeof g->path) continue;
        *path = 0;
        if (g->v2 ? strcmp(line, "0:") || list[1] : !has_word(list + 1, "cpu")) continue;
        memcpy(g->path, path + 1, strlen(path + 1) + 1);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

/* Blanks and the like stand as \ooo in mountinfo. */
static bool unescape(char *out, size_t cap, const char *s) {
    size_t n = 0;
    for (; *s; s++) {
        char c = *s;
        if (c == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
            c = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        }
        if (n + 1 >= cap) return false;
        out[n++] = c;
    }
    out[n] = 0;
    return true;
}

/* /proc/self/mountinfo: "id parent dev root mountpoint options [tags] - type source options". */
static bool find_mount(const char *root, group *g) {
    char line[LINE_CAP];
    FILE *f = open_text(root, "/proc/self/mountinfo");
    bool found = false;
    while (f && !found && next_line(f, line, sizeof line)) {
        char *field[5] = {0}, *rest = strstr(line, " - "), *save = NULL;
        if (!rest) continue;
        *rest = 0;
        int n = 0;
        for (char *p = strtok_r(line, " ", &save); p && n < 5; p = strtok_r(NULL, " ", &save)) field[n++] = p;
        char *type = strtok_r(rest + 3, " ", &save);
        char *source = type ? strtok_r(NULL, " ", &save) : NULL, *options = source ? strtok_r(NULL, " ", &save) : NULL;
        if (n < 5 || !options || strcmp(type, g->v2 ? "cgroup2" : "cgroup")) continue;
        if (!g->v2 && !has_word(options, "cpu")) continue;
        found = unescape(g->root, sizeof g->root, field[3]) && unescape(g->at, sizeof g->at, field[4]);
    }
    if (f) fclose(f);
    return found;
}

static double ratio(double quota, double period) {
    return isfinite(quota) && isfinite(period) && quota > 0 && period > 0 ? quota / period : 0;
}

/* The limit that one group has of its own, 0: none. */
static double own_quota(const char *root, bool v2, const char *dir) {
    char path[PATH_CAP + 64], text[64], period[64];
    if (v2) {
        char *end, *rest;
        snprintf(path, sizeof path, "%s/cpu.max", dir);
        if (!fa_cpus_text(root, path, text, sizeof text)) return 0;
        double q = strtod(text, &end), p = strtod(end, &rest);
        return end == text || rest == end ? 0 : ratio(q, p); /* "max 100000" is no number */
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!fa_cpus_text(root, path, text, sizeof text)) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (!fa_cpus_text(root, path, period, sizeof period)) return 0;
    return ratio(strtod(text, NULL), strtod(period, NULL));
}

/* The group's folder: what its path has behind the mounted group. A path that does not lie under it (a container whose
 * mount shows its own group as the top) means the top. */
static void folder_of(const group *g, char *dir, size_t cap) {
    size_t n = strlen(g->root);
    const char *below = "";
    if (!strcmp(g->root, "/"))
        below = g->path;
    else if (!strncmp(g->path, g->root, n) && (g->path[n] == '/' || !g->path[n]))
        below = g->path + n;
    if (strstr(below, "/..") || (size_t)snprintf(dir, cap, "%s%s", g->at, below) >= cap)
        snprintf(dir, cap, "%s", g->at);
    for (n = strlen(dir); n > strlen(g->at) && dir[n - 1] == '/';) dir[--n] = 0;
}

static double quota_of(const char *root, bool v2) {
    group g = {.v2 = v2};
    char dir[PATH_CAP];
    double least = 0;
    if (!find_path(root, &g) || !find_mount(root, &g)) return 0;
    folder_of(&g, dir, sizeof dir);
    for (;;) {
        double q = own_quota(root, v2, dir);
        if (q > 0 && (least == 0 || q < least)) least = q;
        char *up = strlen(dir) > strlen(g.at) ? strrchr(dir, '/') : NULL;
        if (!up) return least;
        *up = 0;
    }
}

double fa_cgroup_quota(const char *root) {
    double a = quota_of(root, true), b = quota_of(root, false);
    return a > 0 && (b == 0 || a < b) ? a : b;
}
