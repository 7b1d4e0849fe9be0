// Compiled once for each instruction set, with HASKD_ISA naming it. Plain loops over channels, which
// compilers vectorise.

#include "norm_kernels.h"

namespace haskd {
namespace HASKD_ISA {
namespace {

template <typename T>
void fill(T* __restrict target, int64_t count, T value) {
  for (int64_t c = 0; c < count; ++c) target[c] = value;
}

template <typename T>
int64_t moments(const T* x, const bool* mask, int64_t rows, int64_t channels, T* __restrict mean,
                T* __restrict rest, T* __restrict squares) {
  int64_t count = 0;
  fill(mean, channels, T(0));
  fill(rest, channels, T(0));
  fill(squares, channels, T(0));
  for (int64_t i = 0; i < rows; ++i) {
    if (!mask[i]) continue;
    const T* row = x + i * channels;
    for (int64_t c = 0; c < channels; ++c) mean[c] += row[c];
    ++count;
  }
  if (count == 0) return 0;
  for (int64_t c = 0; c < channels; ++c) mean[c] /= static_cast<T>(count);
  for (int64_t i = 0; i < rows; ++i) {
    if (!mask[i]) continue;
    const T* row = x + i * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const T centred = row[c] - mean[c];
      rest[c] += centred;
      squares[c] += centred * centred;
    }
  }
  return count;
}

template <typename T, bool kResidual, bool kRelu>
void normalize_row(const T* __restrict x, const T* __restrict residual, int64_t channels,
                   const T* __restrict mean, const T* __restrict factor, const T* __restrict bias,
                   T* __restrict y) {
  for (int64_t c = 0; c < channels; ++c) {
    T value = (x[c] - mean[c]) * factor[c] + bias[c];
    if constexpr (kResidual) value += residual[c];
    if constexpr (kRelu) value = value < 0 ? T(0) : value;  // NaN stays NaN
    y[c] = value;
  }
}

template <typename T>
void normalize(const T* x, const bool* mask, const T* residual, int64_t rows, int64_t channels,
               const T* mean, const T* factor, const T* bias, bool relu, T* y) {
  for (int64_t i = 0; i < rows; ++i, x += channels, y += channels) {
    const T* other = residual == nullptr ? nullptr : residual + i * channels;
    if (!mask[i]) {
      fill(y, channels, T(0));
    } else if (other != nullptr) {
      relu ? normalize_row<T, true, true>(x, other, channels, mean, factor, bias, y)
           : normalize_row<T, true, false>(x, other, channels, mean, factor, bias, y);
    } else {
      relu ? normalize_row<T, false, true>(x, other, channels, mean, factor, bias, y)
           : normalize_row<T, false, false>(x, other, channels, mean, factor, bias, y);
    }
  }
}

template <typename T>
void gradient_sums(const T* dy, const T* y, const T* x, const bool* mask, int64_t rows,
                   int64_t channels, const T* __restrict mean, T* __restrict sums,
                   T* __restrict products) {
  fill(sums, channels, T(0));
  fill(products, channels, T(0));
  for (int64_t i = 0; i < rows; ++i) {
    if (!mask[i]) continue;
    const T* gradient = dy + i * channels;
    const T* row = x + i * channels;
    if (y == nullptr) {
      for (int64_t c = 0; c < channels; ++c) {
        sums[c] += gradient[c];
        products[c] += gradient[c] * (row[c] - mean[c]);
      }
    } else {
      const T* result = y + i * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const T g = result[c] > 0 ? gradient[c] : T(0);
        sums[c] += g;
        products[c] += g * (row[c] - mean[c]);
      }
    }
  }
}

template <typename T, bool kRelu, bool kResidual>
void gradient_row(const T* __restrict dy, const T* __restrict y, const T* __restrict x,
                  int64_t channels, const T* __restrict mean, const T* __restrict factor,
                  const T* __restrict shift, const T* __restrict slope, T* __restrict dx,
                  T* __restrict d_residual) {
  for (int64_t c = 0; c < channels; ++c) {
    T g = dy[c];
    if constexpr (kRelu) g = y[c] > 0 ? g : T(0);
    dx[c] = g * factor[c] - shift[c] - (x[c] - mean[c]) * slope[c];
    if constexpr (kResidual) d_residual[c] = g;
  }
}

template <typename T>
void gradient(const T* dy, const T* y, const T* x, const bool* mask, int64_t rows, int64_t channels,
              const T* mean, const T* factor, const T* shift, const T* slope, T* dx,
              T* d_residual) {
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t at = i * channels;
    const T* result = y == nullptr ? nullptr : y + at;
    T* other = d_residual == nullptr ? nullptr : d_residual + at;
    if (!mask[i]) {
      fill(dx + at, channels, T(0));
      if (other != nullptr) fill(other, channels, T(0));
      continue;
    }
    auto run = [&](auto row) {
      row(dy + at, result, x + at, channels, mean, factor, shift, slope, dx + at, other);
    };
    if (result != nullptr) {
      other != nullptr ? run(gradient_row<T, true, true>) : run(gradient_row<T, true, false>);
    } else {
      other != nullptr ? run(gradient_row<T, false, true>) : run(gradient_row<T, false, false>);
    }
  }
}

template <typename T>
constexpr NormKernels<T> kernels() {
  return {moments<T>, normalize<T>, gradient_sums<T>, gradient<T>};
}

}  // namespace

extern const NormKernels<float> norm_f32 = kernels<float>();
extern const NormKernels<double> norm_f64 = kernels<double>();

}  // namespace HASKD_ISA
}  // namespace haskd
