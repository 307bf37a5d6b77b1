/* The two passes of a step over fp32 tensors on a CPU.
 *
 * Compiled when an optimizer first steps such tensors; passes.py's TorchPasses is the
 * reference. Arithmetic is in double and in the reference's order, rounded once where it is
 * stored; only sums over a unit are added up in an order of their own.
 */

#include <math.h>
#include <stdint.h>

enum { MOMENTUM, ADAM, SIGN }; /* passes.Direction */

typedef struct { float *w; const float *g; float *m, *q; } Tensors;
typedef struct { double s[5]; } Settings; /* passes.SETTINGS */
typedef struct { double ww, wu, uu, w, u; } Sums; /* sphere.SUMS */
typedef struct { double a, b, c; } Factors; /* sphere.FACTORS */
typedef struct { int64_t tensor, unit, units, start, length, row; } Tile; /* tiles.COLUMNS */

/* Inlined with literal flags, so that each becomes a loop without branches. `operand` says
 * whether the one is read that not every setting has: the weight that MOMENTUM decays by in
 * the first pass, the gradient in SIGN's direction. */
#define INLINE static inline __attribute__((always_inline))

INLINE double direction(int kind, int operand, const double *s, double m, double q, double g)
{
    if (kind == MOMENTUM)
        return m;
    if (kind == ADAM)
        return s[3] * m / (s[4] * sqrt(q) + s[2]);
    double z = operand ? s[1] * m + s[2] * g : s[1] * m;
    return z < 0 || z > 0 ? __builtin_copysign(1, z) : 0; /* 0 for NaN */
}

INLINE Sums sum_unit(int kind, int operand, int needed, const double *s, double decay,
                     const float *restrict w, const float *restrict g,
                     float *restrict m, float *restrict q, int64_t n)
{
    double keep = s[0], push = 1 - keep, keep_q = s[1], push_q = 1 - keep_q;
    double ww = 0, wu = 0, uu = 0, sum_w = 0, sum_u = 0;
#pragma omp simd reduction(+ : ww, wu, uu, sum_w, sum_u)
    for (int64_t i = 0; i < n; i++) {
        double gi = g[i], wi = needed || kind == MOMENTUM ? w[i] : 0, qi = 0;
        double pushed = kind != MOMENTUM ? push * gi : operand ? gi + decay * wi : gi;
        float mi = m[i] = keep * m[i] + pushed;
        if (kind == ADAM)
            qi = q[i] = keep_q * q[i] + push_q * gi * gi;
        if (needed) {
            double ui = direction(kind, operand, s, mi, qi, gi);
            ww += wi * wi; wu += wi * ui; uu += ui * ui;
            sum_w += wi; sum_u += ui;
        }
    }
    return (Sums){ww, wu, uu, sum_w, sum_u};
}

INLINE void move_unit(int kind, int operand, const double *s, Factors f,
                      float *restrict w, const float *restrict g,
                      const float *restrict m, const float *restrict q, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double gi = kind == SIGN && operand ? g[i] : 0, qi = kind == ADAM ? q[i] : 0;
        double ui = direction(kind, operand, s, m[i], qi, gi);
        w[i] = f.a * w[i] + f.b * ui + f.c;
    }
}

INLINE void sum_tile(int kind, int operand, const double *s, const Tile *tile, Tensors t,
                     const double *decay, Sums *sums)
{
    int64_t n = tile->length, at = tile->start;
    for (int64_t i = 0; i < tile->units; i++, at += n) {
        double d = decay ? decay[tile->unit + i] : 0;
        float *q = kind == ADAM ? t.q + at : 0;
        if (sums)
            sums[tile->row + i] =
                sum_unit(kind, operand, 1, s, d, t.w + at, t.g + at, t.m + at, q, n);
        else
            sum_unit(kind, operand, 0, s, d, t.w + at, t.g + at, t.m + at, q, n);
    }
}

INLINE void move_tile(int kind, int operand, const double *s, const Tile *tile, Tensors t,
                      const Factors *factors)
{
    int64_t n = tile->length, at = tile->start;
    for (int64_t i = 0; i < tile->units; i++, at += n) {
        float *q = kind == ADAM ? t.q + at : 0;
        move_unit(kind, operand, s, factors[tile->unit + i], t.w + at, t.g + at, t.m + at, q, n);
    }
}

/* decay: per unit, or NULL. sums: per row, or NULL where they are not needed. */
void direction_sums(int kind, int64_t tiles, const Tile *tile, const Tensors *tensors,
                    const Settings *settings, const double *decay, Sums *sums)
{
    for (; tiles--; tile++) {
        Tensors t = tensors[tile->tensor];
        const double *s = settings[tile->tensor].s;
        if (kind == ADAM)
            sum_tile(ADAM, 0, s, tile, t, 0, sums);
        else if (kind == MOMENTUM && decay)
            sum_tile(MOMENTUM, 1, s, tile, t, decay, sums);
        else if (kind == MOMENTUM)
            sum_tile(MOMENTUM, 0, s, tile, t, 0, sums);
        else if (s[2] != 0)
            sum_tile(SIGN, 1, s, tile, t, 0, sums);
        else
            sum_tile(SIGN, 0, s, tile, t, 0, sums);
    }
}

/* factors: per unit. */
void move(int kind, int64_t tiles, const Tile *tile, const Tensors *tensors,
          const Settings *settings, const Factors *factors)
{
    for (; tiles--; tile++) {
        Tensors t = tensors[tile->tensor];
        const double *s = settings[tile->tensor].s;
        if (kind == ADAM)
            move_tile(ADAM, 0, s, tile, t, factors);
        else if (kind == MOMENTUM)
            move_tile(MOMENTUM, 0, s, tile, t, factors);
        else if (s[2] != 0)
            move_tile(SIGN, 1, s, tile, t, factors);
        else
            move_tile(SIGN, 0, s, tile, t, factors);
    }
}
