/* Terminal state of the program. The only globals of the program are here: what the command line said about talking,
 * and the Ctrl-C flag. */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include "cli/term.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool g_quiet, g_verbose;
static volatile sig_atomic_t g_interrupted, g_terminated;

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

static void on_interrupt(int sig) {
    g_interrupted = 1;
    if (sig == SIGTERM) g_terminated = 1;
}

void term_catch_interrupt(bool once) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_interrupt;
    sigemptyset(&a.sa_mask);
    if (once) a.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &a, NULL); /* no SA_RESTART, so a blocked read of the prompt ends too */
    a.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGTERM, &a, NULL);
}

/* A model file that becomes shorter while it is mapped: reads behind its new end raise SIGBUS. Nothing can be saved;
 * the message says why the program ends. Several threads may fault at once: one speaks, the others wait for the end. */
static void on_lost_page(int sig) {
    static const char text[] = "ffai: a model file became shorter while it was in use\n";
    static atomic_flag spoken = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&spoken)) pause();
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)sig, (void)n;
    _exit(1);
}

void term_catch_lost_page(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_lost_page;
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
