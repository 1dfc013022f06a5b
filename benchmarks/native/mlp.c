/* A small network with all sizes known at compile time; one core, since the work is a few microseconds. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IN = 16, HIDDEN = 32, OUT = 4 };

/* out[rows, m] = bias + left[rows, k] @ right[k, m] */
static inline void affine(size_t rows, size_t k, size_t m, const double *restrict left, const double *restrict right,
                          const double *restrict bias, double *restrict out)
{
    for (size_t i = 0; i < rows; ++i) {
        double acc[HIDDEN];
        for (size_t j = 0; j < m; ++j)
            acc[j] = bias[j];
        for (size_t l = 0; l < k; ++l)
            for (size_t j = 0; j < m; ++j)
                acc[j] += left[i * k + l] * right[l * m + j];
        for (size_t j = 0; j < m; ++j)
            out[i * m + j] = acc[j];
    }
}

/* d_w[k, m] = left[rows, k].T @ d_out[rows, m] and d_b[m] = column sums of d_out */
static inline void weight_gradient(size_t rows, size_t k, size_t m, const double *restrict left,
                                   const double *restrict d_out, double *restrict d_w, double *restrict d_b)
{
    memset(d_w, 0, k * m * sizeof *d_w);
    memset(d_b, 0, m * sizeof *d_b);
    for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < m; ++j)
            d_b[j] += d_out[i * m + j];
        for (size_t l = 0; l < k; ++l)
            for (size_t j = 0; j < m; ++j)
                d_w[l * m + j] += left[i * k + l] * d_out[i * m + j];
    }
}

/* d_in[rows, k] = (d_out[rows, m] @ w[k, m].T) * (1 - h * h), where h[rows, k] = tanh(...) */
static inline void input_gradient(size_t rows, size_t k, size_t m, const double *restrict d_out,
                                  const double *restrict w, const double *restrict h, double *restrict d_in)
{
    double transposed[HIDDEN * HIDDEN];
    for (size_t l = 0; l < k; ++l)
        for (size_t j = 0; j < m; ++j)
            transposed[j * k + l] = w[l * m + j];
    for (size_t i = 0; i < rows; ++i) {
        double acc[HIDDEN] = {0};
        for (size_t j = 0; j < m; ++j)
            for (size_t l = 0; l < k; ++l)
                acc[l] += d_out[i * m + j] * transposed[j * k + l];
        for (size_t l = 0; l < k; ++l)
            d_in[i * k + l] = acc[l] * (1.0 - h[i * k + l] * h[i * k + l]);
    }
}

double NATIVE(mlp_16_32_32_4)(size_t rows, const double *w0, const double *b0, const double *w1, const double *b1,
                              const double *w2, const double *b2, const double *x, const double *y, double *d_w0,
                              double *d_b0, double *d_w1, double *d_b1, double *d_w2, double *d_b2)
{
    double *memory = malloc(rows * (4 * HIDDEN + OUT) * sizeof *memory);
    if (!memory || !rows)
        return NAN;
    double *h0 = memory, *h1 = h0 + rows * HIDDEN, *g0 = h1 + rows * HIDDEN, *g1 = g0 + rows * HIDDEN;
    double *logits = g1 + rows * HIDDEN;
    const double scale = 1.0 / (double)rows;
    double total = 0.0;

    affine(rows, IN, HIDDEN, x, w0, b0, h0);
#pragma omp simd
    for (size_t i = 0; i < rows * HIDDEN; ++i)
        h0[i] = tanh(h0[i]);
    affine(rows, HIDDEN, HIDDEN, h0, w1, b1, h1);
#pragma omp simd
    for (size_t i = 0; i < rows * HIDDEN; ++i)
        h1[i] = tanh(h1[i]);
    affine(rows, HIDDEN, OUT, h1, w2, b2, logits);

    for (size_t i = 0; i < rows; ++i) {
        double *z = logits + i * OUT;
        const double *label = y + i * OUT;
        double top = z[0], e[OUT], sum = 0.0;
        for (size_t j = 1; j < OUT; ++j)
            top = z[j] > top ? z[j] : top;
        for (size_t j = 0; j < OUT; ++j)
            sum += e[j] = exp(z[j] - top);
        total += log(sum) + top;
        for (size_t j = 0; j < OUT; ++j) {
            total -= label[j] * z[j];
            z[j] = (e[j] / sum - label[j]) * scale;
        }
    }

    weight_gradient(rows, HIDDEN, OUT, h1, logits, d_w2, d_b2);
    input_gradient(rows, HIDDEN, OUT, logits, w2, h1, g1);
    weight_gradient(rows, HIDDEN, HIDDEN, h0, g1, d_w1, d_b1);
    input_gradient(rows, HIDDEN, HIDDEN, g1, w1, h0, g0);
    weight_gradient(rows, IN, HIDDEN, x, g0, d_w0, d_b0);
    free(memory);
    return total * scale;
}
