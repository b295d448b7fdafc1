/* ROUTE by itself: a warp per row. */
#include "backend/cuda/route.cuh"

enum { WARPS = 4 };

static __global__ void __launch_bounds__(WARPS *CU_WARP) route_kernel(cu_route a) {
    CU_DYN_SMEM(smem);
    const int warp = (int)threadIdx.x / CU_WARP, row = (int)blockIdx.x * WARPS + warp;
    cu_pdl_launch();
    cu_pdl_wait();
    if (row >= a.n_row) return; /* the whole warp; no barriers of the block follow */
    cu_warp_route(a, row, (float *)smem + (int64_t)warp * cu_route_floats(a.n_expert, a.n_used, a.n_group));
}

static size_t route_smem(const fa_route *o) {
    return (size_t)WARPS * (size_t)cu_route_floats(o->n_expert, o->n_used, o->n_group) * sizeof(float);
}

static void route_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_route *o = r->p.route;
    const cu_route a = cu_route_of(r);
    CU_LAUNCH(cu, route_kernel, dim3(cu_blocks(a.n_row, WARPS)), WARPS * CU_WARP, route_smem(o), a);
}

static int64_t route_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    if (r->in[0].dtype != FA_F32)
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for router logits of %s", fa_dtype_name((fa_dtype)r->in[0].dtype));
    if (route_smem(r->p.route) > cu->smem_max)
        return fa_fail(err, FFAI_ENOTSUP, "%d experts do not fit the %zu bytes of shared memory", r->p.route->n_expert,
                       cu->smem_max);
    return 0;
}

extern const cu_op cu_op_route = {route_launch, route_work};
