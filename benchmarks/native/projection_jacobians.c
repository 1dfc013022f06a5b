/* One camera, many points: the camera's rotation is a matrix before the loop begins, and each point's 2x3
 * matrix is a product of derivatives by hand: image by flat point (2x2, symmetric up to the focal length),
 * flat point by the point in the camera's frame, that by the point. */
#include "native.h"

#include <math.h>

void NATIVE(projection_jacobians)(size_t n, const double *restrict camera, const double *restrict points,
                                  double *restrict jacobians)
{
    const double angle = sqrt(camera[0] * camera[0] + camera[1] * camera[1] + camera[2] * camera[2]);
    const double x = camera[0] / angle, y = camera[1] / angle, z = camera[2] / angle;
    const double c = cos(angle), s = sin(angle), t = 1.0 - c;
    const double r00 = t * x * x + c, r01 = t * x * y - s * z, r02 = t * x * z + s * y;
    const double r10 = t * x * y + s * z, r11 = t * y * y + c, r12 = t * y * z - s * x;
    const double r20 = t * x * z - s * y, r21 = t * y * z + s * x, r22 = t * z * z + c;
    const double s0 = camera[3], s1 = camera[4], s2 = camera[5];
    const double focal = camera[6], k1 = camera[7], k2 = camera[8];
#pragma omp parallel for simd schedule(static) if (parallel : n > 2048)
    for (size_t i = 0; i < n; ++i) {
        const double *p = points + 3 * i;
        double *j = jacobians + 6 * i;
        const double p0 = r00 * p[0] + r01 * p[1] + r02 * p[2] + s0;
        const double p1 = r10 * p[0] + r11 * p[1] + r12 * p[2] + s1;
        const double p2 = r20 * p[0] + r21 * p[1] + r22 * p[2] + s2;
        const double inverse = -1.0 / p2, u = p0 * inverse, v = p1 * inverse;
        const double square = u * u + v * v, scale = focal * inverse;
        const double stretch = scale * (1.0 + square * (k1 + k2 * square));
        const double slope = 2.0 * scale * (k1 + 2.0 * k2 * square);
        const double uu = stretch + slope * u * u, uv = slope * u * v, vv = stretch + slope * v * v;
        const double u0 = r00 + u * r20, u1 = r01 + u * r21, u2 = r02 + u * r22;
        const double v0 = r10 + v * r20, v1 = r11 + v * r21, v2 = r12 + v * r22;
        j[0] = uu * u0 + uv * v0, j[1] = uu * u1 + uv * v1, j[2] = uu * u2 + uv * v2;
        j[3] = uv * u0 + vv * v0, j[4] = uv * u1 + vv * v1, j[5] = uv * u2 + vv * v2;
    }
}
