/* 3x3 inverse by cofactors, all in registers, one matrix a lane.
 * With x = inv(a) v and s = inv(a).T (2 x): d_v = s, d_a = -s x.T + 2 inv(a).T. */
#include "native.h"

#include <math.h>

double NATIVE(small_matrices)(size_t n, const double *restrict a, const double *restrict v, double *restrict d_a,
                              double *restrict d_v)
{
    const double scale = 1.0 / (double)n;
    double total = 0.0;
#pragma omp parallel for simd reduction(+ : total) schedule(static) if (parallel : n > 2048)
    for (size_t i = 0; i < n; ++i) {
        const double *m = a + 9 * i, *r = v + 3 * i;
        double *g = d_a + 9 * i, *h = d_v + 3 * i;
        const double c00 = m[4] * m[8] - m[5] * m[7], c01 = m[5] * m[6] - m[3] * m[8], c02 = m[3] * m[7] - m[4] * m[6];
        const double c10 = m[2] * m[7] - m[1] * m[8], c11 = m[0] * m[8] - m[2] * m[6], c12 = m[1] * m[6] - m[0] * m[7];
        const double c20 = m[1] * m[5] - m[2] * m[4], c21 = m[2] * m[3] - m[0] * m[5], c22 = m[0] * m[4] - m[1] * m[3];
        const double det = m[0] * c00 + m[1] * c01 + m[2] * c02, inverse = 1.0 / det;
        const double x0 = (c00 * r[0] + c10 * r[1] + c20 * r[2]) * inverse;
        const double x1 = (c01 * r[0] + c11 * r[1] + c21 * r[2]) * inverse;
        const double x2 = (c02 * r[0] + c12 * r[1] + c22 * r[2]) * inverse;
        total += x0 * x0 + x1 * x1 + x2 * x2 + log(det * det);
        const double twice = 2.0 * scale * inverse;
        const double s0 = (c00 * x0 + c01 * x1 + c02 * x2) * twice;
        const double s1 = (c10 * x0 + c11 * x1 + c12 * x2) * twice;
        const double s2 = (c20 * x0 + c21 * x1 + c22 * x2) * twice;
        h[0] = s0, h[1] = s1, h[2] = s2;
        g[0] = twice * c00 - s0 * x0, g[1] = twice * c01 - s0 * x1, g[2] = twice * c02 - s0 * x2;
        g[3] = twice * c10 - s1 * x0, g[4] = twice * c11 - s1 * x1, g[5] = twice * c12 - s1 * x2;
        g[6] = twice * c20 - s2 * x0, g[7] = twice * c21 - s2 * x1, g[8] = twice * c22 - s2 * x2;
    }
    return total * scale;
}
