/* Decode steps as graphs: the first run of a program is plain (it loads kernels, and libraries set themselves up), the
 * second is captured, later ones are one launch.
 *
 * What a graph depends on is the program (shapes and addresses, which the engine keeps by its own key) and the cu_batch
 * that its kernels got by value. Lengths, pages and tokens are read on the device, so they are no part of it. A run
 * with another cu_batch (an array elsewhere, an embedding buffer) starts over. */
#include "backend/cuda/cu.h"

extern "C" {
#include "base/alloc.h"
}
#include <string.h>

struct cu_graph {
    fa_program *prog;
    cu_batch batch; /* what it was run with last */
    cudaGraphExec_t exec;
    struct cu_graph *next;
};

static void drop_exec(fa_cuda *cu, struct cu_graph *g) {
    if (g->exec && !cu_enter(cu->dev, NULL)) { /* after all that runs: it may be this one */
        cu_check(cu->dev, cudaStreamSynchronize(cu->stream), "waiting for a graph", NULL);
        cu_check(cu->dev, cudaGraphExecDestroy(g->exec), "freeing a graph", NULL);
    }
    g->exec = NULL;
}

void cu_graph_forget(fa_backend *be, fa_program *prog) {
    fa_cuda *cu = (fa_cuda *)be;
    struct cu_graph *g = (struct cu_graph *)prog->replay;
    if (!g) return;
    drop_exec(cu, g);
    for (struct cu_graph **p = &cu->graphs; *p; p = &(*p)->next) {
        if (*p != g) continue;
        *p = g->next;
        break;
    }
    prog->replay = NULL;
    fa_free(g);
}

void cu_graph_free(fa_cuda *cu) {
    while (cu->graphs) cu_graph_forget(&cu->be, cu->graphs->prog);
}

/* The records into *graph instead of the device. */
static int capture(fa_cuda *cu, const fa_program *prog, const cu_batch *b, cudaGraph_t *graph, fa_error *err) {
    fa_error end_err;
    *graph = NULL;
    int rc = cu_check(cu->dev, cudaStreamBeginCapture(cu->stream, cudaStreamCaptureModeThreadLocal),
                      "beginning to capture a step", err);
    if (rc) return rc;
    cu->capturing = true;
    rc = cu_run_plain(cu, prog, b, NULL, err);
    cu->capturing = false;
    int rc2 = cu_check(cu->dev, cudaStreamEndCapture(cu->stream, graph), "capturing a step", &end_err);
    if (!rc && rc2) {
        if (err) *err = end_err;
        rc = rc2;
    }
    if (rc && *graph) cudaGraphDestroy(*graph), *graph = NULL;
    return rc;
}

static int build(fa_cuda *cu, struct cu_graph *g, fa_error *err) {
    cudaGraph_t graph;
    int rc = capture(cu, g->prog, &g->batch, &graph, err);
    if (rc) return rc;
    rc = cu_check(cu->dev, cudaGraphInstantiate(&g->exec, graph, 0), "making a graph of a step", err);
    cudaGraphDestroy(graph);
    if (rc) {
        g->exec = NULL;
        return rc;
    }
    return cu_check(cu->dev, cudaGraphUpload(g->exec, cu->stream), "sending a graph", err);
}

static int replay(fa_cuda *cu, struct cu_graph *g, fa_error *err) {
    cu_device *dev = cu->dev;
    cu_inject(cu, "of a graph");
    int rc = cu_take_error(cu, err);
    return rc ? rc : cu_check(dev, cudaGraphLaunch(g->exec, cu->stream), "launching a graph", err);
}

int cu_graph_run(fa_cuda *cu, fa_program *prog, const cu_batch *b, fa_error *err) {
    struct cu_graph *g = (struct cu_graph *)prog->replay;
    if (g && memcmp(&g->batch, b, sizeof *b) == 0) {
        int rc = g->exec ? 0 : build(cu, g, err);
        if (rc) drop_exec(cu, g);
        return rc ? rc : replay(cu, g, err);
    }
    if (!g) {
        g = FA_NEW(struct cu_graph);
        if (!g) return fa_fail(err, FFAI_ENOMEM, "no memory for a graph");
        g->prog = prog;
        g->next = cu->graphs;
        cu->graphs = g;
        prog->replay = g;
    }
    drop_exec(cu, g);
    int rc = cu_run_plain(cu, prog, b, NULL, err);
    /* after a failure the next run is a first one again */
    if (rc)
        cu_graph_forget(&cu->be, prog);
    else
        g->batch = *b;
    return rc;
}
