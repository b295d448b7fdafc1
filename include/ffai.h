/* ffai - the public interface of libffai. docs/c-api.md walks through a program; examples/ has more.
 *
 * A model is loaded once and does not change; an engine runs requests against it; a request is one growing sequence of
 * tokens.
 *
 * Errors: functions that can fail return 0 on success or a negative ffai_code and fill *err (err may be NULL). After a
 * failure out-parameters are NULL or 0 and what was there before is as it was. The library never ends the process,
 * prints, or reads the environment.
 *
 * Ownership: what a *_create, *_open, *_parse, *_compile or ffai_submit gives is freed with its *_free, text and arrays
 * that the header says so of with ffai_free; *_free(NULL) does nothing. A model outlives its engines and grammars, an
 * engine and a grammar outlive their requests. What options point to is copied before the call returns, unless said
 * otherwise.
 *
 * Threads: functions on a model, template or grammar may run in several threads at once. An engine with its requests,
 * and a parser, belong to one thread at a time; different engines run in different threads, also on one model. Work is
 * done inside ffai_engine_step, ffai_eval, ffai_bench and ffai_embed, by the engine's own n_thread threads (the caller
 * is one of them); callbacks come on the calling thread.
 *
 * Units: text is UTF-8 with its length in bytes, tokens are int32_t ids, times are seconds, sizes bytes. A struct of
 * zeros is what all options begin with. */
#ifndef FFAI_H
#define FFAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FFAI_API
#else
#define FFAI_API __attribute__((visibility("default")))
#endif

#define FFAI_VERSION_MAJOR 0
#define FFAI_VERSION_MINOR 1
#define FFAI_VERSION_PATCH 0
/* 100 for 0.1.0: to be compared */
#define FFAI_VERSION (10000 * FFAI_VERSION_MAJOR + 100 * FFAI_VERSION_MINOR + FFAI_VERSION_PATCH)

/* ---- errors ---- */

/* X(name, value, text) */
#define FFAI_CODES(X)                                                                                                  \
    X(FFAI_OK, 0, "ok")                                                                                                \
    X(FFAI_EINVAL, -1, "invalid argument")                                                                             \
    X(FFAI_ENOMEM, -2, "out of memory")                                                                                \
    X(FFAI_EIO, -3, "file cannot be read or written")                                                                  \
    X(FFAI_EFORMAT, -4, "malformed file")                                                                              \
    X(FFAI_ENOTSUP, -5, "not supported")                                                                               \
    X(FFAI_ELIMIT, -6, "limit exceeded")                                                                               \
    X(FFAI_ECANCEL, -7, "cancelled")                                                                                   \
    X(FFAI_EINTERNAL, -8, "internal error")

typedef enum ffai_code {
#define FFAI_X(name, value, text) name = value,
    FFAI_CODES(FFAI_X)
#undef FFAI_X
} ffai_code;

/* What failed, for people: names the file, tensor, key or flag, and the value. One line. */
typedef struct ffai_error {
    int code;
    char msg[508];
} ffai_error;

FFAI_API const char *ffai_code_text(int code);
/* Of the library that runs, which may be newer than the header that a program was built with. */
FFAI_API const char *ffai_version(void); /* "0.1.0" */
FFAI_API int ffai_version_number(void);  /* FFAI_VERSION */

/* Frees strings and arrays that functions below hand over. */
FFAI_API void ffai_free(void *p);

/* ---- families ---- */

typedef struct ffai_family_info {
    const char *name;        /* "llama" */
    const char *model_types; /* comma-separated values of config.json's model_type */
    const char *archs;       /* comma-separated architecture strings */
    const char *modality;    /* "text" */
    const char *task;        /* "generate" */
    const char *formats;     /* comma-separated weight formats */
    const char *devices;     /* comma-separated: "cpu,cuda" */
    const char *repos;       /* comma-separated repo ids whose checkpoints were verified, "" when none */
    bool parity;             /* has a parity test against the official implementation */
} ffai_family_info;

/* Fills info for family i; false past the last one. */
FFAI_API bool ffai_family_at(size_t i, ffai_family_info *info);

/* ---- models ---- */

typedef struct ffai_model ffai_model;

typedef struct ffai_model_opts {
    const char *weights; /* "map" (default, "auto"): used from the file mapping; "private": copied to memory */
    bool config_only;    /* the weights may be missing; nothing that needs them works then */
    bool tokenizer_only; /* config.json may be missing too and the family unknown; only the functions of "tokens" below
                            work */
    const char *synthetic; /* random weights of this format instead of the checkpoint's: "affine4g64", "bf16", "mxfp4",
                              "q8_0", ...; NULL: no. The folder needs config.json only */
    const char *chat_template; /* source of a chat template instead of the checkpoint's own; NULL: its own */
} ffai_model_opts;

/* path: a folder in HuggingFace or mlx layout, or a .gguf file; with tokenizer_only also a tokenizer file by itself.
 * opts may be NULL. */
FFAI_API int ffai_model_open(ffai_model **out, const char *path, const ffai_model_opts *opts, ffai_error *err);
FFAI_API void ffai_model_free(ffai_model *m);
/* Weights are used from the mapped files. Files may be removed and replaced by others of their names, but not written:
 * a file that is, makes steps on the CPU fail with FFAI_EIO. One that becomes shorter raises SIGBUS where the missing
 * part is read, which ends the process unless the host handles it. A handler may ask for each of its models whether the
 * address of the fault (si_addr) is its: true: the page was replaced by zeros, the thread can go on, and the step that
 * read it fails. Calls nothing that a signal handler may not. Not for a model that is being opened or freed. */
FFAI_API bool ffai_model_lost_page(ffai_model *m, const void *address);

