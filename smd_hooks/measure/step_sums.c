/* The inner products of one optimizer step, in one pass over memory.
 *
 * Compiled when a probe first measures fp32 weights on a CPU; geometry.py's step_sums is
 * the reference. Each piece leaves six sums, in the order of STEP_SUMS.
 */

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
