/* Runs a program on a pseudo-terminal and plays a script on it, as a person would sit there. The script comes on
 * standard input, one step a line: send TEXT      types TEXT (\n \t \e \\ and \xHH are read as in C) expect TEXT waits
 * until TEXT appears in what came since the last step found its text absent TEXT    fails when TEXT is in what came
 * since then size ROWS COLS resizes the terminal end            waits until the program has ended Exit status: that of
 * the program, or 99 when a step failed; then everything that the terminal showed is printed. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 99, SECONDS = 60 };

typedef struct term {
    int fd;
    pid_t pid;
    char *all; /* everything shown, NUL-terminated */
    size_t n, cap, seen;
    int ended;
} term;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Takes what the program wrote within `ms`. */
static void take(term *t, int ms) {
    struct pollfd p = {.fd = t->fd, .events = POLLIN};
    if (t->ended || poll(&p, 1, ms) <= 0) return;
    if (t->n + 4097 > t->cap) {
        char *more = (char *)realloc(t->all, t->cap = 2 * t->cap + 8192);
        if (!more) exit(FAILED);
        t->all = more;
    }
    ssize_t got = read(t->fd, t->all + t->n, 4096);
    if (got <= 0)
        t->ended = 1; /* EIO: the other side is closed */
    else
        t->n += (size_t)got;
    t->all[t->n] = 0;
}

static int fail(const term *t, const char *what, const char *arg) {
    fprintf(stderr, "pty: %s \"%s\" failed; the terminal showed:\n", what, arg);
    for (size_t i = 0; i < t->n; i++) {
        unsigned char c = (unsigned char)t->all[i];
        if (c == 27 || (c < 32 && c != '\n' && c != '\r') || c == 127)
            fprintf(stderr, "\\x%02x", c);
        else if (c != '\r')
            fputc(c, stderr);
    }
    fputs("\n", stderr);
    return FAILED;
}

/* NUL bytes would end the search: the programs under test write none. */
static int expect(term *t, const char *text) {
    for (double end = now() + SECONDS; now() < end;) {
        char *at = t->all ? strstr(t->all + t->seen, text) : NULL;
        if (at) {
            t->seen = (size_t)(at - t->all) + strlen(text);
            return 0;
        }
        if (t->ended) break;
        take(t, 100);
    }
    return fail(t, "expect", text);
}

static int by_key(term *t) {
    struct termios mode;
    for (double end = now() + SECONDS; now() < end && !t->ended; take(t, 5))
        if (tcgetattr(t->fd, &mode) == 0 && !(mode.c_lflag & ICANON)) return 0;
    return fail(t, "prompt", "key by key");
}

static size_t unescape(char *s) {
    char *out = s, *begin = s;
    for (; *s; s++) {
        if (*s != '\\' || !s[1]) {
            *out++ = *s;
            continue;
        }
        s++;
        if (*s == 'x') {
            char hex[3] = {s[1], s[1] ? s[2] : 0, 0};
            *out++ = (char)strtol(hex, NULL, 16);
            s += strlen(hex);
        } else {
            *out++ = (char)(*s == 'n' ? '\n' : *s == 't' ? '\t' : *s == 'e' ? 27 : *s);
        }
    }
    *out = 0;
    return (size_t)(out - begin);
}

static int step(term *t, char *line) {
    char *arg = strchr(line, ' ');
    size_t n = 0;
    if (arg) {
        *arg++ = 0;
        n = unescape(arg);
    }
    if (!strcmp(line, "send")) return write(t->fd, arg, n) == (ssize_t)n ? 0 : fail(t, "send", arg);
    if (!strcmp(line, "expect")) return expect(t, arg);
    if (!strcmp(line, "prompt")) return expect(t, arg) || by_key(t) ? FAILED : 0;
    if (!strcmp(line, "absent")) return t->all && strstr(t->all + t->seen, arg) ? fail(t, "absent", arg) : 0;
    if (!strcmp(line, "signal")) return kill(t->pid, atoi(arg)) == 0 ? 0 : fail(t, "signal", arg);
    if (!strcmp(line, "size")) {
        struct winsize w = {0};
        if (sscanf(arg, "%hu %hu", &w.ws_row, &w.ws_col) != 2) return fail(t, "size", arg);
        return ioctl(t->fd, TIOCSWINSZ, &w) == 0 ? 0 : fail(t, "size", arg);
    }
    if (!strcmp(line, "end")) {
        for (double end = now() + SECONDS; now() < end && !t->ended;) take(t, 100);
        return t->ended ? 0 : fail(t, "end", "");
    }
    return fail(t, "unknown step", line);
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: pty_tool PROGRAM [ARGUMENT...] < SCRIPT\n"), 2;
    term t = {0};
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    pid_t pid = t.pid = forkpty(&t.fd, NULL, NULL, &size);
    if (pid < 0) return perror("forkpty"), FAILED;
    if (pid == 0) {
        execv(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    char *line = NULL;
    size_t cap = 0;
    int rc = 0, status = 0;
    for (ssize_t n; !rc && (n = getline(&line, &cap, stdin)) > 0;) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        if (*line && *line != '#') rc = step(&t, line);
    }
    if (rc) kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    free(line);
    free(t.all);
    close(t.fd);
    if (rc) return rc;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