/* Writes a model with synthetic weights as a checkpoint: dir/model.safetensors and dir/config.json, mlx layout. dir
 * exists. Block formats of GGUF have no safetensors type and are refused. */
FFAI_API int ffai_model_write_synthetic(const ffai_model *m, const char *dir, ffai_error *err);

typedef struct ffai_model_info {
    const char *path, *family, *model_type, *arch;
    const char *format;         /* what most weight bytes are stored as: "bf16", "affine 4-bit g64", "q4_k" */
    const char *container;      /* "safetensors", "torch" or "gguf" */
    int64_t n_param;            /* of bound tensors, logical elements */
    int64_t n_active;           /* of those, what a token goes through: without the experts that it does not choose */
    int64_t weight_bytes;       /* stored bytes of bound tensors */
    int64_t n_tensor, n_unused; /* tensors in the files; those that the family does not use */
    int64_t n_layer, dim, n_head, n_kv_head, head_dim, ff_dim, vocab, max_ctx;
    int64_t n_expert, n_expert_used, expert_dim; /* of layers that are mixtures of experts; 0: there are none */
    bool tied;                                   /* the head is the embedding matrix */
    const char
        *ignored; /* comma-separated keys of generation_config.json that ask for what ffai does not do, mostly "" */
    const char
        *extra; /* tensors among the text model's that its family does not know: a sign of another variant, mostly
                   "" */
    const char
        *widened; /* quantized matrices that became f16 or f32, as no format of ours has their groups; mostly "" */
    int block;    /* tokens that the model was made to fill in at a time (ffai_diffusion); 0: it cannot */
} ffai_model_info;

FFAI_API void ffai_model_get_info(const ffai_model *m, ffai_model_info *info); /* strings live as long as the model */

typedef struct ffai_tensor_info {
    const char *name, *dtype, *format,
        *file; /* dtype as in the file; format: how it is computed, "" when unused by the family */
    int64_t dim[8];
    int n_dim;
    int64_t bytes;
    bool used;
} ffai_tensor_info;

/* Tensor i of the checkpoint in name order; false past the last one. */
FFAI_API bool ffai_model_tensor_at(const ffai_model *m, size_t i, ffai_tensor_info *info);

/* Matrices that are stored alike; what info->n_param and weight_bytes have beyond them are vectors: norms, biases. */
typedef struct ffai_weight_kind {
    const char *format; /* "affine 4-bit g64"; lives as long as the model */
    int64_t n_matrix, n_param, bytes;
} ffai_weight_kind;

/* The kinds of a model's matrices, the one with most bytes first; false past the last one. */
FFAI_API bool ffai_model_kind_at(const ffai_model *m, size_t i, ffai_weight_kind *kind);
/* config.json's text (for GGUF: the equivalent that was synthesised); lives as long as the model. */
FFAI_API const char *ffai_model_config_text(const ffai_model *m);

/* ---- the hub: models by their id, and the local cache of them ---- */

/* A model hub is a server with the API of huggingface.co; the cache is the folder that Python's huggingface_hub keeps,
 * in its layout and with its locks: both may use it at once. docs/hub.md. The caller reads the environment, if it
 * wants to (HF_HUB_CACHE, HF_TOKEN, ...). */
typedef struct ffai_hub_progress {
    const char *repo;
    int64_t n_file, n_file_done; /* of those that are fetched now */
    int64_t bytes, bytes_done;   /* the same, with what earlier attempts left */
    double bytes_per_s;          /* over the last seconds */
    const char *waiting;         /* why nothing comes for now, or NULL */
} ffai_hub_progress;

typedef struct ffai_hub_opts {
    const char *cache;      /* the folder with models--org--name; needed */
    const char *endpoint;   /* NULL: "https://huggingface.co" */
    const char *token;      /* for private and gated repositories; is sent to the endpoint and to no other host */
    const char *http_proxy; /* of http:// and https:// URLs; NULL: none */
    const char *https_proxy;
    const char *no_proxy;       /* comma-separated hosts that are reached without one */
    const char *ca_file;        /* certificates to trust in place of the system's; NULL: the system's */
    bool offline;               /* the cache only */
    bool update;                /* asks the hub even when the cache holds the revision */
    bool dry_run;               /* finds out what would be fetched, writes nothing */
    bool no_weights;            /* config, tokenizer and templates are enough (a GGUF file holds all of them) */
    int n_connection;           /* transfers at once; 0: 8 */
    const char *const *include; /* patterns of files to fetch in place of what the model needs; NULL at the end */
    const char *const *exclude; /* and of files to leave out */
    bool (*progress)(void *user, const ffai_hub_progress *p); /* some times a second; false cancels. May be NULL */
    void *user;
} ffai_hub_opts;

/* Whether the text has the form of an id, "org/name[:part][@revision]". A program asks for a file of that name first.
 */
FFAI_API bool ffai_hub_is_id(const char *text);

typedef struct ffai_hub_model ffai_hub_model;
/* Finds the model in the cache, and fetches what is missing: weights of one format (safetensors before GGUF), config,
 * tokenizer, templates. Every file is verified before it gets its name; what was fetched when an error or `progress`
 * ended it is used by the next attempt. part: of a GGUF file's name when there are several ("q8_0"; default q4_k_m). */
FFAI_API int ffai_hub_pull(ffai_hub_model **out, const char *id, const ffai_hub_opts *opts, ffai_error *err);
FFAI_API void ffai_hub_model_free(ffai_hub_model *m);

