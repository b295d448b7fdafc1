/* Lines through libedit on a terminal, through getline elsewhere: pipes, files, and terminals that cannot move the
 * cursor (TERM=dumb), where a person gets a prompt but no editing. */
#define _GNU_SOURCE /* ppoll */
#include "cli/line.h"
#include "cli/term.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_LINES = 1000 };

struct line_reader {
    EditLine *el; /* NULL: nothing can be edited */
    bool person;  /* standard input is a terminal */
    History *hist;
    char *history; /* file */
    char *plain;   /* getline's buffer */
    size_t cap;
    char *message; /* what line_read gave out */
    bool more;     /* the prompt asks for the rest of a message */
};

static char *prompt_text(EditLine *el) {
    static char first[] = "> ", more[] = "… ";
    line_reader *r = NULL;
    el_get(el, EL_CLIENTDATA, &r);
    return r && r->more ? more : first;
}

/* libedit reads characters of the locale: anything but UTF-8 would cut them into bytes. */
static void use_utf8(void) {
    setlocale(LC_CTYPE, "");
    if (strcasecmp(nl_langinfo(CODESET), "UTF-8")) setlocale(LC_CTYPE, "C.UTF-8");
}

/* Waits until standard input, a terminal, can be read without waiting. False: Ctrl-C came first, at whatever moment:
 * the signal is let in only where it ends the wait. */
static bool wait_input(void) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t ours, before;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    while (!term_interrupted() && ppoll(&p, 1, NULL, &before) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !term_interrupted();
}

/* libedit's next character, in place of its own function, which would miss a Ctrl-C just before its read. Bytes that
 * are no UTF-8 are left out. */
static int read_char(EditLine *el, wchar_t *out) {
    char buf[8];
    (void)el;
    for (size_t n = 0;;) {
        if (!wait_input()) {
            errno = EINTR;
            return -1;
        }
        ssize_t got = read(STDIN_FILENO, buf + n, 1);
        if (got <= 0) return (int)got;
        mbstate_t state = {0};
        size_t len = mbrtowc(out, buf, ++n, &state);
        if (len <= n) return 1;
        if (len == (size_t)-1 || n == sizeof buf) n = 0;
    }
}

line_reader *line_open(const char *path) {
    line_reader *r = (line_reader *)calloc(1, sizeof *r);
    HistEvent ev;
    const char *term = getenv("TERM");
    if (!r || !isatty(STDIN_FILENO)) return r;
    r->person = true;
    if (term && !strcmp(term, "dumb")) return r;
    use_utf8();
    r->el = el_init("ffai", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    r->hist = history_init();
    if (!r->el || !r->hist) {
        line_close(r);
        return NULL;
    }
    el_set(r->el, EL_CLIENTDATA, r);
    el_set(r->el, EL_PROMPT, prompt_text);
    el_set(r->el, EL_EDITOR, "emacs");
    el_set(r->el, EL_GETCFN, read_char);
    el_set(r->el, EL_SIGNAL, 0); /* Ctrl-C is the program's business */
    el_set(r->el, EL_HIST, history, r->hist);
    el_source(r->el, NULL);
    history(r->hist, &ev, H_SETSIZE, HISTORY_LINES);
    history(r->hist, &ev, H_SETUNIQUE, 1);
    if (path && (r->history = strdup(path))) history(r->hist, &ev, H_LOAD, path);
    return r;
}

bool line_is_terminal(const line_reader *r) { return r->person; }

void line_close(line_reader *r) {
    HistEvent ev;
    if (!r) return;
    if (r->history) {
        mode_t old = umask(077); /* what people type is theirs */
        history(r->hist, &ev, H_SAVE, r->history);
        umask(old);
    }
    if (r->el) el_end(r->el);
    if (r->hist) history_end(r->hist);
    free(r->history);
    free(r->plain);
    free(r->message);
    free(r);
}

/* The next line without its end. */
static line_result raw_line(line_reader *r, const char **line, size_t *len) {
    if (r->el) {
        int n = 0;
        errno = 0;
        el_set(r->el, EL_PREP_TERM, 1); /* before the prompt is seen: Ctrl-D means the same from then on */
        const char *s = el_gets(r->el, &n);
        if (term_clear_interrupt()) return LINE_INTERRUPTED;
        if (!s || n <= 0) return LINE_END;
        *line = s;
        *len = (size_t)n;
    } else {
        if (r->person) {
            FILE *to = isatty(STDOUT_FILENO) ? stdout : stderr;
            fputs(r->more ? ".. " : "> ", to);
            fflush(to);
            if (!wait_input() && term_clear_interrupt()) return LINE_INTERRUPTED;
        }
        ssize_t n = getline(&r->plain, &r->cap, stdin);
        if (n < 0) return term_interrupted() ? LINE_INTERRUPTED : LINE_END;
        *line = r->plain;
        *len = (size_t)n;
    }
    while (*len && ((*line)[*len - 1] == '\n' || (*line)[*len - 1] == '\r')) --*len;
    return LINE_TEXT;
}

static bool is_fence(const char *s, size_t n) { return n >= 3 && !memcmp(s, "\"\"\"", 3); }

/* Collects lines into f until the message is whole. */
static line_result collect(line_reader *r, FILE *f) {
    const char *s;
    size_t n;
    bool fenced = false;
    r->more = false;
    for (;; r->more = true) {
        line_result got = raw_line(r, &s, &n);
        if (got == LINE_END && r->more) return LINE_TEXT; /* the input ends inside a message */
        if (got != LINE_TEXT) return got;
        if (!r->more && is_fence(s, n)) {
            fenced = true;
            s += 3;
            n -= 3;
            if (!n) continue; /* the text begins on the next line */
        }
        if (fenced) {
            bool last = n >= 3 && is_fence(s + n - 3, 3);
            fwrite(s, 1, last ? n - 3 : n, f);
            if (last) return LINE_TEXT;
            fputc('\n', f);
        } else if (n && s[n - 1] == '\\') {
            fwrite(s, 1, n - 1, f);
            fputc('\n', f);
        } else {
            fwrite(s, 1, n, f);
            return LINE_TEXT;
        }
    }
}

line_result line_read(line_reader *r, const char **text) {
    size_t size;
    HistEvent ev;
    free(r->message);
    r->message = NULL;
    *text = "";
    FILE *f = open_memstream(&r->message, &size);
    if (!f) return LINE_END;
    line_result got = collect(r, f);
    if (fclose(f) != 0) return LINE_END;
    *text = r->message;
    if (got == LINE_TEXT && r->el && *r->message) history(r->hist, &ev, H_ENTER, r->message);
    return got;
}

/* ---- where the history is ---- */

static bool make_folder(const char *path) { return mkdir(path, 0700) == 0 || errno == EEXIST; }

char *line_history_path(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if ((!state || *state != '/') && (!home || *home != '/')) return NULL;
    size_t cap = strlen(state && *state == '/' ? state : home) + 64;
    char *path = (char *)malloc(cap);
    if (!path) return NULL;
    bool ok = true;
    if (state && *state == '/') {
        snprintf(path, cap, "%s", state);
        ok = make_folder(path);
    } else {
        snprintf(path, cap, "%s/.local", home);
        ok = make_folder(path);
        strcat(path, "/state");
        ok = ok && make_folder(path);
    }
    strcat(path, "/ffai");
    ok = ok && make_folder(path);
    strcat(path, "/chat_history");
    if (ok) return path;
    free(path);
    return NULL;
}
