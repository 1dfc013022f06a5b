/* Price and greeks in one sweep: about five elementary functions a row, then bound by memory traffic.
 * Formulas: Black & Scholes 1973; greeks by differentiating the price, with S n(d1) = K exp(-rT) n(d2). */
#include "native.h"

#include <math.h>

double NATIVE(black_scholes)(size_t n, const double *restrict spot, const double *restrict strike,
                             const double *restrict expiry, const double *restrict rate, const double *restrict vol,
                             double *restrict d_spot, double *restrict d_strike, double *restrict d_expiry,
                             double *restrict d_rate, double *restrict d_vol)
{
    const double sqrt_half = 0.70710678118654752440, inverse_sqrt_two_pi = 0.39894228040143267794;
    double total = 0.0;
#pragma omp parallel for simd reduction(+ : total) schedule(static)
    for (size_t i = 0; i < n; ++i) {
        const double s = spot[i], k = strike[i], t = expiry[i], r = rate[i], v = vol[i];
        const double root_t = sqrt(t), spread = v * root_t;
        const double d1 = (log(s / k) + (r + 0.5 * v * v) * t) / spread, d2 = d1 - spread;
        const double cdf1 = 0.5 * erf(d1 * sqrt_half) + 0.5, cdf2 = 0.5 * erf(d2 * sqrt_half) + 0.5;
        const double density = inverse_sqrt_two_pi * exp(-0.5 * d1 * d1);
        const double discount = exp(-r * t), paid = k * discount * cdf2;
        total += s * cdf1 - paid;
        d_spot[i] = cdf1;
        d_strike[i] = -discount * cdf2;
        d_expiry[i] = s * density * v / (2.0 * root_t) + r * paid;
        d_rate[i] = t * paid;
        d_vol[i] = s * density * root_t;
    }
    return total;
}