typedef struct ffai_hub_model_info {
    const char *path; /* for ffai_model_open: a folder or a .gguf file */
    const char *repo, *revision, *commit;
    int64_t n_file, bytes;            /* of the model */
    int64_t n_fetched, bytes_fetched; /* of those, what came (or, in a dry run, would come) over the network now */
} ffai_hub_model_info;
FFAI_API void ffai_hub_model_get_info(const ffai_hub_model *m, ffai_hub_model_info *info); /* lives as long as m */

typedef struct ffai_hub_file_info {
    const char *name;
    int64_t bytes;
    int64_t fetch; /* bytes of it that came over the network, or would */
    bool used;     /* belongs to what was asked for */
} ffai_hub_file_info;
/* File i of the repository in name order; false past the last one. Only the files in use are known when the cache alone
 * was asked and holds no listing. */
FFAI_API bool ffai_hub_model_file_at(const ffai_hub_model *m, size_t i, ffai_hub_file_info *info);

/* One revision of a model in the cache. */
typedef struct ffai_hub_cached {
    const char *repo, *commit;
    const char *refs; /* branches and tags that stand for it, comma-separated; "" */
    int64_t n_file;
    int64_t bytes;     /* of its files */
    int64_t own_bytes; /* of those that no other revision shares */
    int64_t used;      /* last use, seconds since 1970 */
    bool complete;     /* no file is known to be missing */
} ffai_hub_cached;
typedef struct ffai_hub_list ffai_hub_list;
FFAI_API int ffai_hub_list_create(ffai_hub_list **out, const char *cache, ffai_error *err);
FFAI_API void ffai_hub_list_free(ffai_hub_list *l);
FFAI_API bool ffai_hub_list_at(const ffai_hub_list *l, size_t i, ffai_hub_cached *c);
/* What is in no revision: unfinished downloads, leftovers. */
FFAI_API int64_t ffai_hub_list_loose_bytes(const ffai_hub_list *l);

/* Removes a model from the cache, or with "org/name@revision" (branch, tag, commit or the beginning of one) this
 * revision and what no other one needs. *freed: bytes; may be NULL. Refused while somebody downloads it. */
FFAI_API int ffai_hub_remove(const char *cache, const char *id, bool dry_run, int64_t *freed, ffai_error *err);
/* Removes what nobody asks for by name: revisions that no branch or tag stands for, unfinished downloads, contents that
 * no revision uses. Repositories that somebody downloads just now are left alone. */
FFAI_API int ffai_hub_prune(const char *cache, bool dry_run, int64_t *freed, ffai_error *err);

/* ---- tokens ---- */

enum {
    FFAI_TOK_SPECIAL = 1,          /* add BOS / EOS as the checkpoint says */
    FFAI_TOK_NO_PARSE_SPECIAL = 2, /* text of special tokens is plain text */
    FFAI_TOK_PARSE_SPECIAL = 4 /* it is those tokens, even where the original keeps them out of texts (tekken.json, a
                                  lone SentencePiece model): for what a chat template has rendered */
};

/* One line about the tokenizer ("BPE, byte-level, 4096 tokens, bos 0, eos 1"), or the reason why there is none. Loads
 * it on first use. */
FFAI_API int ffai_tokenizer_text(ffai_model *m, char *buf, size_t cap, ffai_error *err);
/* *ids: free with ffai_free. Text may contain NUL and invalid UTF-8 (read as U+FFFD). */
FFAI_API int ffai_tokenize(ffai_model *m, const char *text, size_t len, unsigned flags, int32_t **ids, size_t *n,
                           ffai_error *err);
/* *text: NUL-terminated, free with ffai_free. skip_special leaves special tokens out. */
FFAI_API int ffai_detokenize(ffai_model *m, const int32_t *ids, size_t n, bool skip_special, char **text, size_t *len,
                             ffai_error *err);

/* ---- chat templates ---- */

/* A chat template: the Jinja dialect of HuggingFace checkpoints, rendered as transformers' apply_chat_template does.
 * Immutable. */
typedef struct ffai_template ffai_template;

/* source: the template's text, not kept; what: names it in messages. Syntax errors name line and column. */
FFAI_API int ffai_template_parse(ffai_template **out, const char *source, size_t len, const char *what,
                                 ffai_error *err);
FFAI_API void ffai_template_free(ffai_template *t);
/* json: an object; "messages", "tools", "documents", "add_generation_prompt" and every other key are the template's
 * variables. *text: NUL-terminated, free with ffai_free. Time, memory and depth are bounded. */
FFAI_API int ffai_template_render(const ffai_template *t, const char *json, size_t len, char **text, size_t *n,
                                  ffai_error *err);

/* Template i of the checkpoint: *name ("default", "tool_use", ...), *source; both live as long as the model. 1: filled;
 * 0: i is past the last one; < 0: error. */
FFAI_API int ffai_model_template_at(ffai_model *m, size_t i, const char **name, const char **source, ffai_error *err);
/* Renders the checkpoint's template `name`; NULL: as transformers picks it ("tool_use" when there are tools and such a
 * template, else "default"). The tokenizer's special tokens (bos_token, ...) are variables too, those of json win. */
FFAI_API int ffai_chat_render(ffai_model *m, const char *name, const char *json, size_t len, char **text, size_t *n,
                              ffai_error *err);

/* Whether the checkpoint was made for conversations: it has a chat template that ends turns with a token that ends
 * generation. Base models often carry a template too, but end texts with another token. */
FFAI_API bool ffai_model_is_chat(ffai_model *m);
/* The text that ends an answer in the template `name` of a checkpoint whose EOS does not, for use as a stop string;
 * *text NULL: there is none. Free with ffai_free. */
FFAI_API int ffai_chat_stop(ffai_model *m, const char *name, char **text, ffai_error *err);

/* ---- answers: text, reasoning and tool calls out of a model's output ---- */

