/* The copy of weights before an optimizer step, and its inner products in one pass over memory.
 *
 * Compiled when a probe first measures fp32 weights on a CPU; geometry.py's step_sums is
 * the reference. Each piece leaves six sums, in the order of STEP_SUMS.
 */

#include <stdint.h>
#include <string.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

/* Stores go past the caches: a line that is written whole need not be read first, and what is
 * in the caches stays there for the step. */
static void copy_piece(const float *from, float *to, long n)
{
    long i = 0;
#ifdef __SSE__
    for (; i < n && (uintptr_t)(to + i) % 64; i++)
        to[i] = from[i];
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k += 4)
            _mm_stream_ps(to + i + k, _mm_loadu_ps(from + i + k));
    _mm_sfence();
#endif
    memcpy(to + i, from + i, (size_t)(n - i) * sizeof(float));
}

/* pointers[2 * p]: where piece p comes from and where it goes, lengths[p] long. */
void copy(long pieces, float *const *pointers, const long *lengths)
{
    for (long p = 0; p < pieces; p++, pointers += 2)
        copy_piece(pointers[0], pointers[1], lengths[p]);
}

static void piece_sums(const float *before, const float *after, const float *gradient,
                       const float *buffer, long n, double *out)
{
    double ww = 0, wd = 0, dd = 0, gg = 0, wg = 0, bg = 0;
    if (buffer) {
#pragma omp simd reduction(+ : ww, wd, dd, gg, wg, bg)
        for (long i = 0; i < n; i++) {
            double w = before[i], d = after[i] - w, g = gradient[i];
            ww += w * w; wd += w * d; dd += d * d;
            gg += g * g; wg += w * g; bg += buffer[i] * g;
        }
    } else {
#pragma omp simd reduction(+ : ww, wd, dd, gg, wg)
        for (long i = 0; i < n; i++) {
            double w = before[i], d = after[i] - w, g = gradient[i];
            ww += w * w; wd += w * d; dd += d * d;
            gg += g * g; wg += w * g;
        }
    }
    out[0] = ww; out[1] = wd; out[2] = dd; out[3] = gg; out[4] = wg; out[5] = bg;
}

/* pointers[4 * p + k]: weight before and after, gradient, buffer (or NULL) of piece p,
 * each lengths[p] long. */
void step_sums(long pieces, const float *const *pointers, const long *lengths, double *out)
{
    for (long p = 0; p < pieces; p++, pointers += 4, out += 6)
        piece_sums(pointers[0], pointers[1], pointers[2], pointers[3], lengths[p], out);
}
