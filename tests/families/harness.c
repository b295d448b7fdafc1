/* Running the program under test and reading its numpy files. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include "families/harness.h"

#include "base/alloc.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

float fx_npy_at(const fx_npy *a, long r, long c) {
    float v;
    memcpy(&v, a->data + 4 * (r * a->cols + c), 4);
    return v;
}

/* "\x93NUMPY", version, header length, then a Python dict such as {'descr': '<f4', 'fortran_order': False, 'shape':
 * (40, 311), } */
int fx_npy_open(fx_npy *a, const char *path, fa_error *err) {
    char head[256] = "";
    memset(a, 0, sizeof *a);
    int rc = fa_map_open(&a->map, path, err);
    if (rc) return rc;
    const uint8_t *p = a->map.data;
    size_t size = a->map.size, skip = size > 8 && p[6] >= 2 ? 12 : 10;
    if (size < 16 || memcmp(p, "\x93NUMPY", 6) != 0) return fa_fail(err, FFAI_EFORMAT, "%s: no numpy file", path);
    size_t len = (size_t)p[8] | (size_t)p[9] << 8;
    if (len >= sizeof head || skip + len > size) return fa_fail(err, FFAI_EFORMAT, "%s: odd numpy header", path);
    memcpy(head, p + skip, len);
    const char *shape = strstr(head, "'shape': (");
    if (!strstr(head, "'<f4'") || !strstr(head, "'fortran_order': False") || !shape ||
        sscanf(shape + 10, "%ld, %ld", &a->rows, &a->cols) != 2)
        return fa_fail(err, FFAI_EFORMAT, "%s: not a float32 matrix: %s", path, head);
    a->data = p + skip + len;
    if (a->rows <= 0 || a->cols <= 0 || (size - skip - len) / 4 != (size_t)a->rows * (size_t)a->cols)
        return fa_fail(err, FFAI_EFORMAT, "%s: size does not match its shape", path);
    return 0;
}

void fx_npy_close(fx_npy *a) { fa_map_close(&a->map); }

int fx_run(char *const argv[], const char *cpu, const char *out, const char *log, char *msg, size_t cap) {
    posix_spawn_file_actions_t fa;
    pid_t pid;
    int status = -1;
    extern char **environ;
    if (cpu)
        setenv("FFAI_CPU", cpu, 1);
    else
        unsetenv("FFAI_CPU");
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, out ? out : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_addopen(&fa, 2, log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (posix_spawn(&pid, argv[0], &fa, NULL, argv, environ) == 0) waitpid(pid, &status, 0);
    posix_spawn_file_actions_destroy(&fa);
    msg[0] = 0;
    char *text;
    size_t len;
    if (fa_read_file(&text, &len, log, 1 << 20, NULL) == 0) {
        while (len && text[len - 1] == '\n') text[--len] = 0;
        char *last = strrchr(text, '\n');
        snprintf(msg, cap, "%s", last ? last + 1 : text);
        fa_free(text);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + (WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}
