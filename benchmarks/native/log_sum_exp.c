/* Row by row: the row stays in the first-level cache between its three passes. */
#include "native.h"

#include <math.h>

double NATIVE(log_sum_exp)(size_t rows, size_t columns, const double *restrict x, double *restrict d_x)
{
    double total = 0.0;
#pragma omp parallel for reduction(+ : total) schedule(static) if (rows * columns > 8192)
    for (size_t i = 0; i < rows; ++i) {
        const double *restrict row = x + i * columns;
        double *restrict out = d_x + i * columns;
        double top = row[0], sum = 0.0;
#pragma omp simd reduction(max : top)
        for (size_t j = 0; j < columns; ++j)
            top = row[j] > top ? row[j] : top;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < columns; ++j)
            sum += out[j] = exp(row[j] - top);
        const double inverse = 1.0 / sum;
#pragma omp simd
        for (size_t j = 0; j < columns; ++j)
            out[j] *= inverse;
        total += log(sum) + top;
    }
    return total;
}
