/* Terminal state of the program. The only globals of the program are here: what the command line said about talking,
 * and the Ctrl-C flag. */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include "cli/term.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static bool g_quiet, g_verbose;
static volatile sig_atomic_t g_interrupted, g_terminated, g_interrupt_once;

void term_init(bool quiet, bool verbose) {
    g_quiet = quiet;
    g_verbose = verbose;
}

bool term_is_quiet(void) { return g_quiet; }

const char *term_sgr(FILE *to, term_style style) {
    static const char *const code[] = {"\033[0m", "\033[1m", "\033[2m", "\033[4m", "\033[31m"};
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    if ((no && *no) || !isatty(fileno(to)) || !term || !strcmp(term, "dumb")) return "";
    return code[style];
}

int term_width(FILE *to) {
    struct winsize w;
    if (isatty(fileno(to)) && ioctl(fileno(to), TIOCGWINSZ, &w) == 0 && w.ws_col >= 40)
        return w.ws_col > 120 ? 120 : w.ws_col;
    return 100;
}

static void note(const char *fmt, va_list ap) {
    fflush(stdout);
    fputs("ffai: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void term_note(const char *fmt, ...) {
    if (g_quiet) return;
    va_list ap;
    va_start(ap, fmt);
    note(fmt, ap);
    va_end(ap);
}

void term_detail(const char *fmt, ...) {
    if (g_quiet || !g_verbose) return;
    va_list ap;
    va_start(ap, fmt);
    note(fmt, ap);
    va_end(ap);
}

/* Programs that pass signals on (timeout, container runtimes) send one to a process and again to its group, so that it
 * comes twice at once. Only one that comes later than this is a second wish. */
#define TERM_SAME_WISH_NS ((int64_t)250 * 1000 * 1000)

static void on_interrupt(int sig) {
    static _Atomic int64_t first[2]; /* ns, 0: none came yet; of SIGINT, SIGTERM */
    struct timespec now;
    int64_t none = 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    bool again = !atomic_compare_exchange_strong(&first[sig == SIGTERM], &none, ns) && ns - none > TERM_SAME_WISH_NS;
    if (again && (g_interrupt_once || sig == SIGTERM)) { /* the default action, once this handler has returned */
        signal(sig, SIG_DFL);
        raise(sig);
    }
    g_interrupted = 1;
    if (sig == SIGTERM) g_terminated = 1;
}

void term_catch_interrupt(bool once) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    g_interrupt_once = once;
    a.sa_handler = on_interrupt;
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL); /* no SA_RESTART, so a blocked read of the prompt ends too */
    sigaction(SIGTERM, &a, NULL);
}

/* ---- a mapped file that lost its pages ---- */

/* The end of one line of /proc/self/maps, "from-to flags offset device inode   path", when the address lies in it. */
static const char *path_of_line(const char *line, uintptr_t address) {
    uintptr_t bound[2] = {0, 0};
    for (int i = 0; i < 2; i++, line++)
        for (; *line && *line != '-' && *line != ' '; line++)
            bound[i] = bound[i] << 4 | (uintptr_t)(*line <= '9' ? *line - '0' : *line - 'a' + 10);
    return address >= bound[0] && address < bound[1] ? strchr(line, '/') : NULL;
}

/* The file that is mapped at an address, "" when that cannot be known. Only calls that a signal handler may make. */
static void mapped_file(uintptr_t address, char *name, size_t size) {
    static char chunk[4096], line[1024];
    size_t n = 0;
    ssize_t got;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    name[0] = 0;
    while (fd >= 0 && !name[0] && (got = read(fd, chunk, sizeof chunk)) > 0) {
        for (ssize_t k = 0; k < got && !name[0]; k++) {
            if (chunk[k] != '\n') {
                if (n + 1 < sizeof line) line[n++] = chunk[k];
                continue;
            }
            line[n] = 0;
            n = 0;
            const char *path = path_of_line(line, address);
            if (path && strlen(path) < size) strcpy(name, path);
        }
    }
    if (fd >= 0) close(fd);
}

/* Reads behind the new end of a mapped file that became shorter raise SIGBUS. Nothing can be saved; the message says
 * why the program ends. Several threads may fault at once: one speaks, the others wait for the end. */
static void on_lost_page(int sig, siginfo_t *info, void *context) {
    static const char what[] = " became shorter while it was in use, or cannot be read\n";
    static char text[1200] = "ffai: ";
    static atomic_flag spoken = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&spoken)) pause();
    mapped_file((uintptr_t)info->si_addr, text + 6, 1024);
    if (!text[6]) strcpy(text + 6, "a mapped file");
    strcat(text, what);
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)sig, (void)n, (void)context;
    _exit(1);
}

void term_catch_lost_page(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_lost_page;
    a.sa_flags = SA_SIGINFO;
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}

bool term_terminated(void) { return g_terminated != 0; }

bool term_interrupted(void) { return g_interrupted != 0; }

bool term_clear_interrupt(void) {
    bool was = g_interrupted != 0;
    g_interrupted = 0;
    return was;
}
