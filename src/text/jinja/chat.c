/* What apply_chat_template does around the template: it checks messages, tools and documents, drops keys without a
 * value, gives reasoning all of its names, and cuts the text behind a last message that is to be continued. */
#include "text/jinja/int.h"

#include <string.h>

static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";
static const char *const reasoning[] = {"reasoning_content", "thinking", "reasoning"};
enum { N_REASONING = 3 };

static fa_jjv key(fa_jj *m, const char *s) { return fa_jj_text(m, s); }

static fa_jjv member(fa_jj *m, const fa_jjdict *d, const char *name) {
    fa_jjv *v = fa_jj_dict_str(m, d, name);
    return v ? *v : fa_jj_none();
}

/* ---- messages ---- */

/* A message without the keys whose value is null, and with its reasoning under every name that templates read. */
static fa_jjdict *message(fa_jj *m, const fa_jjdict *in) {
    fa_jjdict *d = fa_jj_dict(m, in->n + 2);
    fa_jjv text = fa_jj_none();
    for (int i = 0; i < N_REASONING && text.t == FA_JJ_NONE; i++) text = member(m, in, reasoning[i]);
    if (text.t != FA_JJ_NONE) fa_jj_dict_set(m, d, key(m, "thinking"), text);
    for (size_t i = 0; i < in->n; i++)
        if (in->e[i].val.t != FA_JJ_NONE) fa_jj_dict_set(m, d, in->e[i].key, in->e[i].val);
    if (text.t != FA_JJ_NONE) fa_jj_dict_set(m, d, key(m, "reasoning_content"), text);
    return d;
}

static fa_jjlist *messages(fa_jj *m, const fa_jjdict *ctx) {
    fa_jjv v = member(m, ctx, "messages");
    if (v.t != FA_JJ_LIST) fa_jj_fail(m, FFAI_EINVAL, "\"messages\" is no list, but %s", fa_jj_type(v));
    if (!v.u.l->n)
        fa_jj_fail(m, FFAI_EINVAL,
                   "Cannot apply chat template to an empty conversation. Provide at least one message.");
    fa_jjlist *l = fa_jj_list(m, v.u.l->n);
    for (size_t i = 0; i < v.u.l->n; i++) {
        if (v.u.l->v[i].t != FA_JJ_DICT)
            fa_jj_fail(m, FFAI_EINVAL, "Chat messages should be dicts: messages[%zu] is %s", i,
                       fa_jj_type(v.u.l->v[i]));
        fa_jj_push(m, l, fa_jj_dictv(message(m, v.u.l->v[i].u.d)));
    }
    return l;
}

/* ---- tools and documents ---- */

static void check_list(fa_jj *m, const fa_jjdict *ctx, const char *name, const char *words) {
    fa_jjv v = member(m, ctx, name);
    if (v.t == FA_JJ_NONE) return;
    if (v.t != FA_JJ_LIST) fa_jj_fail(m, FFAI_EINVAL, "\"%s\" is no list, but %s. %s", name, fa_jj_type(v), words);
    for (size_t i = 0; i < v.u.l->n; i++)
        if (v.u.l->v[i].t != FA_JJ_DICT)
            fa_jj_fail(m, FFAI_EINVAL, "%s[%zu] is %s, not an object. %s", name, i, fa_jj_type(v.u.l->v[i]), words);
}

/* ---- a last message that is continued ---- */

static bool is_reasoning(const fa_jjstr *s) {
    for (int i = 0; i < N_REASONING; i++)
        if (fa_jj_is(s, reasoning[i])) return true;
    return false;
}

static bool in_source(fa_jj *m, const fa_jjstr *field) {
    fa_jjstr src = {.p = m->t->source, .n = (uint32_t)m->t->n_source, .ncp = UINT32_MAX};
    return fa_jj_find(m, &src, field, 0) != SIZE_MAX;
}

static fa_jjv tagged(fa_jj *m, fa_jjv v) { return fa_jj_add(m, v, key(m, tag)); }

/* The last text part of a content list. */
static fa_jjstr *tag_parts(fa_jj *m, fa_jjlist *parts) {
    for (size_t i = parts->n; i-- > 0;) {
        fa_jjv p = parts->v[i], text;
        if (p.t != FA_JJ_DICT) continue;
        fa_jjv *t = fa_jj_dict_str(m, p.u.d, "text");
        if (!t) continue;
        text = *t;
        if (text.t != FA_JJ_STR) fa_jj_fail(m, FFAI_EINVAL, "the text to continue is %s", fa_jj_type(text));
        *t = tagged(m, text);
        return text.u.s;
    }
    fa_jj_fail(m, FFAI_EINVAL,
               "continue_final_message is set but we could not find any text to continue in the final message!");
}

