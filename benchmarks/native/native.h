/* The C interface of the reference kernels: hand-written value and gradient of some benchmarks.
 *
 * Every kernel takes C-contiguous float64 arrays, writes its gradients into arrays given by the caller and
 * returns the value. Each source is built twice: as it stands, and once more with -ffast-math under names that
 * end in `_fast` (there the compiler may call the vector math library). */
#ifndef GRAPHJIT_NATIVE_H
#define GRAPHJIT_NATIVE_H

#include <stddef.h>

#ifdef NATIVE_FAST
#define NATIVE(name) name##_fast
#else
#define NATIVE(name) name
#endif

/* Sum of European call prices of `n` rows, and its derivative with respect to each of the five inputs. */
double NATIVE(black_scholes)(size_t n, const double *spot, const double *strike, const double *expiry,
                             const double *rate, const double *vol, double *d_spot, double *d_strike,
                             double *d_expiry, double *d_rate, double *d_vol);

/* Mean softmax cross-entropy of a 16-32-32-4 tanh network: inputs x[rows,16], one-hot y[rows,4]; weights
 * w0[16,32], w1[32,32], w2[32,4] and biases. Returns NaN without rows or memory. */
double NATIVE(mlp_16_32_32_4)(size_t rows, const double *w0, const double *b0, const double *w1, const double *b1,
                              const double *w2, const double *b2, const double *x, const double *y, double *d_w0,
                              double *d_b0, double *d_w1, double *d_b1, double *d_w2, double *d_b2);

/* Sum over rows of log(sum(exp(x[row, :]))); at least one column. */
double NATIVE(log_sum_exp)(size_t rows, size_t columns, const double *x, double *d_x);

/* sum(t) after ten steps t <- t + 0.1 * tanh(t * y) that begin at t = x: 40 elementwise operations. */
double NATIVE(elementwise_chain)(size_t n, const double *x, const double *y, double *d_x, double *d_y);

/* mean(log(1 + exp(z)) - y * z) with z = x @ w + b, x[rows, columns], y in {0, 1}; at most 256 columns
 * (NaN otherwise). `d_b` is one number. */
double NATIVE(logistic_regression)(size_t rows, size_t columns, const double *w, double b, const double *x,
                                   const double *y, double *d_w, double *d_b);

/* mean(|inv(a) v|^2 + log(det(a)^2)) over `n` matrices a[n,3,3] and vectors v[n,3]. */
double NATIVE(small_matrices)(size_t n, const double *a, const double *v, double *d_a, double *d_v);

/* sum(u * u) after `sweeps` steps u <- u + c * laplacian(u) on a [rows, columns] grid with zero outside.
 * Returns NaN when out of memory. */
double NATIVE(stencil)(size_t rows, size_t columns, size_t sweeps, const double *u, const double *c, double *d_u,
                       double *d_c);

/* 0.5 * sum_ij q_i q_j exp(-|p_i - p_j|^2 / 2) over `n` points p[n,3] with weights q[n]; no n x n array. */
double NATIVE(pairwise_energy)(size_t n, const double *p, const double *q, double *d_p, double *d_q);

/* Jacobians j[n,2,3] of the projection of points[n,3] by one camera[9] (rotation vector, translation, focal
 * length, two coefficients of radial distortion; not turned by zero). There is no value beside them. */
void NATIVE(projection_jacobians)(size_t n, const double *camera, const double *points, double *jacobians);

/* Mean over steps and examples of (h @ v - y)^2, where h = tanh(x @ w + h @ u + b) from step to step, zero before
 * the first: weights w[n,n], u[n,n], b[n], v[n], sequences x[steps,batch,n], y[steps,batch]. Returns NaN without
 * numbers or memory. */
double NATIVE(rnn)(size_t steps, size_t batch, size_t n, const double *w, const double *u, const double *b,
                   const double *v, const double *x, const double *y, double *d_w, double *d_u, double *d_b,
                   double *d_v);

/* Minus the mean log likelihood of series[steps,2] under a Kalman filter with transition[4,4], sensor[2,4] and the
 * logarithms noise[6] of the variances of state and sensor; gradient by `noise` alone. Returns NaN without steps
 * or memory. */
double NATIVE(kalman)(size_t steps, const double *noise, const double *transition, const double *sensor,
                      const double *series, double *d_noise);

/* Sum of squares of the two populations after `steps` classical Runge-Kutta steps of 0.01 of Lotka-Volterra with
 * rates[4], from start[2]. Returns NaN when out of memory. */
double NATIVE(rk4)(size_t steps, const double *rates, const double *start, double *d_rates, double *d_start);

/* Sum of the cube roots of a[n], each by Newton's iteration from 1e12 until a step is a billionth of the root;
 * with gradient through all iterations, and without. */
double NATIVE(newton)(size_t n, const double *a, double *d_a);
double NATIVE(newton_value)(size_t n, const double *a);

#endif
