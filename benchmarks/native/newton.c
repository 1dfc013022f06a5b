/* Cube roots by Newton's iteration from far away; the iterates of one root are kept for its way back. */
#include "native.h"

#include <math.h>

enum { MOST = 1000 };

static const double FAR = 1e12, TOLERANCE = 1e-9;

double NATIVE(newton_value)(size_t n, const double *a)
{
    double total = 0.0;
    for (size_t i = 0; i < n; ++i) {
        double x = FAR, before = 0.0;
        while (fabs(x - before) > TOLERANCE * fabs(x)) {
            before = x;
            x = (2.0 * x + a[i] / (x * x)) / 3.0;
        }
        total += x;
    }
    return total;
}

double NATIVE(newton)(size_t n, const double *a, double *d_a)
{
    double total = 0.0, kept[MOST];
    for (size_t i = 0; i < n; ++i) {
        double x = FAR, before = 0.0;
        int count = 0;
        while (fabs(x - before) > TOLERANCE * fabs(x) && count < MOST) {
            kept[count++] = before = x;
            x = (2.0 * x + a[i] / (x * x)) / 3.0;
        }
        total += x;
        double d_x = 1.0, sum = 0.0;
        while (count > 0) {
            const double inverse = 1.0 / kept[--count], d = d_x * inverse * inverse / 3.0;
            sum += d;
            d_x = d_x * (2.0 / 3.0) - 2.0 * a[i] * inverse * d;
        }
        d_a[i] = sum;
    }
    return total;
}
