/* Requests by libcurl: how each is set up, what its headers say, when it is worth repeating, and what a refusal means.
 * Redirects are never followed by libcurl: every address is looked at here first, and only requests to the endpoint
 * itself carry the token. */
#include "base/alloc.h"
#include "base/clock.h"
#include "hub/hub.h"
#include "io/json.h"

#include <curl/curl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#if LIBCURL_VERSION_NUM < 0x075500
#error "libcurl 7.85 or newer is needed"
#endif

enum { TRIES = 5, MAX_HOPS = 5, CONNECT_S = 20, SILENT_S = 30 };
static const double WAIT_FIRST = 0.5, WAIT_MOST = 300;

/* ---- addresses: one parser for checks and requests ---- */

typedef struct origin {
    char *scheme, *host, *port;
} origin;

static void origin_free(origin *o) {
    curl_free(o->scheme);
    curl_free(o->host);
    curl_free(o->port);
}

static bool origin_of(origin *o, const char *url) {
    memset(o, 0, sizeof *o);
    CURLU *u = strchr(url, '\\') ? NULL : curl_url();
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &o->scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &o->host, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_PORT, &o->port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    curl_url_cleanup(u);
    return ok;
}

bool fa_hub_same_origin(const char *a, const char *b) {
    origin x, y;
    bool ok = origin_of(&x, a), also = origin_of(&y, b);
    bool same = ok && also && !strcasecmp(x.scheme, y.scheme) && !strcasecmp(x.host, y.host) && !strcmp(x.port, y.port);
    origin_free(&x);
    origin_free(&y);
    return same;
}

bool fa_hub_may_follow(const char *from, const char *to) {
    origin x, y;
    bool ok = origin_of(&x, from), also = origin_of(&y, to);
    bool secure = ok && !strcasecmp(x.scheme, "https");
    bool may = ok && also && (!strcasecmp(y.scheme, "https") || (!strcasecmp(y.scheme, "http") && !secure));
    origin_free(&x);
    origin_free(&y);
    return may;
}

void fa_hub_host(const char *url, char *out, size_t size) {
    origin o;
    if (origin_of(&o, url))
        snprintf(out, size, "%s://%s:%s", o.scheme, o.host, o.port);
    else
        snprintf(out, size, "an address that cannot be read");
    origin_free(&o);
}

int fa_hub_url(fa_hub *h, char **url, fa_error *err, const char *middle, const char *revision, const char *path) {
    fa_buf b = {0};
    fa_buf_printf(&b, "%s/%s", h->endpoint, middle);
    char *rev = curl_easy_escape(NULL, revision, 0);
    bool ok = rev != NULL;
    if (ok) fa_buf_printf(&b, "/%s", rev);
    curl_free(rev);
    for (const char *p = path; ok && p && *p;) { /* the parts of a path, with their slashes */
        size_t n = strcspn(p, "/");
        char *part = curl_easy_escape(NULL, p, (int)n);
        ok = part != NULL;
        if (ok) fa_buf_printf(&b, "/%s", part);
        curl_free(part);
        p += n + (p[n] == '/');
    }
    *url = ok && !b.failed ? fa_mem_printf(&h->mem, "%s", b.data) : NULL;
    fa_buf_free(&b);
    return *url ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
}

/* ---- replies ---- */

/* The value of header `name` in line, or NULL; *n: its length without the blanks around it. */
static const char *header(const char *line, size_t len, const char *name, size_t *n) {
    size_t k = strlen(name);
    if (len <= k || line[k] != ':' || strncasecmp(line, name, k) != 0) return NULL;
    const char *v = line + k + 1, *end = line + len;
    while (v < end && (*v == ' ' || *v == '\t')) v++;
    while (end > v && (unsigned char)end[-1] <= ' ') end--;
    *n = (size_t)(end - v);
    return v;
}

static void keep(char *out, size_t size, const char *v, size_t n) {
    if (n >= size) n = size - 1;
    memcpy(out, v, n);
    out[n] = 0;
}

/* Link: <URL>; rel="next" */
static void read_link(fa_hub_reply *r, const char *v, size_t n) {
    const char *end = v + n, *close = n ? (const char *)memchr(v, '>', n) : NULL;
    if (!close || *v != '<' || (size_t)(close - v) > sizeof r->next) return;
    for (const char *p = close; p + 10 <= end; p++)
        if (!memcmp(p, "rel=\"next\"", 10)) keep(r->next, sizeof r->next, v + 1, (size_t)(close - v - 1));
}

