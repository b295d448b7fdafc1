/* Elementary functions on vectors, one text for all ISAs: include a vocabulary (kern_simd_<isa>.h) first. Polynomials
 * are minimax fits of our own (Remez exchange at 50 digits, then rounded to float). */
#ifndef FA_CPU_KERN_BODY_MATH_H
#define FA_CPU_KERN_BODY_MATH_H

/* The next vector of a row of which `left` > 0 values remain. */
V_INLINE vf row_load(const float *p, int64_t left) { return left >= VL ? v_load(p) : v_loadn(p, (int)left); }
V_INLINE void row_store(float *p, vf x, int64_t left) {
    if (left >= VL) {
        v_store(p, x);
    } else {
        v_storen(p, x, (int)left);
    }
}

/* e^x, error below 1.5 ulp; -inf gives 0, +inf gives inf, NaN stays. x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 is split
 * in two so that n ln 2 is subtracted exactly. The clamp keeps n in range: e^-104 rounds to 0 and e^89 to infinity. */
V_INLINE vf v_exp(vf x) {
    x = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x));
    vf n = v_round(v_mul(x, v_set1(1.44269504f)));
    vf r = v_fnma(n, v_set1(0.693359375f), x);
    r = v_fnma(n, v_set1(-2.12194440e-4f), r);
    vf p = v_fma(v_set1(1.381454058e-03f), r, v_set1(8.368745446e-03f));
    p = v_fma(p, r, v_set1(4.166838899e-02f));
    p = v_fma(p, r, v_set1(1.666652113e-01f));
    p = v_fma(p, r, v_set1(4.999999404e-01f));
    p = v_fma(p, v_mul(r, r), r);
    return v_ldexp(v_add(p, v_set1(1.0f)), n);
}

/* 1 / (1 + e^-x) */
V_INLINE vf v_sigmoid(vf x) { return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_set1(0.0f), x)))); }

/* log(1 + e^x) as max(x, 0) + log1p(t), t = e^-|x|; log1p(t) = 2 atanh(s), s = t / (2 + t) <= 1 / 3, by its series up
 * to s^15 (the rest is below 1e-9). */
V_INLINE vf v_softplus(vf x) {
    vf t = v_exp(v_sub(v_set1(0.0f), v_abs(x))), s = v_div(t, v_add(v_set1(2.0f), t)), z = v_mul(s, s);
    vf p = v_fma(v_set1(1.0f / 15), z, v_set1(1.0f / 13));
    p = v_fma(p, z, v_set1(1.0f / 11));
    p = v_fma(p, z, v_set1(1.0f / 9));
    p = v_fma(p, z, v_set1(1.0f / 7));
    p = v_fma(p, z, v_set1(1.0f / 5));
    p = v_fma(p, z, v_set1(1.0f / 3));
    p = v_fma(v_mul(p, z), s, s);
    return v_add(v_max(v_set1(0.0f), x), v_add(p, p));
}

/* tanh: an odd polynomial below 0.625, where 1 - 2 / (e^2x + 1) would lose bits. */
V_INLINE vf v_tanh(vf x) {
    vf a = v_abs(x), z = v_mul(x, x);
    vf p = v_fma(v_set1(-5.660790019e-03f), z, v_set1(2.060200833e-02f));
    p = v_fma(p, z, v_set1(-5.372922868e-02f));
    p = v_fma(p, z, v_set1(1.333132833e-01f));
    p = v_fma(p, z, v_set1(-3.333327770e-01f));
    p = v_fma(v_mul(p, z), x, x);
    vf e = v_exp(v_add(a, a));
    vf q = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));
    return v_lt(a, v_set1(0.625f), p, v_sign(q, x));
}

/* erf: x P(x^2) below 1, else 1 - e^P(|x|), which is 1 in float from 4 on. NaN stays NaN: it fails both comparisons. */
V_INLINE vf v_erf(vf x) {
    vf a = v_abs(x), z = v_mul(x, x);
    vf p = v_fma(v_set1(7.889122935e-05f), z, v_set1(-8.020842215e-04f));
    p = v_fma(p, z, v_set1(5.189535674e-03f));
    p = v_fma(p, z, v_set1(-2.685444430e-02f));
    p = v_fma(p, z, v_set1(1.128360033e-01f));
    p = v_fma(p, z, v_set1(-3.761262596e-01f));
    p = v_mul(v_fma(p, z, v_set1(1.128379107e+00f)), x);
    vf t = v_min(v_set1(4.0f), a);
    vf q = v_fma(v_set1(-2.168674655e-05f), t, v_set1(4.413350835e-04f));
    q = v_fma(q, t, v_set1(-4.204554949e-03f));
    q = v_fma(q, t, v_set1(2.520823665e-02f));
    q = v_fma(q, t, v_set1(-1.084185466e-01f));
    q = v_fma(q, t, v_set1(-6.332198977e-01f));
    q = v_fma(q, t, v_set1(-1.129578352e+00f));
    q = v_sub(v_set1(1.0f), v_exp(v_fma(q, t, v_set1(1.880363125e-04f))));
    return v_lt(a, v_set1(1.0f), p, v_sign(q, x));
}

#endif
