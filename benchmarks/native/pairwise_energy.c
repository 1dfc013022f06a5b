/* Every point sums over all others: twice the arithmetic of the half sum, but no two threads write one place. */
#include "native.h"

#include <math.h>
#include <stdlib.h>

double NATIVE(pairwise_energy)(size_t n, const double *restrict p, const double *restrict q, double *restrict d_p,
                               double *restrict d_q)
{
    double *restrict px = malloc(3 * n * sizeof *px);
    if (!px)
        return NAN;
    double *restrict py = px + n, *restrict pz = py + n, total = 0.0;
    /* Coordinates apart from each other, so that the inner loop loads whole vectors. */
    for (size_t i = 0; i < n; ++i)
        px[i] = p[3 * i], py[i] = p[3 * i + 1], pz[i] = p[3 * i + 2];
#pragma omp parallel for reduction(+ : total) schedule(static) if (n > 64)
    for (size_t i = 0; i < n; ++i) {
        double potential = 0.0, fx = 0.0, fy = 0.0, fz = 0.0;
#pragma omp simd reduction(+ : potential, fx, fy, fz)
        for (size_t j = 0; j < n; ++j) {
            const double x = px[i] - px[j], y = py[i] - py[j], z = pz[i] - pz[j];
            const double kernel = q[j] * exp(-0.5 * (x * x + y * y + z * z));
            potential += kernel;
            fx += kernel * x, fy += kernel * y, fz += kernel * z;
        }
        total += q[i] * potential;
        d_q[i] = potential;
        d_p[3 * i] = -q[i] * fx, d_p[3 * i + 1] = -q[i] * fy, d_p[3 * i + 2] = -q[i] * fz;
    }
    free(px);
    return 0.5 * total;
}
