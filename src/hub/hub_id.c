/* Ids of repositories, names of files, patterns. Rules of ids as huggingface_hub's validate_repo_id. */
#include "hub/hub.h"

#include <string.h>

static bool plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '-';
}

/* An organisation or a repository's name. */
static bool part_ok(const char *s, size_t n) {
    if (n == 0 || n > 96 || s[0] == '-' || s[0] == '.' || s[n - 1] == '-' || s[n - 1] == '.') return false;
    for (size_t i = 0; i < n; i++) {
        if (!plain(s[i])) return false;
        if (i && s[i] == s[i - 1] && (s[i] == '-' || s[i] == '.')) return false;
    }
    return true;
}

static bool revision_ok(const char *s) {
    size_t n = strlen(s);
    if (!fa_hub_name_ok(s, n) || n >= sizeof((fa_hub_id *)0)->revision) return false;
    return strpbrk(s, " ~^:?*[") == NULL;
}

int fa_hub_id_parse(fa_hub_id *id, const char *text, fa_error *err) {
    memset(id, 0, sizeof *id);
    const char *slash = strchr(text, '/'), *at = strchr(text, '@');
    size_t len = at ? (size_t)(at - text) : strlen(text);
    const char *colon = (const char *)memchr(text, ':', len);
    size_t repo = colon ? (size_t)(colon - text) : len;
    size_t org = slash ? (size_t)(slash - text) : 0;
    if (!slash || org >= repo || !part_ok(text, org) || !part_ok(slash + 1, repo - org - 1) ||
        (repo > 4 && !memcmp(text + repo - 4, ".git", 4)))
        return fa_fail(err, FFAI_EINVAL, "\"%.200s\" is no model id; it would be org/name or org/name@revision", text);
    if (colon && (len - repo < 2 || len - repo > sizeof id->pick || memchr(colon + 1, '/', len - repo - 1)))
        return fa_fail(err, FFAI_EINVAL, "%.200s: what follows the colon is no part of a GGUF file's name", text);
    if (at && (!at[1] || !revision_ok(at + 1)))
        return fa_fail(err, FFAI_EINVAL, "%.200s: \"%.100s\" is no revision (a branch, tag or commit)", text, at + 1);
    memcpy(id->repo, text, repo);
    if (colon) memcpy(id->pick, colon + 1, len - repo - 1);
    strcpy(id->revision, at ? at + 1 : "main");
    return 0;
}

bool ffai_hub_is_id(const char *text) {
    fa_hub_id id;
    return text && fa_hub_id_parse(&id, text, NULL) == 0 && !fa_hub_ends(id.repo, ".gguf");
}

bool fa_hub_name_ok(const char *name, size_t len) {
    if (len == 0 || len > 1000 || strlen(name) != len) return false;
    for (const char *p = name; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > 240 || (p[0] == '.' && (n == 1 || (n == 2 && p[1] == '.')))) return false;
        if (n >= 2 && p[1] == ':') return false; /* a drive */
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\') return false;
        p += n;
        if (*p && !*++p) return false; /* a slash at the end */
    }
    return true;
}

bool fa_hub_is_hex(const char *s, size_t n) {
    if (!s || strlen(s) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
    return true;
}

bool fa_hub_ends(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* [abc], [!a-z] at p; *after: behind the bracket. A bracket that does not end is a bracket. */
static bool in_set(const char *p, unsigned char c, const char **after) {
    const char *q = p + 1;
    bool invert = *q == '!', in = false;
    if (invert) q++;
    const char *end = *q ? strchr(q + 1, ']') : NULL;
    if (!end) {
        *after = p + 1;
        return c == '[';
    }
    for (; q < end; q++) {
        if (q[1] == '-' && q + 2 < end) {
            if (c >= (unsigned char)q[0] && c <= (unsigned char)q[2]) in = true;
            q += 2;
        } else if (c == (unsigned char)*q) {
            in = true;
        }
    }
    *after = end + 1;
    return in != invert;
}

/* Backtracks to the last star only, so it is linear in pattern times name. */
bool fa_hub_glob(const char *pattern, const char *name) {
    const char *star = NULL, *from = NULL, *p = pattern, *s = name;
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '/') return !strncmp(pattern, name, n);
    while (*s) {
        const char *after = p + 1;
        bool hit = *p && (*p == '?' || (*p == '[' ? in_set(p, (unsigned char)*s, &after) : *p == *s));
        if (*p == '*') {
            star = ++p;
            from = s;
        } else if (hit) {
            p = after;
            s++;
        } else if (star) {
            p = star;
            s = ++from;
        } else {
            return false;
        }
    }
    while (*p == '*') p++;
    return !*p;
}
