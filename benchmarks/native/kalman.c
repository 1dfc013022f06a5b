/* Log likelihood of a Kalman filter with four states and two numbers seen at each step. Kept of each step are
 * the predicted covariance, its product with the sensor, the inverse spread, and that times the residual. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STATE = 4, SEEN = 2 };

typedef struct {
    double covariance[STATE][STATE], across[SEEN][STATE], inverse[SEEN][SEEN], push[SEEN];
} step;

/* out[rows, columns] = left[rows, depth] @ right[depth, columns] */
static inline __attribute__((always_inline)) void product(int rows, int depth, int columns, const double *left,
                                                          const double *right, double *out)
{
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
            double sum = 0.0;
            for (int k = 0; k < depth; ++k)
                sum += left[i * depth + k] * right[k * columns + j];
            out[i * columns + j] = sum;
        }
}

static inline __attribute__((always_inline)) void turn(int rows, int columns, const double *a, double *out)
{
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j)
            out[j * rows + i] = a[i * columns + j];
}

typedef struct {
    double f[STATE * STATE], f_turned[STATE * STATE], h[SEEN * STATE], h_turned[STATE * SEEN];
    double process[STATE], measurement[SEEN];
} model;

/* Mean and covariance go on by one step, which `s` keeps; returns what it adds to minus twice the likelihood. */
static inline double forward(const model *m, const double *seen, double *mean, double *covariance, step *s)
{
    double moved[STATE], half[STATE * STATE], spread[SEEN * SEEN], gain[SEEN * STATE], residual[SEEN];
    double *p = &s->covariance[0][0], *w = &s->across[0][0];
    product(STATE, STATE, 1, m->f, mean, moved);
    product(STATE, STATE, STATE, m->f, covariance, half);
    product(STATE, STATE, STATE, half, m->f_turned, p);
    for (int i = 0; i < STATE; ++i)
        p[i * STATE + i] += m->process[i];
    product(SEEN, STATE, STATE, m->h, p, w);
    product(SEEN, STATE, SEEN, w, m->h_turned, spread);
    product(SEEN, STATE, 1, m->h, moved, residual);
    for (int i = 0; i < SEEN; ++i) {
        spread[i * SEEN + i] += m->measurement[i];
        residual[i] = seen[i] - residual[i];
    }
    const double determinant = spread[0] * spread[3] - spread[1] * spread[2], over = 1.0 / determinant;
    const double inverse[SEEN * SEEN] = {spread[3] * over, -spread[1] * over, -spread[2] * over, spread[0] * over};
    memcpy(s->inverse, inverse, sizeof inverse);
    product(SEEN, SEEN, 1, inverse, residual, s->push);
    product(SEEN, SEEN, STATE, inverse, w, gain);
    for (int i = 0; i < STATE; ++i) {
        mean[i] = moved[i] + w[i] * s->push[0] + w[STATE + i] * s->push[1];
        for (int j = 0; j < STATE; ++j)
            covariance[i * STATE + j] = p[i * STATE + j] - w[i] * gain[j] - w[STATE + i] * gain[STATE + j];
    }
    return residual[0] * s->push[0] + residual[1] * s->push[1] + log(fabs(determinant));
}

/* d_mean and d_covariance, derivatives after the step, become those before it; `scale` is that of what the step
 * added. All covariances are symmetric, and so are their derivatives here. */
static inline void backward(const model *m, const step *s, double scale, double *d_mean, double *d_covariance,
                            double *d_process, double *d_measurement)
{
    const double *w = &s->across[0][0], *inverse = &s->inverse[0][0], *u = s->push;
    double along[SEEN], pulled[SEEN], gain[SEEN * STATE], turned[STATE * SEEN], both[SEEN * STATE];
    double d_spread[SEEN * SEEN], d_across[SEEN * STATE], d_residual[SEEN];
    product(SEEN, STATE, 1, w, d_mean, along);
    product(SEEN, SEEN, 1, inverse, along, pulled);
    product(SEEN, SEEN, STATE, inverse, w, gain);
    product(SEEN, STATE, STATE, gain, d_covariance, both);
    turn(SEEN, STATE, gain, turned);
    product(SEEN, STATE, SEEN, both, turned, d_spread);
    for (int i = 0; i < SEEN; ++i) {
        d_residual[i] = pulled[i] + 2.0 * scale * u[i];
        for (int j = 0; j < SEEN; ++j)
            d_spread[i * SEEN + j] += scale * (inverse[i * SEEN + j] - u[i] * u[j]) - pulled[i] * u[j];
    }
    product(SEEN, SEEN, STATE, d_spread, m->h, d_across);
    for (int i = 0; i < SEEN; ++i) {
        d_measurement[i] += d_spread[i * SEEN + i];
        for (int j = 0; j < STATE; ++j)
            d_across[i * STATE + j] += u[i] * d_mean[j] - 2.0 * both[i * STATE + j];
    }
    double d_p[STATE * STATE], even[STATE * STATE], half[STATE * STATE], d_moved[STATE];
    product(STATE, SEEN, STATE, m->h_turned, d_across, d_p);
    for (int i = 0; i < STATE; ++i) {
        d_moved[i] = d_mean[i] - m->h[i] * d_residual[0] - m->h[STATE + i] * d_residual[1];
        for (int j = 0; j < STATE; ++j)
            even[i * STATE + j] = d_covariance[i * STATE + j] + 0.5 * (d_p[i * STATE + j] + d_p[j * STATE + i]);
        d_process[i] += even[i * STATE + i];
    }
    product(STATE, STATE, 1, m->f_turned, d_moved, d_mean);
    product(STATE, STATE, STATE, m->f_turned, even, half);
    product(STATE, STATE, STATE, half, m->f, d_covariance);
}

double NATIVE(kalman)(size_t steps, const double *noise, const double *transition, const double *sensor,
                      const double *series, double *d_noise)
{
    step *kept = malloc(steps * sizeof *kept);
    if (!kept || !steps)
        return NAN;
    model m;
    memcpy(m.f, transition, sizeof m.f);
    memcpy(m.h, sensor, sizeof m.h);
    turn(STATE, STATE, m.f, m.f_turned);
    turn(SEEN, STATE, m.h, m.h_turned);
    for (int i = 0; i < STATE; ++i)
        m.process[i] = exp(noise[i]);
    for (int i = 0; i < SEEN; ++i)
        m.measurement[i] = exp(noise[STATE + i]);
    double mean[STATE] = {0}, covariance[STATE * STATE] = {0}, total = 0.0;
    for (int i = 0; i < STATE; ++i)
        covariance[i * STATE + i] = 1.0;
    for (size_t t = 0; t < steps; ++t)
        total += forward(&m, series + SEEN * t, mean, covariance, kept + t);

    const double scale = 0.5 / (double)steps;
    double d_process[STATE] = {0}, d_measurement[SEEN] = {0};
    memset(mean, 0, sizeof mean);
    memset(covariance, 0, sizeof covariance);
    for (size_t t = steps; t-- > 0;)
        backward(&m, kept + t, scale, mean, covariance, d_process, d_measurement);
    for (int i = 0; i < STATE; ++i)
        d_noise[i] = d_process[i] * m.process[i];
    for (int i = 0; i < SEEN; ++i)
        d_noise[STATE + i] = d_measurement[i] * m.measurement[i];
    free(kept);
    return scale * total + 0.5 * SEEN * log(2.0 * acos(-1.0));
}
