/* Forward and backward per block of lanes: the ten intermediate states never leave the cache. */
#include "native.h"

#include <math.h>

enum { STEPS = 10, LANES = 64 };

double NATIVE(elementwise_chain)(size_t n, const double *restrict x, const double *restrict y, double *restrict d_x,
                                 double *restrict d_y)
{
    double total = 0.0;
#pragma omp parallel for reduction(+ : total) schedule(static) if (n > 4096)
    for (size_t start = 0; start < n; start += LANES) {
        const size_t count = n - start < LANES ? n - start : LANES;
        double state[STEPS][LANES], squash[STEPS][LANES], t[LANES];
        for (size_t i = 0; i < count; ++i)
            t[i] = x[start + i];
        for (size_t k = 0; k < STEPS; ++k) {
#pragma omp simd
            for (size_t i = 0; i < count; ++i) {
                state[k][i] = t[i];
                squash[k][i] = tanh(t[i] * y[start + i]);
                t[i] += 0.1 * squash[k][i];
            }
        }
#pragma omp simd reduction(+ : total)
        for (size_t i = 0; i < count; ++i) {
            double g = 1.0, g_y = 0.0;
            total += t[i];
            for (size_t k = STEPS; k-- > 0;) {
                const double inner = g * 0.1 * (1.0 - squash[k][i] * squash[k][i]);
                g_y += inner * state[k][i];
                g += inner * y[start + i];
            }
            d_x[start + i] = g;
            d_y[start + i] = g_y;
        }
    }
    return total;
}
