/* A model hub to test against: plays the part of huggingface.co's API that downloads need, on two ports of 127.0.0.1 as
 * two hosts (the hub, and the storage that it redirects to), and misbehaves on demand.
 *
 *   hub_tool ROOT PORTS LOG [FAULT...]
 *
 * ROOT/org/name/REVISION/files are what it has; it writes "HUB STORAGE" port numbers to PORTS and a line for each
 * request to LOG, and serves until it is killed. Faults, each a word with fields between colons (N times, then no more;
 * PART is found in the address):
 * - status:CODE:N:PART answers CODE; retry:S is Retry-After of such answers
 * - cut:BYTES:N:PART ends the connection after BYTES of the body; slow:BYTES sends BYTES per second
 * - flip:N:PART sends a wrong byte; norange ignores Range
 * - token:SECRET: everything needs it; gated: the files of the repository are gated
 * - page:N sends N files a page; plainnext names the next page with http; listing:FILE sends FILE as the listing
 * - expire:N: the storage refuses N times (403); loop redirects to itself
 * - sha:TEXT names TEXT as commit
 * - tls:FILE speaks https with the certificate and key in FILE; plainstore: but the storage http */
#define _GNU_SOURCE
#include "hub/hub.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ENTRIES = 4096, LARGE = 4096 /* bytes: larger files are LFS, as are weights */ };

typedef struct entry {
    char repo[200], rev[100], name[300], path[1200], oid[65], sha[65];
    long long size;
    bool lfs;
} entry;

static entry all[MAX_ENTRIES];
static size_t n_all;
static int port[2];
static const char *root;
static FILE *log_file;
static char **fault;
static int n_fault, left[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static SSL_CTX *tls; /* NULL: http */

/* ---- faults ---- */

/* The fields of fault `name` after its first colon, or NULL. */
static const char *option(const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < n_fault; i++)
        if (!strncmp(fault[i], name, n) && (fault[i][n] == ':' || !fault[i][n]))
            return fault[i] + n + (fault[i][n] == ':');
    return NULL;
}

/* Takes one of the N times of a fault "name:[value:]N:PART" whose PART is in the address; -1: none. */
static long long strike(const char *name, bool with_value, const char *address) {
    size_t k = strlen(name);
    long long found = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_fault && found < 0; i++) {
        if (strncmp(fault[i], name, k) != 0 || fault[i][k] != ':') continue;
        char *end;
        long long value = 0, n = strtoll(fault[i] + k + 1, &end, 10);
        if (with_value) value = n, n = strtoll(end + 1, &end, 10);
        if (left[i] < 0) left[i] = (int)n;
        if (left[i] > 0 && (!*end || strstr(address, end + 1))) {
            left[i]--;
            found = value;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* ---- repositories ---- */

static void hash_file(const char *path, long long size, size_t len, char out[65]) {
    fa_hub_hash *h = fa_hub_hash_new(len, size);
    char *buf = (char *)malloc(1 << 20);
    FILE *f = fopen(path, "rb");
    for (size_t n; f && (n = fread(buf, 1, 1 << 20, f)) > 0;) fa_hub_hash_add(h, buf, n);
    if (f) fclose(f);
    free(buf);
    fa_hub_hash_hex(h, out);
    fa_hub_hash_free(h);
}

static void scan(const char *repo, const char *rev, const char *dir, const char *below) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[1200], name[300];
        struct stat st;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        snprintf(name, sizeof name, "%s%s%s", below, *below ? "/" : "", e->d_name);
        if (stat(path, &st) != 0) continue;
        if (S_ISDIR(st.st_mode)) {
            scan(repo, rev, path, name);
            continue;
        }
        entry *a = &all[n_all++];
        snprintf(a->repo, sizeof a->repo, "%s", repo);
        snprintf(a->rev, sizeof a->rev, "%s", rev);
        snprintf(a->name, sizeof a->name, "%s", name);
        snprintf(a->path, sizeof a->path, "%s", path);
        a->size = (long long)st.st_size;
        a->lfs = a->size > LARGE || fa_hub_ends(name, ".safetensors") || fa_hub_ends(name, ".gguf");
        hash_file(path, a->size, 40, a->oid);
        if (a->lfs) hash_file(path, a->size, 64, a->sha);
    }
    if (d) closedir(d);
}