/* Splits one answer as it streams in; no part ever holds a piece of a tag. */
typedef struct ffai_parser ffai_parser;

typedef enum ffai_part_kind {
    FFAI_PART_TEXT,      /* more of the answer */
    FFAI_PART_REASONING, /* more of the reasoning */
    FFAI_PART_TOOL_CALL  /* one whole call */
} ffai_part_kind;

typedef struct ffai_part {
    ffai_part_kind kind;
    const char *text; /* TEXT, REASONING: UTF-8; TOOL_CALL: its arguments, a JSON object */
    size_t len;
    const char *name; /* TOOL_CALL: the function; else NULL */
    const char *id;   /* TOOL_CALL: the model's id of the call, NULL when its format has none */
} ffai_part;

typedef struct ffai_parser_opts {
    const char
        *format; /* NULL or "auto": from the checkpoint's chat template; "none"; or a name of ffai_parser_format_at */
    const char *prompt; /* the rendered prompt (what precedes the answer), to know whether reasoning is already open;
                           may be NULL */
    size_t prompt_len;
    const char *tools; /* JSON array of the tools that were offered, as in the template's input; may be NULL. Formats
                          whose arguments are text (XML) take the types from it */
} ffai_parser_opts;

/* m may be NULL when a format is named. */
FFAI_API int ffai_parser_create(ffai_parser **out, ffai_model *m, const ffai_parser_opts *opts, ffai_error *err);
FFAI_API void ffai_parser_free(ffai_parser *p);
/* More of the output, with the text of special tokens (ffai_request_opts.keep_special); any cut, also inside a
 * character. Never fails on what a model may write: what is no valid call comes out as text. */
FFAI_API int ffai_parser_push(ffai_parser *p, const char *text, size_t len, ffai_error *err);
/* The output has ended: what was held back comes out. */
FFAI_API int ffai_parser_finish(ffai_parser *p, ffai_error *err);
/* The next part; false when there is none now. Strings are valid until the next call on this parser. */
FFAI_API bool ffai_parser_next(ffai_parser *p, ffai_part *part);
FFAI_API const char *ffai_parser_format(const ffai_parser *p); /* the format in use */
/* Names of formats; NULL past the last one. */
FFAI_API const char *ffai_parser_format_at(size_t i);

/* ---- grammars: output that cannot break a rule ---- */

/* What a model may write, compiled for its vocabulary. Immutable. */
typedef struct ffai_grammar ffai_grammar;

/* kind: "gbnf" (llama.cpp's grammar notation, root rule "root"), "json-schema" (JSON Schema; "{}" or "true": any JSON),
 * "regex". Errors name line and column. The model must outlive the grammar. */
FFAI_API int ffai_grammar_compile(ffai_grammar **out, ffai_model *m, const char *kind, const char *text, size_t len,
                                  ffai_error *err);
FFAI_API void ffai_grammar_free(ffai_grammar *g);

/* ---- engines ---- */

typedef struct ffai_engine ffai_engine;

/* Zero or NULL means the default of each field. */
typedef struct ffai_engine_opts {
    const char *device; /* "cpu"; "cuda" or "cuda:N": a GPU; "auto" (default): the first GPU that the model fits, else
                           the CPU */
    const char *precision; /* "fast" (default), "exact" */
    const char *kv_cache;  /* "f32", "f16", "bf16", "q8" (8 bits, a scale per 32); default f16, in exact f32 */
    const char *cpu; /* highest instruction set: "c"; "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx",
                        "amxint8"; "neon", "neondot", "neoni8mm", "neonbf16". NULL: all that the machine has and that
                        pays (avx512bf16, amxint8 and neonbf16 must be named). Device "auto" then means the CPU */
    int n_thread;    /* default: one for each physical core of the fastest kind that this process may use, no more than
                        its cgroup gives it time for (docs/threads.md) */
    int n_ctx;       /* tokens per sequence; default: the model's maximum, at most 4096 */
    int n_slot;      /* sequences at a time; default 1 */
    int n_chunk;     /* most prompt tokens in one step; default 512, on a GPU 2048, with experts 8192 */
    bool composed;   /* debugging: run every fused operation as its primitives */
    bool profile;    /* collect time per operation, see ffai_engine_profile; a GPU then runs them one by one */
    const char *cuda_module; /* path of libffai_cuda.so; NULL: beside the library or program, in the lib folders next to
                                it, or where the system looks */
    const char *pin; /* CPU: "on": every thread on a processor of its own, the caller's too while it works here; "off":
                        the system places them; "auto" (default): off, but on fast cores where there are slow ones */
} ffai_engine_opts;

/* The model must outlive the engine. */
FFAI_API int ffai_engine_create(ffai_engine **out, ffai_model *m, const ffai_engine_opts *opts, ffai_error *err);
FFAI_API void ffai_engine_free(ffai_engine *e); /* frees its requests too: none may be used afterwards */

/* What an engine with these options needs, without creating it. A GPU need not exist: then the work memory of its
 * kernels is not counted. */
typedef struct ffai_plan {
    int64_t weight_bytes, cache_bytes, arena_bytes, total_bytes;
    int64_t cache_bytes_per_token; /* of a sequence within all windows */
    int n_ctx, n_slot, n_chunk, n_record;
    double decode_flops, decode_bytes;   /* of one decode step of all slots at the end of the context */
    double prefill_flops, prefill_bytes; /* of one full chunk */
} ffai_plan;

FFAI_API int ffai_engine_plan(ffai_model *m, const ffai_engine_opts *opts, ffai_plan *plan, ffai_error *err);

