/* A tanh recurrent network over a sequence. Inputs are multiplied before the recurrence begins and weight
 * gradients summed after it ended, so that only products with the state stand in line. Large batches are cut
 * between threads, each of which runs the whole sequence for its examples. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, ROWS = 4, COLUMNS = 4 * LANES, SEGMENT = 64, LEAST_SHARE = 8 };

typedef double lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

/* A matrix whose entry (i, j) lies at data[i * row + j * column]. */
typedef struct {
    const double *data;
    size_t row, column;
} matrix;

/* out[rows, 8 wide] += left[rows, depth] @ right[depth, ...], with the sums in registers */
static inline __attribute__((always_inline)) void block(size_t rows, size_t wide, size_t depth, matrix left,
                                                        const double *right, size_t n, double *out)
{
    lanes sums[rows][wide];
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < wide; ++c)
            sums[r][c] = *(const lanes *)(out + r * n + c * LANES);
    for (size_t k = 0; k < depth; ++k)
        for (size_t r = 0; r < rows; ++r)
            for (size_t c = 0; c < wide; ++c)
                sums[r][c] += left.data[r * left.row + k * left.column] * *(const lanes *)(right + k * n + c * LANES);
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < wide; ++c)
            *(lanes *)(out + r * n + c * LANES) = sums[r][c];
}

/* out[rows, n] += left[rows, depth] @ right[depth, n] */
static void add_product(size_t rows, size_t depth, size_t n, matrix left, const double *right, double *out)
{
    const size_t whole = rows - rows % ROWS;
    size_t j = 0;
    for (; j + COLUMNS <= n; j += COLUMNS)
        for (size_t i = 0; i < rows; i += i < whole ? ROWS : 1) {
            const matrix part = {left.data + i * left.row, left.row, left.column};
            if (i < whole)
                block(ROWS, COLUMNS / LANES, depth, part, right + j, n, out + i * n + j);
            else
                block(1, COLUMNS / LANES, depth, part, right + j, n, out + i * n + j);
        }
    for (; j + LANES <= n; j += LANES)
        for (size_t i = 0; i < rows; i += i < whole ? ROWS : 1) {
            const matrix part = {left.data + i * left.row, left.row, left.column};
            if (i < whole)
                block(ROWS, 1, depth, part, right + j, n, out + i * n + j);
            else
                block(1, 1, depth, part, right + j, n, out + i * n + j);
        }
    for (; j < n; ++j)
        for (size_t i = 0; i < rows; ++i)
            for (size_t k = 0; k < depth; ++k)
                out[i * n + j] += left.data[i * left.row + k * left.column] * right[k * n + j];
}

/* d_w[n, n] += left[rows, n].T @ d_out[rows, n], some rows at a time so that they stay in the cache */
static void add_weight_gradient(size_t rows, size_t n, const double *left, const double *d_out, double *d_w)
{
    for (size_t i = 0; i < rows; i += SEGMENT) {
        const matrix transposed = {left + i * n, 1, n};
        add_product(n, rows - i < SEGMENT ? rows - i : SEGMENT, n, transposed, d_out + i * n, d_w);
    }
}

typedef struct {
    size_t steps, batch, n;
    const double *w, *u, *b, *v, *x, *y, *turned;
    double *h, *d_z;
} problem;

typedef struct {
    double *w, *u, *b, *v;
} gradients;

/* States h[step + 1, batch, n] of `count` examples from `first` on; h[0] is zero. */
static void forward(const problem *p, size_t first, size_t count)
{
    const size_t n = p->n;
    for (size_t t = 0; t < p->steps; ++t) {
        const size_t at = (t * p->batch + first) * n;
        double *z = p->h + at + p->batch * n;
        for (size_t i = 0; i < count * n; i += n)
            memcpy(z + i, p->b, n * sizeof *z);
        add_product(count, n, n, (matrix){p->x + at, n, 1}, p->w, z);
        add_product(count, n, n, (matrix){p->h + at, n, 1}, p->u, z);
#pragma omp simd
        for (size_t i = 0; i < count * n; ++i)
            z[i] = tanh(z[i]);
    }
}