static fa_jjstr *tag_final(fa_jj *m, fa_jjlist *l, fa_jjv which) {
    fa_jjstr *field = which.t == FA_JJ_STR ? which.u.s : fa_jj_ref(m, "content", 7);
    fa_jjdict *last = l->v[l->n - 1].u.d;
    fa_jjv *v = fa_jj_dict_get(m, last, fa_jj_strv(field));
    if (!v)
        fa_jj_fail(m, FFAI_EINVAL, "continue_final_message is set but the final message has no \"%.*s\" to continue!",
                   (int)field->n, field->p);
    fa_jjv text = *v;
    bool used = in_source(m, field), copies = is_reasoning(field);
    for (int i = 0; i < N_REASONING && copies; i++) { /* reasoning stands there under several names */
        fa_jjstr *name = key(m, reasoning[i]).u.s;
        fa_jjv *other = fa_jj_dict_get(m, last, fa_jj_strv(name));
        if (other && fa_jj_eq(m, *other, text)) used = used || in_source(m, name);
    }
    if (!used)
        fa_jj_fail(m, FFAI_EINVAL,
                   "continue_final_message is set to \"%.*s\" but this is not an accepted field in the chat_template",
                   (int)field->n, field->p);
    if (text.t == FA_JJ_LIST) return tag_parts(m, text.u.l);
    if (text.t != FA_JJ_STR) fa_jj_fail(m, FFAI_EINVAL, "the text to continue is %s", fa_jj_type(text));
    if (!copies) *v = tagged(m, text);
    for (int i = 0; i < N_REASONING && copies; i++) {
        fa_jjv *other = fa_jj_dict_get(m, last, key(m, reasoning[i]));
        if (other && fa_jj_eq(m, *other, text)) *other = tagged(m, text);
    }
    return text.u.s;
}

void fa_jj_chat(fa_jj *m, fa_jjdict *ctx, fa_jjstr **final) {
    if (!fa_jj_dict_str(m, ctx, "messages")) return; /* no conversation: plain variables */
    fa_jjlist *l = messages(m, ctx);
    fa_jjv cont = member(m, ctx, "continue_final_message"), gen = member(m, ctx, "add_generation_prompt");
    check_list(m, ctx, "tools",
               "Tools should either be a JSON schema, or a callable function with type hints and a docstring suitable "
               "for auto-conversion to a schema.");
    check_list(m, ctx, "documents", "Documents should be a list of dicts with 'title' and 'text' keys!");
    fa_jj_dict_set(m, ctx, key(m, "messages"), fa_jj_listv(l));
    fa_jj_dict_set(m, ctx, key(m, "tools"), member(m, ctx, "tools"));
    fa_jj_dict_set(m, ctx, key(m, "documents"), member(m, ctx, "documents"));
    if (!fa_jj_dict_str(m, ctx, "add_generation_prompt"))
        fa_jj_dict_set(m, ctx, key(m, "add_generation_prompt"), fa_jj_bool(false));
    if (!fa_jj_truth(m, cont)) return;
    if (fa_jj_truth(m, gen))
        fa_jj_fail(
            m, FFAI_EINVAL,
            "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when "
            "you want the model to continue the final message, and add_generation_prompt when you want to add a "
            "header that will prompt it to start a new assistant message instead.");
    *final = tag_final(m, l, cont);
}

static size_t find_last(fa_jj *m, const fa_jjstr *s, const fa_jjstr *what) {
    size_t last = SIZE_MAX;
    for (size_t at = 0; (at = fa_jj_find(m, s, what, at)) != SIZE_MAX; at++) last = at;
    return last;
}

/* The text ends where the tag stands; when the template trimmed the message, so is the rest. */
void fa_jj_chat_cut(fa_jj *m, fa_jjstr *final) {
    fa_jjstr out = {.p = m->out.data ? m->out.data : "", .n = (uint32_t)m->out.len, .ncp = UINT32_MAX};
    fa_jjstr word = {.p = tag, .n = sizeof tag - 2, .ncp = sizeof tag - 2};
    size_t at = find_last(m, &out, &word);
    if (at == SIZE_MAX || fa_jj_find(m, &out, fa_jj_strip(m, final, NULL, 3), 0) == SIZE_MAX)
        fa_jj_fail(m, FFAI_EINVAL,
                   "continue_final_message is set but the final message does not appear in the chat after applying the "
                   "chat template! This can happen if the chat template deletes portions of the final message.");
    bool kept = out.n - at >= sizeof tag - 1 && memcmp(out.p + at, tag, sizeof tag - 1) == 0;
    out.n = (uint32_t)at;
    m->out.len = kept ? at : fa_jj_strip(m, &out, NULL, 2)->n;
    m->out.data[m->out.len] = 0;
}