typedef struct ffai_engine_info {
    const char *device, *isa, *precision, *kv_cache;
    int n_thread, n_ctx, n_slot, n_chunk;
    int64_t cache_bytes, arena_bytes; /* reserved; resident as used */
    int64_t device_bytes;             /* these and the weights, where the engine runs */
    const char *passed_over; /* device "auto": why no GPU was taken, "" when one was. Lives as long as the engine */
    const char *pin;         /* what came of it: "on", "off", "auto" (threads stay on fast cores); "" on a GPU */
} ffai_engine_info;

FFAI_API void ffai_engine_get_info(const ffai_engine *e, ffai_engine_info *info);

/* Totals since the engine was created; times in seconds of steps that held prompt rows (prefill) and of those that did
 * not (decode). */
typedef struct ffai_engine_stats {
    int64_t prompt_tokens, gen_tokens;
    double prefill_s, decode_s;
    int64_t reused_tokens; /* of prompts, found in the cache: not part of prompt_tokens */
    /* GPU: decode steps that were timed, and what preparing and beginning them took of the host's thread */
    int64_t host_steps;
    double host_s;
    int64_t device_picks; /* tokens that the GPU picked by itself; others are sampled on the host */
    /* ffai_diffusion: blocks that were filled or drafted and checked; passes that filled them (one for each draft);
     * tokens that those passes proposed, and how many of them came into the text */
    int64_t blocks, block_passes, block_proposed, block_accepted;
} ffai_engine_stats;

FFAI_API void ffai_engine_get_stats(const ffai_engine *e, ffai_engine_stats *stats);

/* Time per operation since creation, with opts.profile: fills row i; false past the last one. A GPU's kernels follow
 * the operations: their times are parts of them. */
typedef struct ffai_profile_row {
    const char *op;
    int64_t calls;
    double seconds, bytes, flops;
    const char *kernel; /* NULL: the row is the whole operation */
} ffai_profile_row;

FFAI_API bool ffai_engine_profile(const ffai_engine *e, size_t i, ffai_profile_row *row);

/* ---- adapters: LoRA, DoRA ---- */

/* Low-rank changes of a model's linear layers, experts and embeddings, y += scale * B (A x), as PEFT and mlx-lm train
 * them, with magnitudes or without.
 * Loaded into an engine beside the model, whose weights, quantized or not, stay as they are; each request says which
 * ones it uses and how strongly. docs/lora.md. */
typedef struct ffai_adapter ffai_adapter;

/* One of those that a request uses. */
typedef struct ffai_adapter_use {
    ffai_adapter *adapter;
    float scale; /* times the adapter's own; 0: off, magnitudes too. Any finite number. Of the same adapter twice: the
                    sum */
} ffai_adapter_use;

/* path: a folder with adapter_config.json and adapter_model.safetensors (PEFT) or adapters.safetensors (mlx-lm), or
 * that weight file. Between steps, also while requests run. It goes with its engine. Refused: an adapter that changes
 * what the model does not have, or that is more than a low-rank sum with or without magnitudes (changed biases,
 * modules_to_save). */
FFAI_API int ffai_adapter_load(ffai_adapter **out, ffai_engine *e, const char *path, ffai_error *err);
/* Refused while an unfinished request uses it. NULL is fine. */
FFAI_API int ffai_adapter_drop(ffai_adapter *a, ffai_error *err);

typedef struct ffai_adapter_info {
    const char *path;
    const char *kind; /* "peft", "mlx" */
    int64_t n_matrix; /* matrices of the model that it changes; a stack of experts is one */
    int64_t rank;     /* the largest */
    int64_t bytes;    /* where the engine runs */
} ffai_adapter_info;

FFAI_API void ffai_adapter_get_info(const ffai_adapter *a, ffai_adapter_info *info);

/* What sequences of this engine use from now on that name no adapters themselves: new requests, ffai_eval, ffai_embed,
 * ffai_bench. None at first. */
FFAI_API int ffai_engine_use_adapters(ffai_engine *e, const ffai_adapter_use *use, size_t n, ffai_error *err);

/* ---- requests ---- */

/* How tokens are picked. A zero field turns its sampler off, so {0} is greedy. First the bans and logit_bias, then the
 * samplers in the order of `samplers`, then the draw; greedy decoding takes the likeliest after bans, bias, penalties
 * and DRY. docs/sampling.md has the formulas. Arrays and strings are copied by ffai_submit. */