static void scan_level(const char *dir, int level, char *repo, size_t used) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[1000];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (level == 2) {
            scan(repo, e->d_name, path, "");
            continue;
        }
        snprintf(repo + used, 200 - used, "%s%s", used ? "/" : "", e->d_name);
        scan_level(path, level + 1, repo, strlen(repo));
        repo[used] = 0;
    }
    if (d) closedir(d);
}

/* The commit of a revision: a hash of what is in it. */
static bool commit_of(const char *repo, const char *rev, char out[65]) {
    fa_hub_hash *h = fa_hub_hash_new(40, 0);
    unsigned char sum[20] = {0};
    bool any = false;
    for (size_t i = 0; i < n_all; i++) { /* in any order */
        if (strcmp(all[i].repo, repo) != 0 || strcmp(all[i].rev, rev) != 0) continue;
        any = true;
        for (int k = 0; k < 20; k++)
            sum[k] = (unsigned char)(sum[k] + all[i].oid[2 * k] * 3 + all[i].oid[2 * k + 1] + all[i].name[0]);
    }
    fa_hub_hash_add(h, sum, sizeof sum);
    fa_hub_hash_hex(h, out);
    fa_hub_hash_free(h);
    return any;
}

/* REVISION or its commit */
static bool find_rev(const char *repo, const char *what, char rev[100], char commit[65]) {
    for (size_t i = 0; i < n_all; i++) {
        if (strcmp(all[i].repo, repo) != 0) continue;
        commit_of(repo, all[i].rev, commit);
        snprintf(rev, 100, "%s", all[i].rev);
        if (!strcmp(what, rev) || !strcmp(what, commit)) return true;
    }
    return false;
}

/* ---- HTTP ---- */

typedef struct request {
    char method[8], target[4096], range[100], auth[200];
    int fd;
    bool storage;
} request;

