/* A tanh recurrent network over a sequence. Inputs are multiplied, and weight gradients summed, for some steps at
 * a time, so that only products with the state stand in line. Large batches are cut between threads, each of which
 * runs the whole sequence for its examples. Sizes that are measured are known at compile time. */
#include "native.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, ROWS = 4, COLUMNS = 4 * LANES, SEGMENT = 64, LEAST_SHARE = 8 };

#define INLINE static inline __attribute__((always_inline))

typedef double lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

/* A matrix whose entry (i, j) lies at data[i * row + j * column]. */
typedef struct {
    const double *data;
    size_t row, column;
} matrix;

/* out[rows, 8 wide] += left[rows, depth] @ right[depth, ...], with the sums in registers */
INLINE void block(size_t rows, size_t wide, size_t depth, matrix left, const double *right, size_t n, double *out)
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
INLINE void add_product(size_t rows, size_t depth, size_t n, matrix left, const double *right, double *out)
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

/* A share of a problem: `count` examples from `first` on of `batch`, whose rows follow each other from step to step
 * where they are all. */
typedef struct {
    size_t steps, batch, first, count, span;
    const double *w, *u, *b, *v, *x, *y, *turned;
    double *h, *d_z, *d_h, *d_w, *d_u, *d_b, *d_v;
    double scale;
} share;

/* States h[step + 1, batch, n]; h[0] is zero. */
INLINE void forward(const share *s, size_t n)
{
    for (size_t begin = 0; begin < s->steps; begin += s->span) {
        const size_t end = begin + s->span < s->steps ? begin + s->span : s->steps;
        const size_t from = (begin * s->batch + s->first) * n, rows = (end - begin) * s->count;
        double *z = s->h + from + s->batch * n;
        for (size_t i = 0; i < rows; ++i)
            for (size_t j = 0; j < n; ++j)
                z[i * n + j] = s->b[j];
        add_product(rows, n, n, (matrix){s->x + from, n, 1}, s->w, z);
        for (size_t t = begin; t < end; ++t) {
            const double *before = s->h + (t * s->batch + s->first) * n;
            double *state = s->h + ((t + 1) * s->batch + s->first) * n;
            add_product(s->count, n, n, (matrix){before, n, 1}, s->u, state);
#pragma omp simd
            for (size_t i = 0; i < s->count * n; ++i)
                state[i] = tanh(state[i]);
        }
    }
}

/* Derivatives d_z of the sums of one step, from d_h; returns the sum of squared errors. */
INLINE double errors(const share *s, size_t n, size_t t, double *d_z)
{
    const double *h = s->h + ((t + 1) * s->batch + s->first) * n, *y = s->y + t * s->batch + s->first;
    double total = 0.0;
    for (size_t i = 0; i < s->count; ++i) {
        double error = -y[i];
        for (size_t j = 0; j < n; ++j)
            error += h[i * n + j] * s->v[j];
        total += error * error;
        error *= 2.0 * s->scale;
        for (size_t j = 0; j < n; ++j) {
            const double state = h[i * n + j];
            s->d_v[j] += error * state;
            s->d_b[j] += d_z[i * n + j] = (s->d_h[i * n + j] + error * s->v[j]) * (1.0 - state * state);
        }
    }
    return total;
}

/* d_w[n, n] += left[rows, n].T @ d_z[rows, n] */
INLINE void add_weight_gradient(size_t rows, size_t n, const double *left, const double *d_z, double *d_w)
{
    add_product(n, rows, n, (matrix){left, 1, n}, d_z, d_w);
}

/* The sum of squared errors; gradients are added up. */
INLINE double backward(const share *s, size_t n)
{
    double total = 0.0;
    for (size_t end = s->steps; end > 0;) {
        const size_t begin = end > s->span ? end - s->span : 0, from = (begin * s->batch + s->first) * n;
        const size_t rows = (end - begin) * s->count;
        while (end-- > begin) {
            double *d_z = s->d_z + (end - begin) * s->count * n;
            total += errors(s, n, end, d_z);
            for (size_t i = 0; i < s->count * n; ++i)
                s->d_h[i] = 0.0;
            add_product(s->count, n, n, (matrix){d_z, n, 1}, s->turned, s->d_h);
        }
        add_weight_gradient(rows, n, s->x + from, s->d_z, s->d_w);
        add_weight_gradient(rows, n, s->h + from, s->d_z, s->d_u);
        end = begin;
    }
    return total;
}

static double run(const share *s, size_t n)
{
    switch (n) {
    case 8:
        forward(s, 8);
        return backward(s, 8);
    case 32:
        forward(s, 32);
        return backward(s, 32);
    default:
        forward(s, n);
        return backward(s, n);
    }
}

double NATIVE(rnn)(size_t steps, size_t batch, size_t n, const double *w, const double *u, const double *b,
                   const double *v, const double *x, const double *y, double *d_w, double *d_u, double *d_b,
                   double *d_v)
{
    if (!steps || !batch || !n)
        return NAN;
    const size_t square = n * n, threads = (size_t)omp_get_max_threads();
    const size_t most = batch / LEAST_SHARE < threads ? batch / LEAST_SHARE : threads, shares = most > 1 ? most : 1;
    const size_t span = shares > 1 || batch > SEGMENT ? 1 : SEGMENT / batch;
    const size_t sums = 2 * square + 2 * n, own = sums + (span + 1) * batch * n;
    double *memory = malloc(((steps + 1) * batch * n + square + shares * own) * sizeof *memory);
    if (!memory)
        return NAN;
    double *h = memory, *turned = h + (steps + 1) * batch * n, *rest = turned + square;
    const double scale = 1.0 / (double)(steps * batch);
    double total = 0.0;

    memset(h, 0, batch * n * sizeof *h);
    memset(rest, 0, shares * own * sizeof *rest);
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < n; ++j)
            turned[j * n + i] = u[i * n + j];
#pragma omp parallel for reduction(+ : total) schedule(static) if (shares > 1)
    for (size_t i = 0; i < shares; ++i) {
        const size_t first = i * batch / shares, count = (i + 1) * batch / shares - first;
        double *a = rest + i * own, *c = a + 2 * square, *d = a + sums;
        const share s = {steps, batch, first, count, span, w, u, b, v, x, y, turned,
                         h, d, d + span * count * n, a, a + square, c, c + n, scale};
        total += run(&s, n);
    }
    for (size_t i = 1; i < shares; ++i)
        for (size_t j = 0; j < sums; ++j)
            rest[j] += rest[i * own + j];
    memcpy(d_w, rest, square * sizeof *d_w);
    memcpy(d_u, rest + square, square * sizeof *d_u);
    memcpy(d_b, rest + 2 * square, n * sizeof *d_b);
    memcpy(d_v, rest + 2 * square + n, n * sizeof *d_v);
    free(memory);
    return total * scale;
}