typedef struct ffai_sampling {
    float temp;           /* temperature; 0: greedy */
    float temp_range;     /* dynamic temperature: temp +- range by the entropy of the distribution */
    float temp_exponent;  /* of the entropy in dynamic temperature; 0: 1 */
    int top_k;            /* the k likeliest */
    float top_p;          /* nucleus; 0 or 1: off */
    float min_p;          /* at least min_p times as likely as the likeliest */
    float typical;        /* locally typical sampling, https://arxiv.org/abs/2202.00666; 0 or 1: off */
    float top_n_sigma;    /* logits within n standard deviations of the greatest, https://arxiv.org/abs/2411.07641 */
    float xtc_prob;       /* exclude top choices: how often */
    float xtc_threshold;  /* and which: those at least this likely, but for the last of them; 0: 0.1, above 0.5: off */
    float repeat_penalty; /* divides positive and multiplies negative logits of tokens seen; 0 or 1: off */
    float presence_penalty, frequency_penalty; /* subtracted once, and per occurrence */
    int repeat_last;                           /* tokens that the penalties look back; 0: all, with the prompt */
    float dry_multiplier;   /* "don't repeat yourself": penalty multiplier * base ^ (length - allowed_length) */
    float dry_base;         /* 0: 1.75 */
    int dry_allowed_length; /* 0: 2 */
    int dry_last;           /* tokens that DRY looks back; 0: all */
    const char *const *dry_breakers; /* strings that end a repetition; NULL: newline, ":", '"', "*" */
    size_t n_dry_breaker;            /* 0 with dry_breakers set: none */
    float mirostat_tau; /* > 0: mirostat 2 with this target surprise in bits, https://arxiv.org/abs/2007.14966; the cuts
                           (top_n_sigma .. xtc) are off then, penalties, dry and temp work as ordered */
    float mirostat_eta; /* its learning rate; 0: 0.1 */
    const struct ffai_logit_bias *bias; /* added to logits first; -INFINITY forbids a token */
    size_t n_bias;
    const char *samplers; /* order, e.g. "penalties,dry,top_n_sigma,temp,top_k,top_p,min_p,typical,xtc" (the default: as
                             transformers, temperature before the cuts); what is not named is off */
    uint64_t seed;        /* same seed, same tokens, whatever the number of threads and whoever shares the batch */
    /* What generation_config.json may ask for besides; ffai_sampling_default fills it. */
    float top_h;                   /* https://arxiv.org/abs/2509.02510; 0 or 1: off */
    float epsilon_cutoff;          /* tokens at least this likely, https://arxiv.org/abs/2210.15191 */
    float eta_cutoff;              /* the same with a bound that the entropy lowers */
    int no_repeat_ngram;           /* forbids the token that would complete an n-gram of this length a second time */
    int min_new, min_length;       /* end-of-text tokens are forbidden before so many new ones, so many in all */
    const int32_t *begin_suppress; /* forbidden as the first new token */
    size_t n_begin_suppress;
    const struct ffai_token_list *bad_words; /* sequences that must not come to be */
    size_t n_bad_word;
} ffai_sampling;

typedef struct ffai_logit_bias {
    int32_t id;
    float bias;
} ffai_logit_bias;

typedef struct ffai_token_list {
    const int32_t *ids;
    size_t n;
} ffai_token_list;

/* The values of generation_config.json, or of a GGUF file's general.sampling.*, else greedy. Without "do_sample": true
 * temp is 0 and the other values wait for one. Arrays live as long as the model. */
FFAI_API void ffai_sampling_default(const ffai_model *m, ffai_sampling *s);
/* Whether a request of this model would take the options; the message names the one that it would not. */
FFAI_API int ffai_sampling_check(ffai_model *m, const ffai_sampling *s, ffai_error *err);
/* Sampler i's name as `samplers` takes it, in the default order; NULL past the last one. */
FFAI_API const char *ffai_sampler_at(size_t i);

typedef struct ffai_request ffai_request;

/* How a model that can fill in masks (ffai_model_info.block) makes its tokens. Zero or NULL means the default of each
 * field. docs/diffusion.md has the algorithms. */
typedef enum ffai_diffusion_mode {
    FFAI_DIFFUSION_OFF,      /* from left to right, one token a step, as any model */
    FFAI_DIFFUSION_BLOCK,    /* blocks of masks, filled in where the model is sure; text comes block by block */
    FFAI_DIFFUSION_SELF_SPEC /* drafts a block at once and keeps of it what going from left to right gives as well: the
                                same tokens as FFAI_DIFFUSION_OFF, in fewer steps */
} ffai_diffusion_mode;

typedef struct ffai_diffusion {
    ffai_diffusion_mode mode;
    int block; /* tokens of a block, or of the longest draft: at most 64; default: the model's block, drafts at most 32
                */
    const ffai_adapter_use *draft; /* SELF_SPEC: adapters that drafts use besides the request's own */
    size_t n_draft;
    /* BLOCK */
    int steps;            /* most passes over a block; default 32 */
    const char *sampler;  /* which candidates a pass keeps: "native" (default), "fixed", "confidence_threshold_ref",
                             "confidence_threshold_bound", "cumulative_error", "even" */
    float confidence;     /* of candidates that are kept: a probability; default 0.9 */
    float min_confidence; /* confidence_threshold_bound: below it a candidate is kept only if it is the best; default
                             0.45 */
    float factor;         /* of the bound that falls with the rank; default 1, 2 in confidence_threshold_bound */
    int n_transfer;       /* fixed: tokens that a pass keeps; default 1 */
    int max_transfer;     /* most tokens that a pass keeps; default: any number */
} ffai_diffusion;

/* Name i of ffai_diffusion.sampler; NULL past the last one. */
FFAI_API const char *ffai_diffusion_sampler_at(size_t i);

struct ffai_event;

/* Clears bits of tokens that must not come next: bit id % 32 of bits[id / 32], all set before the call. ids [n]: the
 * prompt and what was generated. */
typedef void ffai_mask_fn(void *user, const int32_t *ids, size_t n, uint32_t *bits);
typedef void ffai_event_fn(void *user, ffai_request *r, const struct ffai_event *ev);

typedef struct ffai_request_opts {
    const int32_t *ids; /* the prompt, copied; at least one token */
    size_t n_ids;
    int64_t max_new; /* 0: until the context is full */
    ffai_sampling sampling;
    const char *const *stop; /* strings that end generation and are not part of the output */
    size_t n_stop;
    bool ignore_eos;
    bool keep_special; /* special tokens are part of the text, as a parser needs them */
    int n_logprob;     /* likeliest tokens that events report for each token; 0: none, -1: only the token's own */
    const ffai_grammar *grammar; /* NULL: none; must outlive the request */
    ffai_mask_fn *mask;          /* NULL: none */
    ffai_event_fn *event; /* called by ffai_engine_step, at its end, when there is something new, and exactly once with
                             the finish; instead of polling. It may submit, cancel and free requests, this one too, and
                             save its session; not step or free the engine. NULL: none */
    void *user;           /* for both */
    bool fresh; /* feed the whole prompt, whatever the cache holds: the same tokens to the last bit of the logits */
    const ffai_adapter_use *adapters; /* [n_adapter]; NULL: those of ffai_engine_use_adapters */
    size_t n_adapter;                 /* 0 with adapters set: none */
    const ffai_diffusion *diffusion;  /* NULL: from left to right. Refused when the model cannot; BLOCK also with a
                                         grammar, a mask, and samplers that look at the last tokens (DRY, n-gram bans,
                                         mirostat) */
} ffai_request_opts;