static bool send_all(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static bool answer(const request *r, int status, const char *headers, const char *body) {
    char head[6000];
    int n =
        snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n", status, strlen(body), headers);
    return send_all(r->fd, head, (size_t)n) && (!strcmp(r->method, "HEAD") || send_all(r->fd, body, strlen(body)));
}

static bool send_slowly(int fd, int file, off_t at, size_t n, const char *slow) {
    long long rate = slow ? atoll(slow) : 0;
    while (n) {
        size_t step = rate ? (size_t)(rate / 20 + 1) : 8u << 20;
        ssize_t k = sendfile(fd, file, &at, n < step ? n : step);
        if (k <= 0) return false;
        n -= (size_t)k;
        if (rate) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    return true;
}

/* The file's bytes, or the range of them that was asked for. */
static bool send_file(const request *r, const entry *e, const char *headers) {
    long long from = 0, to = e->size - 1;
    bool ranged = *r->range && !option("norange") && sscanf(r->range, "bytes=%lld-%lld", &from, &to) >= 1;
    if (to >= e->size) to = e->size - 1;
    if (ranged && from > to) return answer(r, 416, "", "");
    char head[6000], range[128] = "";
    if (ranged) snprintf(range, sizeof range, "Content-Range: bytes %lld-%lld/%lld\r\n", from, to, e->size);
    size_t n = e->size ? (size_t)(to - from + 1) : 0;
    int len = snprintf(head, sizeof head, "HTTP/1.1 %d OK\r\nContent-Length: %zu\r\nAccept-Ranges: bytes\r\n%s%s\r\n",
                       ranged ? 206 : 200, n, range, headers);
    if (!send_all(r->fd, head, (size_t)len)) return false;
    if (!strcmp(r->method, "HEAD")) return true;
    long long cut = strike("cut", true, r->target);
    if (cut >= 0 && (size_t)cut < n) n = (size_t)cut;
    int file = open(e->path, O_RDONLY);
    bool ok;
    if (n && strike("flip", false, r->target) >= 0) {
        char byte;
        ok = pread(file, &byte, 1, from) == 1;
        byte ^= 1;
        ok = ok && send_all(r->fd, &byte, 1) && send_slowly(r->fd, file, from + 1, n - 1, NULL);
    } else {
        ok = send_slowly(r->fd, file, from, n, option("slow"));
    }
    close(file);
    return ok && cut < 0;
}

static bool denied(const request *r) {
    char want[200];
    if (option("token")) {
        snprintf(want, sizeof want, "Bearer %s", option("token"));
        if (strcmp(r->auth, want) != 0) {
            answer(r, 401, *r->auth ? "" : "X-Error-Code: RepoNotFound\r\n", "{\"error\":\"no\"}");
            return true;
        }
    }
    return false;
}

/* One page of the listing. */
static bool send_tree(const request *r, const char *repo, const char *rev) {
    const char *query = strchr(r->target, '?'), *from_text = query ? strstr(query, "cursor=") : NULL;
    size_t from = from_text ? (size_t)atoll(from_text + 7) : 0,
           n = option("page") ? (size_t)atoll(option("page")) : 100000;
    size_t cap = 1 << 20, len = 0, k = 0, sent = 0;
    char *body = (char *)malloc(cap), headers[600] = "Content-Type: application/json\r\n";
    if (option("listing")) {
        FILE *f = fopen(option("listing"), "rb");
        len = f ? fread(body, 1, cap - 1, f) : 0;
        if (f) fclose(f);
        body[len] = 0;
    } else {
        len += (size_t)snprintf(body, cap, "[{\"type\":\"directory\",\"oid\":\"0\",\"size\":0,\"path\":\"a folder\"}");
        for (size_t i = 0; i < n_all; i++) {
            const entry *e = &all[i];
            if (strcmp(e->repo, repo) != 0 || strcmp(e->rev, rev) != 0 || k++ < from || sent == n) continue;
            sent++;
            len += (size_t)snprintf(body + len, cap - len,
                                    ",{\"type\":\"file\",\"oid\":\"%s\",\"size\":%lld,\"path\":\"%s\"", e->oid,
                                    e->lfs ? 134 : e->size, e->name);
            if (e->lfs)
                len += (size_t)snprintf(body + len, cap - len,
                                        ",\"lfs\":{\"oid\":\"%s\",\"size\":%lld,\"pointerSize\":134}", e->sha, e->size);
            len += (size_t)snprintf(body + len, cap - len, "}");
        }
        snprintf(body + len, cap - len, "]");
        if (k > from + sent)
            snprintf(headers, sizeof headers,
                     "Link: <%s://127.0.0.1:%d%.*s?recursive=true&cursor=%zu>; rel=\"next\"\r\n",
                     tls && !option("plainnext") ? "https" : "http", port[0], (int)strcspn(r->target, "?"), r->target,
                     from + sent);
    }
    bool ok = answer(r, 200, headers, body);
    free(body);
    return ok;
}

static void unescape(char *s) {
    char *to = s;
    for (; *s; s++) {
        char hex[3] = {s[0] == '%' ? s[1] : 0, s[0] == '%' && s[1] ? s[2] : 0, 0};
        if (hex[0] && hex[1]) {
            *to++ = (char)strtol(hex, NULL, 16);
            s += 2;
        } else {
            *to++ = *s;
        }
    }
    *to = 0;
}

/* /api/models/ORG/NAME/revision/REV, .../tree/REV */
static bool serve_api(const request *r, char *path) {
    char org[100], name[100], kind[20], rev[200], repo[202], found[100], commit[65], body[600];
    if (sscanf(path, "/api/models/%99[^/]/%99[^/]/%19[^/]/%199s", org, name, kind, rev) != 4)
        return answer(r, 404, "", "");
    snprintf(repo, sizeof repo, "%s/%s", org, name);
    unescape(rev);
    bool known = false;
    for (size_t i = 0; i < n_all; i++) known |= !strcmp(all[i].repo, repo);
    if (denied(r)) return true;
    if (!known) return answer(r, 401, "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n", "{}");
    if (!find_rev(repo, rev, found, commit)) return answer(r, 404, "X-Error-Code: RevisionNotFound\r\n", "{}");
    if (!strcmp(kind, "tree")) return send_tree(r, repo, found);
    snprintf(body, sizeof body,
             "{\"_id\":\"1\",\"id\":\"%s\",\"modelId\":\"%s\",\"sha\":\"%s\",\"private\":false,\"siblings\":[]}", repo,
             repo, option("sha") ? option("sha") : commit);
    return answer(r, 200, "Content-Type: application/json\r\n", body);
}

/* /ORG/NAME/resolve/REV/PATH */
static bool serve_file(const request *r, char *path) {
    char org[100], name[100], rev[200], file[600], repo[202], found[100], commit[65], headers[2000];
    if (sscanf(path, "/%99[^/]/%99[^/]/resolve/%199[^/]/%599s", org, name, rev, file) != 4)
        return answer(r, 404, "", "");
    snprintf(repo, sizeof repo, "%s/%s", org, name);
    unescape(file);
    unescape(rev);
    if (denied(r)) return true;
    if (option("gated")) return answer(r, *r->auth ? 403 : 401, "X-Error-Code: GatedRepo\r\n", "");
    if (!find_rev(repo, rev, found, commit)) return answer(r, 404, "X-Error-Code: RevisionNotFound\r\n", "");
    for (size_t i = 0; i < n_all; i++) {
        const entry *e = &all[i];
        if (strcmp(e->repo, repo) != 0 || strcmp(e->rev, found) != 0 || strcmp(e->name, file) != 0) continue;
        snprintf(headers, sizeof headers, "X-Repo-Commit: %s\r\nETag: \"%s\"\r\n", commit, e->oid);
        if (!e->lfs) return send_file(r, e, headers);
        size_t n = strlen(headers);
        if (option("loop"))
            snprintf(headers + n, sizeof headers - n, "Location: %s\r\n", path);
        else
            snprintf(headers + n, sizeof headers - n,
                     "X-Linked-Etag: \"%s\"\r\nX-Linked-Size: %lld\r\nLocation: "
                     "%s://127.0.0.1:%d/store/%zu?signature=secret\r\n",
                     e->sha, e->size, tls && !option("plainstore") ? "https" : "http", port[1], i);
        return answer(r, 302, headers, "");
    }
    return answer(r, 404, "X-Error-Code: EntryNotFound\r\n", "");
}

static bool serve(const request *r) {
    char path[4096], headers[100];
    pthread_mutex_lock(&lock);
    fprintf(log_file, "%s %s %s range=%s auth=%s\n", r->storage ? "storage" : "hub", r->method, r->target,
            *r->range ? r->range : "-", *r->auth ? r->auth : "-");
    fflush(log_file);
    pthread_mutex_unlock(&lock);
    long long status = strike("status", true, r->target);
    snprintf(headers, sizeof headers, "Retry-After: %s\r\n", option("retry") ? option("retry") : "0");
    if (status > 0) return answer(r, (int)status, headers, "{}");
    snprintf(path, sizeof path, "%.*s", (int)strcspn(r->target, "?"), r->target);
    if (!r->storage) return !strncmp(path, "/api/", 5) ? serve_api(r, path) : serve_file(r, path);
    size_t i = strncmp(path, "/store/", 7) ? n_all : (size_t)atoll(path + 7);
    if (i >= n_all || *r->auth) return answer(r, 400, "", "a token where none belongs");
    if (strike("expire", false, "") >= 0) return answer(r, 403, "", "expired");
    return send_file(r, &all[i], "ETag: \"storage\"\r\n");
}

static void copy_value(char *out, size_t size, const char *line) {
    line += strcspn(line, ":") + 1;
    line += strspn(line, " ");
    snprintf(out, size, "%.*s", (int)strcspn(line, "\r"), line);
}

static void *connection(void *arg) {
    int fd = (int)(intptr_t)arg >> 1, one = 1;
    char line[8192];
    FILE *in = fdopen(dup(fd), "r");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (in && fgets(line, sizeof line, in)) {
        request r = {.fd = fd, .storage = (intptr_t)arg & 1};
        if (sscanf(line, "%7s %4095s", r.method, r.target) != 2) break;
        while (fgets(line, sizeof line, in) && strcmp(line, "\r\n") != 0) {
            if (!strncasecmp(line, "Range:", 6)) copy_value(r.range, sizeof r.range, line);
            if (!strncasecmp(line, "Authorization:", 14)) copy_value(r.auth, sizeof r.auth, line);
        }
        if (!serve(&r)) break;
    }
    if (in) fclose(in);
    close(fd);
    return NULL;
}

/* Between a client that speaks TLS and a thread that answers in the clear at the other end of a socket pair. */
static void tunnel(SSL *s, int fd, int plain) {
    char buf[16384];
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = plain, .events = POLLIN}};
        if (!SSL_pending(s) && poll(p, 2, -1) < 0) return;
        if (SSL_pending(s) || p[0].revents) {
            int n = SSL_read(s, buf, sizeof buf);
            if (n <= 0 || !send_all(plain, buf, (size_t)n)) return;
        } else if (p[1].revents) {
            ssize_t n = read(plain, buf, sizeof buf);
            if (n <= 0 || SSL_write(s, buf, (int)n) <= 0) return;
        }
    }
}

