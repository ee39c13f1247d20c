/* Poisson tails as `scan.neg_log10_tail_torch` defines them, LANES at a time: no branch, no call of libm. */
#include "_cells.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* Natural logarithm of a positive normal number to about 1e-15: its exponent, and the area's tangent of what is
 * left, within a factor sqrt(2) of 1. */
INLINE double log_of(double x) {
    uint64_t bits, exponent, fraction;
    double e, m;
    memcpy(&bits, &x, sizeof bits);
    fraction = (bits & 0xfffffffffffffu) + (UINT64_C(0x3ff) << 52);
    exponent = (bits >> 52) + (UINT64_C(0x433) << 52); /* as the last digits of 2^52 */
    memcpy(&m, &fraction, sizeof m);
    memcpy(&e, &exponent, sizeof e);
    e -= 4503599627370496.0 + 1023;
    e = m > 1.4142135623730951 ? e + 1 : e;
    m = m > 1.4142135623730951 ? m / 2 : m;
    double t = (m - 1) / (m + 1), s = t * t, sum = 1.0 / 21;
    for (int k = 19; k > 0; k -= 2) sum = sum * s + 1.0 / k;
    return e * 0.6931471805599453 + 2 * t * sum;
}

/* log(n!): Stirling's series at n + 8, and back. */
INLINE double log_factorial(double n) {
    double z = n + 8, r = 1 / z, s = r * r;
    double back = (n + 1) * (n + 2) * (n + 3) * (n + 4) * (n + 5) * (n + 6) * (n + 7);
    double series = r * (1.0 / 12 - s * (1.0 / 360 - s * (1.0 / 1260 - s / 1680)));
    return (z - 0.5) * log_of(z) - z + 0.9189385332046727 + series - log_of(back);
}

/* Leading term times Kummer's function, for n above the mean. */
FAST static void tails_of_lanes(const double *restrict n, const double *restrict mean, float *restrict tail) {
    double fraction[LANES] = {0};
    for (int k = 12; k > 0; k--)
        for (int c = 0; c < LANES; c++) {
            double half = (k + 1) / 2, term = k % 2 ? half * mean[c] : -(n[c] + half) * mean[c];
            fraction[c] = term / (n[c] + 1 + k + fraction[c]);
        }
    for (int c = 0; c < LANES; c++) {
        double kummer = 1 / (1 - mean[c] / (n[c] + 1 + fraction[c]));
        double log_tail =
            n[c] * log_of(mean[c]) - mean[c] - log_factorial(n[c]) + log_of(kummer > 1 ? kummer : 1);
        tail[c] = (float)(log_tail < 0 ? -log_tail / 2.302585092994046 : 0);
    }
}

void neg_log10_tails(const double *n, const double *mean, float *tail, size_t count) {
    for (size_t first = 0; first < count; first += LANES) {
        size_t some = smaller(LANES, count - first);
        double safe[LANES], at_least[LANES];
        float lanes[LANES];
        for (size_t c = 0; c < LANES; c++) {
            double m = c < some ? mean[first + c] : 1;
            at_least[c] = m > 1e-12 ? m : 1e-12;
            safe[c] = c < some && n[first + c] > at_least[c] ? n[first + c] : at_least[c] + 1;
        }
        tails_of_lanes(safe, at_least, lanes);
        for (size_t c = 0; c < some; c++) tail[first + c] = n[first + c] > at_least[c] ? lanes[c] : 0;
    }
}