typedef enum ffai_finish {
    FFAI_RUNNING,
    FFAI_FINISH_EOS,
    FFAI_FINISH_STOP,   /* a stop string */
    FFAI_FINISH_LENGTH, /* max_new or the context */
    FFAI_FINISH_CANCEL,
    FFAI_FINISH_ERROR
} ffai_finish;

/* Puts a request in the queue. A prompt that does not fit the context or has ids out of range is refused here. */
FFAI_API int ffai_submit(ffai_engine *e, const ffai_request_opts *opts, ffai_request **out, ffai_error *err);
/* Runs one step for all requests that can run. Returns 1 while there is work left, 0 when idle, < 0 on error: then the
 * requests of this step have finished with FFAI_FINISH_ERROR, and the others go on with the next step. */
FFAI_API int ffai_engine_step(ffai_engine *e, ffai_error *err);

/* Natural logarithms of the model's own distribution, before any sampler. */
typedef struct ffai_logprob {
    int32_t id;
    float logprob;
} ffai_logprob;

typedef struct ffai_event {
    const char *text; /* text that became final since the last poll: whole characters; valid until the next call on this
                         request */
    size_t text_len;
    const int32_t *ids; /* tokens since the last poll, same lifetime */
    size_t n_ids;
    const ffai_logprob
        *logprobs; /* [n_ids, 1 + n_top]: the token, then the likeliest, falling; NULL unless asked for */
    size_t n_top;
    ffai_finish finish;
} ffai_event;

FFAI_API void ffai_request_poll(ffai_request *r, ffai_event *ev);
FFAI_API const ffai_error *ffai_request_error(const ffai_request *r); /* why finish is FFAI_FINISH_ERROR */
FFAI_API void ffai_request_cancel(ffai_request *r);
FFAI_API void ffai_request_free(ffai_request *r); /* cancels first; inside an event: at the end of the step */
/* All tokens, prompt first, and how many of the prompt were found in the cache (0 until the request has begun). */
FFAI_API void ffai_request_ids(const ffai_request *r, const int32_t **ids, size_t *n, size_t *n_prompt,
                               size_t *n_reused);

/* The cache of a finished (cancelled, freed) request stays in its slot until another one needs it: a prompt that begins
 * with the same tokens goes on from there. The result is that of feeding all from the start, but for the order of
 * sums: opts.fresh gives the same bits again. A session is such a prefix in a file. */

/* Writes tokens and cache of a request between steps: running, or finished while its slot was not used again. The file
 * appears whole under its name or not at all (written next to it, synced, renamed); it is readable by its owner only.
 */
FFAI_API int ffai_session_save(ffai_request *r, const char *path, ffai_error *err);
/* Puts a session into a free slot, as if its request had just finished there; *ids (free with ffai_free): its tokens,
 * which the next prompt begins with. A file that is damaged, of another model or cache type, or with more tokens than
 * the context is refused, and the engine stays as it was. */
FFAI_API int ffai_session_load(ffai_engine *e, const char *path, int32_t **ids, size_t *n, ffai_error *err);

/* ---- embeddings ---- */

typedef struct ffai_embed_opts {
    const char *pooling; /* NULL: as the checkpoint's sentence-transformers modules say, else "mean"; "mean", "last",
                            "cls", "max" */
    int normalize;       /* 1: to length 1, -1: not, 0: as the modules say, else not */
} ffai_embed_opts;

/* Values of an embedding: the model's dim, unless the checkpoint's modules end in another. */
FFAI_API int ffai_embed_dim(ffai_model *m, int64_t *dim, ffai_error *err);
/* The pooled hidden state (after the final norm, then what the checkpoint's modules do to it) of one sequence of n
 * tokens: out [ffai_embed_dim]. The engine must have no running requests. A model without output head will do. */
FFAI_API int ffai_embed(ffai_engine *e, const int32_t *ids, size_t n, const ffai_embed_opts *opts, float *out,
                        ffai_error *err);
/* The same for n_seq sequences, as many at a time as the engine has slots: ids[i] has n[i] tokens, out [n_seq,
 * ffai_embed_dim]. */
FFAI_API int ffai_embed_batch(ffai_engine *e, const int32_t *const *ids, const size_t *n, size_t n_seq,
                              const ffai_embed_opts *opts, float *out, ffai_error *err);

/* ---- evaluation: logits and taps of a known sequence ---- */

/* A tap: a named intermediate array of one step, f32, row-major. rows are the step's tokens. */
typedef void ffai_logits_fn(void *user, int64_t row, const float *logits, int64_t vocab);
typedef void ffai_tap_fn(void *user, const char *name, int layer, const float *data, const int64_t *dim, int n_dim);

typedef struct ffai_eval_opts {
    const int32_t *ids;
    size_t n_ids;
    int chunk;       /* prompt tokens per step; 0: the engine's n_chunk */
    int decode_from; /* > 0: ids from this index on are fed one at a time */
    int batch; /* the sequence this many times at once, each in its own slot; 0: once. Logits of sequence 0 are returned
                */
    ffai_logits_fn *logits; /* receives every row of sequence 0 in order; may be NULL */
    ffai_tap_fn *tap;       /* may be NULL */
    void *user;             /* for both */
} ffai_eval_opts;

