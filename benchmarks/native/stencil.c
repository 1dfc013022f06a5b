/* Explicit heat steps: the state of every sweep is kept for the way back. The five-point operator with zero
 * outside is symmetric, so its transpose is itself. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Arrays here have a border of zeros: row stride is columns + 2. */
static inline double laplacian(const double *u, size_t stride)
{
    return u[1] + u[-1] + u[stride] + *(u - stride) - 4.0 * u[0];
}

double NATIVE(stencil)(size_t rows, size_t columns, size_t sweeps, const double *restrict u, const double *restrict c,
                       double *restrict d_u, double *restrict d_c)
{
    const size_t stride = columns + 2, plane = (rows + 2) * stride;
    double *states = calloc((sweeps + 3) * plane, sizeof *states);
    if (!states)
        return NAN;
    double *g = states + (sweeps + 1) * plane, *flux = g + plane, total = 0.0;
    for (size_t i = 0; i < rows; ++i)
        memcpy(states + (i + 1) * stride + 1, u + i * columns, columns * sizeof *u);
    for (size_t k = 0; k < sweeps; ++k) {
        const double *restrict now = states + k * plane;
        double *restrict next = states + (k + 1) * plane;
#pragma omp parallel for schedule(static) if (rows * columns > 8192)
        for (size_t i = 0; i < rows; ++i)
#pragma omp simd
            for (size_t j = 0; j < columns; ++j) {
                const size_t at = (i + 1) * stride + j + 1;
                next[at] = now[at] + c[i * columns + j] * laplacian(now + at, stride);
            }
    }
    const double *restrict last = states + sweeps * plane;
#pragma omp parallel for reduction(+ : total) schedule(static) if (rows * columns > 8192)
    for (size_t i = 0; i < rows; ++i)
#pragma omp simd reduction(+ : total)
        for (size_t j = 0; j < columns; ++j) {
            const size_t at = (i + 1) * stride + j + 1;
            total += last[at] * last[at];
            g[at] = 2.0 * last[at];
        }
    memset(d_c, 0, rows * columns * sizeof *d_c);
    for (size_t k = sweeps; k-- > 0;) {
        const double *restrict now = states + k * plane;
#pragma omp parallel for schedule(static) if (rows * columns > 8192)
        for (size_t i = 0; i < rows; ++i)
#pragma omp simd
            for (size_t j = 0; j < columns; ++j) {
                const size_t at = (i + 1) * stride + j + 1;
                d_c[i * columns + j] += g[at] * laplacian(now + at, stride);
                flux[at] = g[at] * c[i * columns + j];
            }
#pragma omp parallel for schedule(static) if (rows * columns > 8192)
        for (size_t i = 0; i < rows; ++i)
#pragma omp simd
            for (size_t j = 0; j < columns; ++j) {
                const size_t at = (i + 1) * stride + j + 1;
                g[at] += laplacian(flux + at, stride);
            }
    }
    for (size_t i = 0; i < rows; ++i)
        memcpy(d_u + i * columns, g + (i + 1) * stride + 1, columns * sizeof *g);
    free(states);
    return total;
}
