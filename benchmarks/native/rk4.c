/* Lotka-Volterra by classical Runge-Kutta steps; the points are kept, the stages computed again on the way
 * back. */
#include "native.h"

#include <math.h>
#include <stdlib.h>

static const double STEP = 0.01;

/* Slope k of the point p. */
static inline void slope(const double *restrict rates, const double *restrict p, double *restrict k)
{
    k[0] = (rates[0] - rates[1] * p[1]) * p[0];
    k[1] = (rates[2] * p[0] - rates[3]) * p[1];
}

/* Adds to d_rates and d_p what the derivative d_k of the slope at p is worth. */
static inline void slope_back(const double *restrict rates, const double *restrict p, const double *restrict d_k,
                              double *restrict d_rates, double *restrict d_p)
{
    const double both = p[0] * p[1];
    d_rates[0] += d_k[0] * p[0];
    d_rates[1] -= d_k[0] * both;
    d_rates[2] += d_k[1] * both;
    d_rates[3] -= d_k[1] * p[1];
    d_p[0] += d_k[0] * (rates[0] - rates[1] * p[1]) + d_k[1] * rates[2] * p[1];
    d_p[1] += d_k[1] * (rates[2] * p[0] - rates[3]) - d_k[0] * rates[1] * p[0];
}

/* The three inner points of a step from p, and its four slopes. */
static inline void stages(const double *rates, const double *p, double inner[3][2], double k[4][2])
{
    static const double PARTS[3] = {0.5, 0.5, 1.0};
    slope(rates, p, k[0]);
    for (int s = 0; s < 3; ++s) {
        for (int i = 0; i < 2; ++i)
            inner[s][i] = p[i] + PARTS[s] * STEP * k[s][i];
        slope(rates, inner[s], k[s + 1]);
    }
}

/* d_p, derivative of the point after a step from p, becomes that of p. */
static inline void step_back(const double *rates, const double *p, double *d_rates, double *d_p)
{
    static const double PARTS[3] = {0.5, 0.5, 1.0}, WEIGHTS[4] = {1.0, 2.0, 2.0, 1.0};
    double inner[3][2], k[4][2], d_k[4][2], d_inner[2], d_start[2] = {d_p[0], d_p[1]};
    stages(rates, p, inner, k);
    for (int s = 0; s < 4; ++s)
        for (int i = 0; i < 2; ++i)
            d_k[s][i] = WEIGHTS[s] * (STEP / 6.0) * d_p[i];
    for (int s = 3; s > 0; --s) {
        d_inner[0] = d_inner[1] = 0.0;
        slope_back(rates, inner[s - 1], d_k[s], d_rates, d_inner);
        for (int i = 0; i < 2; ++i) {
            d_start[i] += d_inner[i];
            d_k[s - 1][i] += PARTS[s - 1] * STEP * d_inner[i];
        }
    }
    slope_back(rates, p, d_k[0], d_rates, d_start);
    d_p[0] = d_start[0], d_p[1] = d_start[1];
}

double NATIVE(rk4)(size_t steps, const double *rates, const double *start, double *d_rates, double *d_start)
{
    double(*points)[2] = malloc((steps + 1) * sizeof *points);
    if (!points)
        return NAN;
    points[0][0] = start[0], points[0][1] = start[1];
    for (size_t t = 0; t < steps; ++t) {
        double inner[3][2], k[4][2];
        stages(rates, points[t], inner, k);
        for (int i = 0; i < 2; ++i)
            points[t + 1][i] = points[t][i] + (STEP / 6.0) * (k[0][i] + 2.0 * (k[1][i] + k[2][i]) + k[3][i]);
    }
    const double x = points[steps][0], y = points[steps][1];
    double d_p[2] = {2.0 * x, 2.0 * y}, sums[4] = {0};
    for (size_t t = steps; t-- > 0;)
        step_back(rates, points[t], sums, d_p);
    for (int i = 0; i < 4; ++i)
        d_rates[i] = sums[i];
    d_start[0] = d_p[0], d_start[1] = d_p[1];
    free(points);
    return x * x + y * y;
}