static void *tls_connection(void *arg) {
    int fd = (int)(intptr_t)arg >> 1, pair[2];
    pthread_t t;
    SSL *s = SSL_new(tls);
    if (s && SSL_set_fd(s, fd) == 1 && SSL_accept(s) == 1 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
        if (pthread_create(&t, NULL, connection, (void *)(intptr_t)(pair[1] << 1 | ((intptr_t)arg & 1))) == 0) {
            tunnel(s, fd, pair[0]);
            shutdown(pair[0], SHUT_RDWR);
            pthread_join(t, NULL);
            SSL_shutdown(s);
        }
        close(pair[0]);
    }
    SSL_free(s);
    close(fd);
    return NULL;
}

/* The certificate and key of option tls. */
static bool tls_open(const char *pem) {
    tls = SSL_CTX_new(TLS_server_method());
    return tls && SSL_CTX_use_certificate_chain_file(tls, pem) == 1 &&
           SSL_CTX_use_PrivateKey_file(tls, pem, SSL_FILETYPE_PEM) == 1;
}

static void *accept_all(void *arg) {
    int s = (int)(intptr_t)arg >> 1;
    for (;;) {
        pthread_t t;
        int fd = accept(s, NULL, NULL);
        if (fd < 0) continue;
        bool storage = (intptr_t)arg & 1, secret = tls && !(storage && option("plainstore"));
        if (pthread_create(&t, NULL, secret ? tls_connection : connection, (void *)(intptr_t)(fd << 1 | storage)) == 0)
            pthread_detach(t);
    }
    return NULL;
}

