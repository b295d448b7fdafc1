/* Which files of a repository a model needs: weights of one format, and of the small files those that ffai reads. What
 * another program would need (PyTorch pickles, ONNX, pictures, code) stays where it is. */
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Beside the weights of a folder. */
static const char *const beside[] = {"config.json",
                                     "generation_config.json",
                                     "tokenizer.json",
                                     "tokenizer_config.json",
                                     "special_tokens_map.json",
                                     "added_tokens.json",
                                     "vocab.json",
                                     "merges.txt",
                                     "vocab.txt",
                                     "tekken.json",
                                     "*.tiktoken",
                                     "*.model",
                                     "*.jinja",
                                     "chat_template.json",
                                     "processor_config.json",
                                     "preprocessor_config.json",
                                     "params.json",
                                     "hf_quant_config.json",
                                     "quantize_config.json",
                                     "quant_config.json",
                                     "adapter_config.json",
                                     "modules.json",
                                     "sentence_bert_config.json",
                                     "config_sentence_transformers.json",
                                     NULL};
/* In folders of their own: templates, modules of sentence-transformers, the drafting adapter of diffusion models. */
static const char *const below[] = {"additional_chat_templates/*.jinja", "[0-9]_*/*.json", "linear_spec_lora/*.json",
                                    NULL};
static const char *const below_weights[] = {"[0-9]_*/*.safetensors", "linear_spec_lora/*.safetensors", NULL};
/* Which GGUF file when nobody says: small and good first. */
static const char *const gguf_order[] = {"q4_k_m", "q4_k_s", "q5_k_m", "q4_0", "q5_k_s", "q6_k", "q8_0",
                                         "mxfp4",  "iq4_xs", "q4_1",   "q5_0", "bf16",   "f16",  "f32"};

static bool at_root(const char *name) { return strchr(name, '/') == NULL; }

static bool matches(const char *const *patterns, const char *name) {
    for (; patterns && *patterns; patterns++)
        if (fa_hub_glob(*patterns, name)) return true;
    return false;
}

/* Ends in .gguf and is a language model's own file. */
static bool is_gguf(const char *name) {
    const char *base = strrchr(name, '/');
    base = base ? base + 1 : name;
    size_t n = strlen(base);
    return n > 5 && !strcasecmp(base + n - 5, ".gguf") && strncasecmp(base, "mmproj", 6) != 0 &&
           !strstr(base, "imatrix") && !strstr(base, "-mmproj");
}

/* Length of the name without "-00001-of-00003.gguf" and its part number, or without ".gguf" and 0. */
static size_t gguf_stem(const char *name, unsigned *part) {
    size_t n = strlen(name) - 5;
    unsigned all;
    char end;
    *part = 0;
    if (n > 15 && name[n - 15] == '-' && sscanf(name + n - 15, "-%5u-of-%5u%c", part, &all, &end) == 3 && end == '.')
        return n - 15;
    *part = 0;
    return n;
}

/* Does the part of the name that tells the quantization hold `what`, as words, in any case? */
static bool gguf_says(const char *name, const char *what) {
    size_t n = strlen(what);
    for (const char *p = name; strlen(p) >= n; p++) {
        bool begins = p == name || strchr("-._/ ", p[-1]), ends = strchr("-._/ ", p[n]) != NULL;
        if (begins && ends && !strncasecmp(p, what, n)) return !(p[n] == '_' && what[0] == 'q');
    }
    return false;
}

static bool gguf_holds(const char *name, const char *what) {
    size_t n = strlen(what);
    for (const char *p = name; strlen(p) >= n; p++)
        if (!strncasecmp(p, what, n)) return true;
    return false;
}

/* The first part of the GGUF file to take, or NULL. */
static const fa_hub_file *choose_gguf(const fa_hub_tree *t, const char *pick) {
    const fa_hub_file *found = NULL;
    size_t best = SIZE_MAX, n_order = sizeof gguf_order / sizeof *gguf_order;
    for (size_t i = 0; i < t->n; i++) {
        const fa_hub_file *f = &t->file[i];
        unsigned part;
        if (!is_gguf(f->name) || (gguf_stem(f->name, &part), part > 1)) continue;
        if (*pick && !gguf_holds(f->name, pick)) continue;
        size_t rank = 1;
        while (rank <= n_order && !gguf_says(f->name, gguf_order[rank - 1])) rank++;
        if (*pick && gguf_says(f->name, pick)) rank = 0;
        if (rank < best) {
            best = rank;
            found = f;
        }
    }
    return found;
}

