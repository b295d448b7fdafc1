/* Builds the node tree with simdjson's on-demand parser. The only C++ file of the project: it lets nothing of C++ out
 * (no exceptions, no types). simdjson's own index (4 bytes per structural character) lives on the C++ heap for the
 * duration of one call. */
#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include <cstring>

#include "io/json_tree.h"

namespace {

namespace od = simdjson::ondemand;
using simdjson::error_code;

constexpr error_code no_error = simdjson::SUCCESS;

struct builder {
    fa_json *j;
    od::parser *parser;
};

/* Appends a decoded string to the arena, gives its place. Room: see fa_json_parse. */
error_code put_string(builder &b, od::raw_json_string raw, size_t *place) {
    *place = b.j->str_len;
    uint8_t *head = b.j->block + b.j->str_len, *dst = head + sizeof(uint32_t);
    std::string_view s;
    error_code e = b.parser->unescape(raw, dst).get(s);
    if (e != no_error) return e;
    uint32_t n = static_cast<uint32_t>(s.size());
    std::memcpy(head, &n, sizeof n);
    head[sizeof n + n] = 0;
    b.j->str_len += sizeof n + n + 1;
    return no_error;
}

/* Distance from node i back to a place in the arena; 0 when it does not fit 32 bits. */
uint32_t back_to(const fa_json *j, size_t i, size_t place) {
    size_t d = j->str_cap - place + i * sizeof(fa_jnode);
    return d > UINT32_MAX ? 0 : static_cast<uint32_t>(d);
}

template <class V> error_code put_number(V &v, fa_jnode *n) {
    int64_t i;
    if (v.get_int64().get(i) == no_error) {
        n->next_type = FA_JINT;
        n->v.i = i;
        return no_error;
    }
    double f;
    error_code e = v.get_double().get(f);
    if (e != no_error) return simdjson::NUMBER_ERROR;
    n->next_type = FA_JNUM;
    n->v.f = f;
    return no_error;
}

template <class V> error_code walk(builder &b, V &v, size_t key, int depth);

/* Links child `c` behind its elder sibling `prev` (both node numbers). */
void link_child(fa_json *j, size_t *prev, size_t c) {
    if (*prev) fa_json_node(j, *prev)->next_type |= static_cast<uint32_t>(c - *prev) << 3;
    *prev = c;
}

template <class V> error_code walk_array(builder &b, V &v, size_t self, int depth) {
    od::array a;
    error_code e = v.get_array().get(a);
    uint32_t count = 0;
    size_t prev = 0;
    if (e != no_error) return e;
    for (auto item : a) {
        od::value child;
        if ((e = item.get(child)) != no_error) return e;
        size_t c = b.j->n_node;
        if ((e = walk(b, child, SIZE_MAX, depth + 1)) != no_error) return e;
        link_child(b.j, &prev, c);
        count++;
    }
    fa_json_node(b.j, self)->v.s.n = count;
    return no_error;
}

template <class V> error_code walk_object(builder &b, V &v, size_t self, int depth) {
    od::object o;
    error_code e = v.get_object().get(o);
    uint32_t count = 0;
    size_t prev = 0;
    if (e != no_error) return e;
    for (auto item : o) {
        od::field f;
        if ((e = item.error()) != no_error) return e;
        f = item.value_unsafe();
        size_t key;
        if ((e = put_string(b, f.key(), &key)) != no_error) return e;
        size_t c = b.j->n_node;
        od::value child = f.value();
        if ((e = walk(b, child, key, depth + 1)) != no_error) return e;
        link_child(b.j, &prev, c);
        count++;
    }
    fa_json_node(b.j, self)->v.s.n = count;
    return no_error;
}

/* Appends the node of v and of everything below it. V: od::value or od::document. key: place in the arena or SIZE_MAX.
 */
template <class V> error_code walk(builder &b, V &v, size_t key, int depth) {
    if (!fa_json_grow(b.j)) return simdjson::MEMALLOC;
    size_t i = b.j->n_node++;
    fa_jnode *n = fa_json_node(b.j, i);
    *n = fa_jnode{};
    if (key != SIZE_MAX && !(n->key = back_to(b.j, i, key))) return simdjson::CAPACITY;
    od::json_type type;
    error_code e = v.type().get(type);
    if (e != no_error) return e;
    switch (type) {
    case od::json_type::array:
        n->next_type = FA_JARR;
        return depth >= FA_JSON_MAX_DEPTH ? simdjson::DEPTH_ERROR : walk_array(b, v, i, depth);
    case od::json_type::object:
        n->next_type = FA_JOBJ;
        return depth >= FA_JSON_MAX_DEPTH ? simdjson::DEPTH_ERROR : walk_object(b, v, i, depth);
    case od::json_type::string: {
        od::raw_json_string raw;
        size_t place;
        if ((e = v.get_raw_json_string().get(raw)) != no_error) return e;
        if ((e = put_string(b, raw, &place)) != no_error) return e;
        n->next_type = FA_JSTR;
        return (n->v.s.back = back_to(b.j, i, place)) ? no_error : simdjson::CAPACITY;
    }
    case od::json_type::number: return put_number(v, n);
    case od::json_type::boolean: {
        bool t;
        if ((e = v.get_bool().get(t)) != no_error) return e;
        n->next_type = FA_JBOOL;
        n->v.i = t;
        return no_error;
    }
    case od::json_type::null: {
        bool t = false;
        if ((e = v.is_null().get(t)) != no_error) return e;
        return t ? no_error : simdjson::N_ATOM_ERROR;
    }
    }
    return simdjson::TAPE_ERROR;
}

const char *reason(error_code e) {
    switch (e) {
    case simdjson::MEMALLOC: return "no memory";
    case simdjson::CAPACITY: return "the document is too large";
    case simdjson::DEPTH_ERROR: return "nested too deeply";
    case simdjson::STRING_ERROR: return "bad escape sequence in a string";
    case simdjson::NUMBER_ERROR: return "bad number, or a number out of range";
    case simdjson::UTF8_ERROR: return "invalid UTF-8";
    case simdjson::UNCLOSED_STRING: return "a string is not closed (truncated?)";
    case simdjson::UNESCAPED_CHARS: return "a control character inside a string";
    case simdjson::INCOMPLETE_ARRAY_OR_OBJECT: return "an array or object is not closed (truncated?)";
    case simdjson::EMPTY: return "empty";
    case simdjson::TRAILING_CONTENT: return "text after the end of the document";
    default: return "not valid JSON";
    }
}

int code_of(error_code e) {
    if (e == simdjson::MEMALLOC) return FFAI_ENOMEM;
    return e == simdjson::CAPACITY || e == simdjson::DEPTH_ERROR ? FFAI_ELIMIT : FFAI_EFORMAT;
}

/* Where the iterator stands: a byte offset, SIZE_MAX when it cannot say, len when everything was read. */
size_t position(od::document &d, const char *text, size_t len) {
    const char *p;
    error_code e = d.current_location().get(p);
    if (e == simdjson::OUT_OF_BOUNDS) return len;
    return e == no_error && p >= text && p <= text + len ? static_cast<size_t>(p - text) : SIZE_MAX;
}

} // namespace

extern "C" int fa_json_build(fa_json *j, const char *text, size_t len, const char **why, size_t *at) {
    od::parser parser(FA_JSON_MAX_BYTES);
    od::document d;
    *at = SIZE_MAX;
    error_code e = parser.iterate(text, len, len + FA_JSON_PAD).get(d);
    if (e == no_error) {
        builder b{j, &parser};
        e = walk(b, d, SIZE_MAX, 0);
        *at = position(d, text, len);
        if (e == no_error && *at != len) e = simdjson::TRAILING_CONTENT;
    }
    if (e == no_error) return FFAI_OK;
    *why = reason(e);
    return code_of(e);
}