static int listen_at(int *at) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) != 0 || listen(s, 64) != 0) return -1;
    getsockname(s, (struct sockaddr *)&a, &n);
    *at = ntohs(a.sin_port);
    return s;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: hub_tool ROOT PORTS LOG [FAULT...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    char repo[200] = "", tmp[1000];
    root = argv[1];
    fault = argv + 4;
    n_fault = argc - 4 < 64 ? argc - 4 : 64;
    memset(left, -1, sizeof left);
    scan_level(root, 0, repo, 0);
    log_file = fopen(argv[3], "a");
    if (option("tls") && !tls_open(option("tls"))) {
        fprintf(stderr, "hub_tool: %s: no certificate with a key\n", option("tls"));
        return 1;
    }
    int hub = listen_at(&port[0]), storage = listen_at(&port[1]);
    if (!log_file || hub < 0 || storage < 0) return 1;
    snprintf(tmp, sizeof tmp, "%s.new", argv[2]);
    FILE *f = fopen(tmp, "w");
    if (!f) return 1;
    fprintf(f, "%d %d\n", port[0], port[1]);
    fclose(f);
    rename(tmp, argv[2]);
    pthread_t t;
    if (pthread_create(&t, NULL, accept_all, (void *)(intptr_t)(storage << 1 | 1)) != 0) return 1;
    accept_all((void *)(intptr_t)(hub << 1));
    return 0;
}
