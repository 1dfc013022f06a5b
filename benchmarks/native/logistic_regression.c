/* One sweep over the data: a block of rows gives its scores, its residuals and its share of the gradient. */
#include "native.h"

#include <math.h>

enum { BLOCK = 64, MAX_COLUMNS = 256 };

double NATIVE(logistic_regression)(size_t rows, size_t columns, const double *restrict w, double b,
                                   const double *restrict x, const double *restrict y, double *restrict d_w,
                                   double *restrict d_b)
{
    if (columns > MAX_COLUMNS)
        return NAN;
    const double scale = 1.0 / (double)rows;
    double total = 0.0, bias = 0.0, weights[MAX_COLUMNS] = {0};
#pragma omp parallel for reduction(+ : total, bias, weights[:MAX_COLUMNS]) schedule(static) if (rows > 1024)
    for (size_t start = 0; start < rows; start += BLOCK) {
        const size_t count = rows - start < BLOCK ? rows - start : BLOCK;
        double z[BLOCK];
        for (size_t i = 0; i < count; ++i) {
            const double *restrict row = x + (start + i) * columns;
            double dot = 0.0;
#pragma omp simd reduction(+ : dot)
            for (size_t j = 0; j < columns; ++j)
                dot += row[j] * w[j];
            z[i] = dot + b;
        }
#pragma omp simd reduction(+ : total, bias)
        for (size_t i = 0; i < count; ++i) {
            /* exp(-|z|) never overflows, and log1p keeps the digits of a small loss. */
            const double e = exp(-fabs(z[i])), label = y[start + i];
            const double p = (z[i] >= 0.0 ? 1.0 : e) / (1.0 + e);
            total += fmax(z[i], 0.0) + log1p(e) - label * z[i];
            z[i] = (p - label) * scale;
            bias += z[i];
        }
        for (size_t i = 0; i < count; ++i) {
            const double *restrict row = x + (start + i) * columns;
#pragma omp simd
            for (size_t j = 0; j < columns; ++j)
                weights[j] += z[i] * row[j];
        }
    }
    for (size_t j = 0; j < columns; ++j)
        d_w[j] = weights[j];
    *d_b = bias;
    return total * scale;
}