static void want_gguf(fa_hub_tree *t, const fa_hub_file *first) {
    unsigned part, other;
    size_t n = gguf_stem(first->name, &part);
    for (size_t i = 0; i < t->n; i++) {
        fa_hub_file *f = &t->file[i];
        f->wanted = f == first || (part && is_gguf(f->name) && gguf_stem(f->name, &other) == n && other &&
                                   !memcmp(f->name, first->name, n));
    }
}

/* Of the safetensors files beside config.json: what a loader would open. model.safetensors, else the set of
 * model-00001-of-..., else what there is but for the copy in Mistral's own naming. */
static size_t want_safetensors(fa_hub_tree *t, bool set) {
    const fa_hub_file *one = fa_hub_tree_find(t, "model.safetensors");
    size_t n = 0, n_model = 0, n_other = 0;
    for (size_t i = 0; i < t->n; i++) {
        const char *s = t->file[i].name;
        if (!at_root(s) || !fa_hub_ends(s, ".safetensors")) continue;
        n_model += fa_hub_glob("model-*-of-*.safetensors", s);
        n_other += strncmp(s, "consolidated", 12) != 0;
    }
    for (size_t i = 0; i < t->n; i++) {
        fa_hub_file *f = &t->file[i];
        bool in = at_root(f->name) && fa_hub_ends(f->name, ".safetensors");
        if (in && one)
            in = f == one;
        else if (in && n_model)
            in = fa_hub_glob("model-*-of-*.safetensors", f->name);
        else if (in && n_other)
            in = strncmp(f->name, "consolidated", 12) != 0;
        if (in || (!one && !strcmp(f->name, "model.safetensors.index.json")) || matches(below_weights, f->name))
            f->wanted = set;
        n += in;
    }
    return n;
}

static int no_weights(const fa_hub *h, fa_error *err) {
    const char *other = NULL;
    for (size_t i = 0; i < h->tree.n && !other; i++) {
        const char *s = h->tree.file[i].name;
        if (fa_hub_ends(s, ".bin") || fa_hub_ends(s, ".pth") || fa_hub_ends(s, ".pt") || fa_hub_ends(s, ".onnx") ||
            fa_hub_ends(s, ".h5") || fa_hub_ends(s, ".msgpack") || fa_hub_ends(s, ".safetensors"))
            other = s;
    }
    if (*h->id.pick) return fa_fail(err, FFAI_EIO, "%s: no GGUF file with \"%s\" in its name", h->id.repo, h->id.pick);
    return fa_fail(err, FFAI_EIO, "%s: no weights that ffai reads (safetensors beside config.json, or GGUF)%s%.200s",
                   h->id.repo, other ? "; there is " : "", other ? other : "");
}

static int select_patterns(fa_hub *h, fa_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < h->tree.n; i++) {
        fa_hub_file *f = &h->tree.file[i];
        f->wanted = matches(h->o.include, f->name) && !matches(h->o.exclude, f->name);
        n += f->wanted;
    }
    return n ? 0 : fa_fail(err, FFAI_EINVAL, "%s: no file matches the patterns", h->id.repo);
}

int fa_hub_select(fa_hub *h, fa_error *err) {
    fa_hub_tree *t = &h->tree;
    if (h->o.include && *h->o.include) return select_patterns(h, err);
    for (size_t i = 0; i < t->n; i++) t->file[i].wanted = false;
    const fa_hub_file *gguf = NULL;
    size_t n = *h->id.pick ? 0 : want_safetensors(t, !h->o.no_weights), n_want = 0;
    if (!n) gguf = choose_gguf(t, h->id.pick);
    if (gguf) want_gguf(t, gguf);
    for (size_t i = 0; i < t->n && !gguf; i++)
        if ((at_root(t->file[i].name) && matches(beside, t->file[i].name)) || matches(below, t->file[i].name))
            t->file[i].wanted = true;
    if (!n && !gguf && !h->o.no_weights) return no_weights(h, err);
    for (size_t i = 0; i < t->n; i++) {
        if (matches(h->o.exclude, t->file[i].name)) t->file[i].wanted = false;
        n_want += t->file[i].wanted;
    }
    if (n_want) return 0;
    return h->o.exclude && *h->o.exclude ? fa_fail(err, FFAI_EINVAL, "%s: no file is left", h->id.repo)
                                         : no_weights(h, err);
}

const char *fa_hub_model_file(const fa_hub_tree *t) {
    const char *first = "";
    for (size_t i = 0; i < t->n; i++) {
        const fa_hub_file *f = &t->file[i];
        unsigned part;
        if (!f->wanted) continue;
        if (fa_hub_ends(f->name, ".safetensors") || !strcmp(f->name, "config.json")) return "";
        if (!*first && is_gguf(f->name) && (gguf_stem(f->name, &part), part <= 1)) first = f->name;
    }
    return first;
}