size_t fa_hub_header(char *line, size_t one, size_t len, void *user) {
    fa_hub_reply *r = (fa_hub_reply *)user;
    const char *v;
    size_t n;
    char text[128];
    (void)one;
    if (len > 5 && !memcmp(line, "HTTP/", 5)) { /* a new answer begins (100 Continue, a proxy's) */
        r->error_code[0] = r->error_text[0] = r->next[0] = 0;
        r->retry_after = 0;
        r->range_at = r->range_total = -1;
    } else if ((v = header(line, len, "X-Error-Code", &n))) {
        keep(r->error_code, sizeof r->error_code, v, n);
    } else if ((v = header(line, len, "X-Error-Message", &n))) {
        keep(r->error_text, sizeof r->error_text, v, n);
    } else if ((v = header(line, len, "Link", &n))) {
        read_link(r, v, n);
    } else if ((v = header(line, len, "Retry-After", &n))) {
        keep(text, sizeof text, v, n);
        r->retry_after = strtod(text, NULL); /* a date reads as 0: then the own back-off holds */
        if (!(r->retry_after > 0)) r->retry_after = 0;
    } else if ((v = header(line, len, "Content-Range", &n))) {
        long long from, to, all;
        keep(text, sizeof text, v, n);
        int got = sscanf(text, "bytes %lld-%lld/%lld", &from, &to, &all);
        r->range_at = got >= 2 ? from : -1;
        r->range_total = got == 3 ? all : -1;
    }
    return len;
}

void fa_hub_reply_free(fa_hub_reply *r) { fa_buf_free(&r->body); }

int fa_hub_prepare(const fa_hub *h, void *easy, const char *url, fa_hub_reply *r, void **headers, fa_error *err) {
    const ffai_hub_opts *o = &h->o;
    CURL *c = (CURL *)easy;
    bool https = !strncasecmp(url, "https:", 6);
    const char *proxy = https ? o->https_proxy : o->http_proxy;
    struct curl_slist *list =
        curl_slist_append(NULL, "Accept-Encoding: identity"); /* sizes and hashes are of the file */
    CURLcode e = list ? CURLE_OK : CURLE_OUT_OF_MEMORY;
    *headers = list;
    if (!e && o->token && *o->token && fa_hub_same_origin(url, h->endpoint)) {
        fa_buf b = {0};
        fa_buf_printf(&b, "Authorization: Bearer %s", o->token);
        struct curl_slist *more = b.failed ? NULL : curl_slist_append(list, b.data);
        if (b.data) memset(b.data, 0, b.len);
        fa_buf_free(&b);
        if (!more) e = CURLE_OUT_OF_MEMORY;
    }
#define SET(option, value)                                                                                             \
    if (!e) e = curl_easy_setopt(c, option, value)
    SET(CURLOPT_URL, url);
    SET(CURLOPT_HTTPHEADER, list);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_USERAGENT, "ffai");
    SET(CURLOPT_PROXY, proxy ? proxy : ""); /* "" keeps libcurl from asking the environment */
    SET(CURLOPT_NOPROXY, o->no_proxy ? o->no_proxy : "");
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)SILENT_S);
    SET(CURLOPT_BUFFERSIZE, 512L * 1024);
    SET(CURLOPT_HEADERFUNCTION, fa_hub_header);
    SET(CURLOPT_HEADERDATA, r);
    if (!e && o->ca_file) e = curl_easy_setopt(c, CURLOPT_CAINFO, o->ca_file);
#undef SET
    return e ? fa_fail(err, FFAI_EINTERNAL, "request cannot be set up: %s", curl_easy_strerror(e)) : 0;
}

/* ---- when to repeat ---- */

bool fa_hub_status_again(long s) { return s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504; }

bool fa_hub_curl_again(int code) {
    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_WEIRD_SERVER_REPLY: return true;
    default: return false;
    }
}

const char *fa_hub_why(int code) {
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return "its certificate is not trusted (CURL_CA_BUNDLE names a file of those that are)";
    if (code == CURLE_SSL_CACERT_BADFILE)
        return "the certificates that CURL_CA_BUNDLE, SSL_CERT_FILE or REQUESTS_CA_BUNDLE names cannot be read";
    return curl_easy_strerror((CURLcode)code);
}

double fa_hub_backoff(int n, const fa_hub_reply *r) {
    if (n >= TRIES) return -1;
    double s = ldexp(WAIT_FIRST, n);
    if (r && r->retry_after > s) s = r->retry_after;
    return s > WAIT_MOST ? -1 : s;
}

int fa_hub_wait(fa_hub *h, double seconds, fa_error *err) {
    ffai_hub_progress p = {.repo = h->id.repo, .waiting = "the server is busy"};
    for (double end = fa_now() + seconds; fa_now() < end;) {
        if (h->o.progress && !h->o.progress(h->o.user, &p))
            return fa_fail(err, FFAI_ECANCEL, "%s: interrupted", h->id.repo);
        poll(NULL, 0, seconds < 0.1 ? (int)(seconds * 1000) + 1 : 100);
    }
    return 0;
}

/* ---- what a refusal means ---- */

static bool code_is(const fa_hub_reply *r, const char *code) { return !strcasecmp(r->error_code, code); }