/* Sum of squared errors of these examples; their gradients are added to `d`. */
static double backward(const problem *p, size_t first, size_t count, double scale, gradients d, double *d_h)
{
    const size_t n = p->n;
    double total = 0.0;
    memset(d_h, 0, count * n * sizeof *d_h);
    for (size_t t = p->steps; t-- > 0;) {
        const size_t row = t * p->batch + first;
        const double *h = p->h + (row + p->batch) * n;
        double *d_z = p->d_z + row * n;
        for (size_t i = 0; i < count; ++i) {
            double error = -p->y[row + i];
            for (size_t j = 0; j < n; ++j)
                error += h[i * n + j] * p->v[j];
            total += error * error;
            error *= 2.0 * scale;
            for (size_t j = 0; j < n; ++j) {
                const double state = h[i * n + j];
                d.v[j] += error * state;
                d.b[j] += d_z[i * n + j] = (d_h[i * n + j] + error * p->v[j]) * (1.0 - state * state);
            }
        }
        memset(d_h, 0, count * n * sizeof *d_h);
        add_product(count, n, n, (matrix){d_z, n, 1}, p->turned, d_h);
        if (count < p->batch) {
            add_weight_gradient(count, n, p->x + row * n, d_z, d.w);
            add_weight_gradient(count, n, p->h + row * n, d_z, d.u);
        }
    }
    if (count == p->batch) {
        add_weight_gradient(p->steps * count, n, p->x, p->d_z, d.w);
        add_weight_gradient(p->steps * count, n, p->h, p->d_z, d.u);
    }
    return total;
}

double NATIVE(rnn)(size_t steps, size_t batch, size_t n, const double *w, const double *u, const double *b,
                   const double *v, const double *x, const double *y, double *d_w, double *d_u, double *d_b,
                   double *d_v)
{
    const size_t square = n * n, numbers = steps * batch * n;
    const size_t shares = batch / LEAST_SHARE > 1 ? batch / LEAST_SHARE : 1, own = 2 * square + 2 * n + batch * n;
    double *memory = malloc((2 * numbers + batch * n + square + shares * own) * sizeof *memory);
    if (!memory || !numbers)
        return NAN;
    double *h = memory, *d_z = h + numbers + batch * n, *turned = d_z + numbers, *rest = turned + square;
    const problem p = {steps, batch, n, w, u, b, v, x, y, turned, h, d_z};
    const double scale = 1.0 / (double)(steps * batch);
    double total = 0.0;

    memset(h, 0, batch * n * sizeof *h);
    memset(rest, 0, shares * own * sizeof *rest);
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < n; ++j)
            turned[j * n + i] = u[i * n + j];
#pragma omp parallel for reduction(+ : total) schedule(static) if (shares > 1)
    for (size_t share = 0; share < shares; ++share) {
        const size_t first = share * batch / shares, count = (share + 1) * batch / shares - first;
        double *mine = rest + share * own;
        const gradients d = {mine, mine + square, mine + 2 * square, mine + 2 * square + n};
        forward(&p, first, count);
        total += backward(&p, first, count, scale, d, mine + 2 * square + 2 * n);
    }
    for (size_t share = 1; share < shares; ++share)
        for (size_t i = 0; i < 2 * square + 2 * n; ++i)
            rest[i] += rest[share * own + i];
    memcpy(d_w, rest, square * sizeof *d_w);
    memcpy(d_u, rest + square, square * sizeof *d_u);
    memcpy(d_b, rest + 2 * square, n * sizeof *d_b);
    memcpy(d_v, rest + 2 * square + n, n * sizeof *d_v);
    free(memory);
    return total * scale;
}