/* The engine must have no running requests, n_ctx >= n_ids and n_slot >= batch. */
FFAI_API int ffai_eval(ffai_engine *e, const ffai_eval_opts *opts, ffai_error *err);

/* Speed of n_tok-token steps: feeds every one of `batch` sequences `depth` tokens untimed, then runs and times `n_step`
 * steps of n_tok tokens each (n_step 1, n_tok P: prefill; n_tok 1: decode). Token ids are arbitrary. seconds: by the
 * caller, [n_step]. */
FFAI_API int ffai_bench(ffai_engine *e, int batch, int depth, int n_tok, int n_step, double *seconds, ffai_error *err);

/* ---- conversion ---- */

/* How modules whose name matches are stored. */
typedef struct ffai_convert_rule {
    const char *pattern;  /* a regular expression, matched anywhere in a module's name (without ".weight") */
    const char *mode;     /* NULL: "affine" */
    int bits, group_size; /* 0: the mode's own */
    bool keep;            /* not quantized at all */
} ffai_convert_rule;

typedef struct ffai_convert_opts {
    const char *mode;     /* "affine", "mxfp4", "mxfp8", "nvfp4"; NULL with bits and group_size 0: weights keep their
                             formats as far as safetensors have them, blocks of GGUF become floats */
    int bits, group_size; /* affine: 2 3 4 5 6 8 and 32 64 128; 0: 4 and 64, or what the mode has */
    const char *dtype;    /* "f32", "f16", "bf16": of what is not quantized, and of scales; NULL: as it is stored */
    const ffai_convert_rule *rules; /* [n_rule]; the last one that matches counts */
    size_t n_rule;
    bool dequantize;     /* all weights become floats */
    int64_t shard_bytes; /* a file's limit; 0: 5 GiB */
    int n_thread;        /* 0: the processors that this process may use */
    /* Affine quantization weighed with what goes into each layer when the model reads these tokens: a better grid for
     * the same bits. NULL: plain rounding, as mlx does it. */
    const int32_t *calibration; /* [n_calibration] */
    size_t n_calibration;
    double bits_per_weight; /* with a calibration: widths are chosen for each matrix so that all of them, with scales,
                               take at most so many bits a weight; 0: all have `bits` */
    /* Called by the calling thread now and then with bytes of the result; false ends the conversion. May be NULL. */
    bool (*progress)(void *user, int64_t done, int64_t total);
    void *user;
} ffai_convert_opts;

typedef struct ffai_convert_info {
    int64_t n_tensor, bytes; /* of the result */
    int64_t n_weight;        /* values in matrices */
    double bits_per_weight;  /* of matrices, with their scales */
    int n_file;              /* weight files */
    int64_t n_requantized;   /* matrices that were quantized before, and are now in another way */
} ffai_convert_info;

/* Writes the checkpoint at path (any that ffai_model_open reads) to the folder out in mlx's layout: safetensors,
 * config.json, and the tokenizer's files. Streams: memory does not grow with the model. out must not exist (an empty
 * folder is fine) and appears whole or not at all. opts and info may be NULL. */
FFAI_API int ffai_convert(const char *path, const char *out, const ffai_convert_opts *opts, ffai_convert_info *info,
                          ffai_error *err);

/* ---- devices ---- */

typedef struct ffai_device_info {
    char name[16];          /* as in ffai_engine_opts.device: "cpu", "cuda:0" */
    char isa[32];           /* instruction set that the kernels use: "avx512vnni"; of a GPU its architecture: "sm_90" */
    char driver[64];        /* "580.95.05 (CUDA 13.0)", "" where there is none */
    char model[128];        /* "AMD EPYC 9654", "" when it is unknown */
    int n_thread;           /* processors that this process may use; of a GPU its multiprocessors */
    int64_t mem_bytes;      /* memory of the machine or the GPU, 0 when it is unknown */
    int64_t mem_free_bytes; /* of that, what can be had (on the CPU: without swapping); 0 when it is unknown */
    char cublaslt[32];      /* GPU: versions of libraries that are opened at run time, "13.1.0"; "" where not found: */
    char nccl[32];          /* matrix products of prompts need cuBLASLt, nothing needs NCCL yet */
    int n_core;             /* CPU: physical cores that those processors belong to, */
    int n_fast_core;        /* of these, the ones of the fastest kind, */
    int n_node;             /* memory nodes, */
    double cpu_limit;       /* processors that the cgroups of the process give it time for, 0: all of them, */
    int n_default;          /* and what ffai_engine_opts.n_thread is by default */
} ffai_device_info;

/* Describes device i, the CPU first; measures nothing. opts: its `cpu` and `cuda_module` are looked at; may be NULL. 1:
 * *info is filled; 0: i is past the last one, and when there is no GPU *err says why; < 0: error. */
FFAI_API int ffai_device_at(size_t i, const ffai_engine_opts *opts, ffai_device_info *info, ffai_error *err);

/* Measured limits of a device: bytes per second of a read stream, and operations (2 per multiply-add) per second of
 * matrix products by the type of what is multiplied; 0: not measured there. */
typedef struct ffai_device_rates {
    double read_bytes_s;
    double int8_ops_s; /* CPU */
    double bf16_ops_s; /* GPU */
    double f32_ops_s;  /* of a GPU without TF32 */
} ffai_device_rates;

/* opts: `device`, `n_thread` and `cuda_module` are looked at; "auto" is the CPU here. May be NULL. Takes about a
 * second. */
FFAI_API int ffai_device_limits(const ffai_engine_opts *opts, ffai_device_rates *rates, ffai_error *err);

#ifdef __cplusplus
}
#endif
#endif