int fa_hub_refused(const fa_hub *h, const char *what, const fa_hub_reply *r, fa_error *err) {
    const char *repo = h->id.repo, *end = h->endpoint;
    bool token = h->o.token && *h->o.token;
    char host[256];
    fa_hub_host(end, host, sizeof host);
    if (code_is(r, "GatedRepo") || (r->status == 403 && !*r->error_code))
        return fa_fail(err, FFAI_EIO,
                       token
                           ? "%s: the repository is gated and the token has no access: accept its terms at %s/%s with "
                             "the token's account, and let the token read gated repositories"
                           : "%s: the repository is gated: accept its terms at %s/%s, then set HF_TOKEN to an access "
                             "token of that account",
                       what, end, repo);
    if (code_is(r, "RevisionNotFound"))
        return fa_fail(err, FFAI_EIO, "%s: the repository has no revision \"%s\"", repo, h->id.revision);
    if (code_is(r, "EntryNotFound")) return fa_fail(err, FFAI_EIO, "%s: not in the repository", what);
    if (r->status == 401 && token && !code_is(r, "RepoNotFound"))
        return fa_fail(err, FFAI_EIO, "%s: %s does not accept the token (HF_TOKEN)", what, host);
    if (r->status == 401 || r->status == 404 || code_is(r, "RepoNotFound"))
        return fa_fail(err, FFAI_EIO, "%s: %s has no such repository%s", what, host,
                       token ? ", or the token may not read it" : "; if it is private, set HF_TOKEN");
    if (r->status == 429)
        return fa_fail(err, FFAI_EIO, "%s: %s takes no more requests for now (429)%s", what, host,
                       token ? "" : "; with a token (HF_TOKEN) it takes more");
    return fa_fail(err, FFAI_EIO, "%s: %s answered %ld%s%s", what, host, r->status, *r->error_text ? ": " : "",
                   r->error_text);
}

/* ---- small documents ---- */

static size_t on_body(char *data, size_t one, size_t n, void *user) {
    fa_hub_reply *r = (fa_hub_reply *)user;
    (void)one;
    if (r->body.len + n > r->max) return 0;
    fa_buf_add(&r->body, data, n);
    return r->body.failed ? 0 : n;
}

static int on_tick(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    fa_hub *h = (fa_hub *)user;
    ffai_hub_progress p = {.repo = h->id.repo};
    (void)a, (void)b, (void)c, (void)d;
    return h->o.progress && !h->o.progress(h->o.user, &p);
}

/* One request. *to: where it was redirected, or NULL. */
static int get_once(fa_hub *h, const char *url, fa_hub_reply *r, char **to, CURLcode *code, fa_error *err) {
    CURL *c = curl_easy_init();
    void *headers = NULL;
    char *redirect = NULL;
    *to = NULL;
    r->body.len = 0;
    r->status = 0;
    if (!c) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    int rc = fa_hub_prepare(h, c, url, r, &headers, err);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, h);
    if (!rc) {
        *code = curl_easy_perform(c);
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &r->status);
        if (r->status / 100 == 3) curl_easy_getinfo(c, CURLINFO_REDIRECT_URL, &redirect);
        if (redirect && !(*to = fa_mem_printf(&h->mem, "%s", redirect)))
            rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    }
    curl_slist_free_all((struct curl_slist *)headers);
    curl_easy_cleanup(c);
    return rc;
}

/* The transfer itself failed. */
static int unreachable(fa_hub *h, const char *url, const fa_hub_reply *r, CURLcode code, fa_error *err) {
    char host[256];
    fa_hub_host(url, host, sizeof host);
    if (code == CURLE_ABORTED_BY_CALLBACK) return fa_fail(err, FFAI_ECANCEL, "%s: interrupted", h->id.repo);
    if (code == CURLE_WRITE_ERROR && r->body.failed) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    if (code == CURLE_WRITE_ERROR)
        return fa_fail(err, FFAI_ELIMIT, "%s: %s sent a listing of more than %zu bytes", h->id.repo, host, r->max);
    return fa_fail(err, FFAI_EIO, "%s: %s cannot be reached: %s", h->id.repo, host, fa_hub_why(code));
}

int fa_hub_get(fa_hub *h, const char *url, size_t max, fa_hub_reply *r, fa_error *err) {
    int hops = 0;
    r->max = max;
    for (int n = 0;;) {
        CURLcode code = CURLE_OK;
        char *to;
        int rc = get_once(h, url, r, &to, &code, err);
        if (rc) return rc;
        if (code == CURLE_OK && r->status == 200) return 0;
        if (to) {
            if (++hops > MAX_HOPS || !fa_hub_may_follow(url, to))
                return fa_fail(err, FFAI_EIO, "%s: %s redirects %s", h->id.repo, h->endpoint,
                               hops > MAX_HOPS ? "without end" : "from https to something else");
            url = to;
            continue;
        }
        /* who has no network wants to hear of it now */
        bool nobody =
            code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_PROXY;
        bool again = code ? !nobody && fa_hub_curl_again(code) : fa_hub_status_again(r->status);
        double wait = again ? fa_hub_backoff(n++, r) : -1;
        if (wait < 0) return code ? unreachable(h, url, r, code, err) : fa_hub_refused(h, h->id.repo, r, err);
        rc = fa_hub_wait(h, wait, err);
        if (rc) return rc;
    }
}
