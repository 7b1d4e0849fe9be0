// The inner loops of batch normalisation, compiled once for each instruction set. As gemm_kernels.h,
// this header holds nothing that the linker could pick for another machine.

#ifndef HASKD_KERNELS_NORM_KERNELS_H_
#define HASKD_KERNELS_NORM_KERNELS_H_

#include <stdint.h>

namespace haskd {

// All work on `rows` rows of `channels` values; rows whose mask is false are not read, and written
// as zeros. Arrays named in the singular of a channel's property hold `channels` values.
template <typename T>
struct NormKernels {
  // Mean as near as T comes to it, sums of the distances from it (what rounding left), and sums of
  // their squares. Returns how many rows the mask admits.
  int64_t (*moments)(const T* x, const bool* mask, int64_t rows, int64_t channels, T* mean, T* rest,
                     T* squares);

  // y = (x - mean) * factor + bias, plus residual where there is one, then ReLU if asked for.
  void (*normalize)(const T* x, const bool* mask, const T* residual, int64_t rows, int64_t channels,
                    const T* mean, const T* factor, const T* bias, bool relu, T* y);

  // Of the gradient g of the sum that ReLU got (y: what ReLU made of it; null without ReLU):
  // sums of g, and of g * (x - mean).
  void (*gradient_sums)(const T* dy, const T* y, const T* x, const bool* mask, int64_t rows,
                        int64_t channels, const T* mean, T* sums, T* products);

  // dx = g * factor - shift - (x - mean) * slope; d_residual = g where wanted (null: not).
  void (*gradient)(const T* dy, const T* y, const T* x, const bool* mask, int64_t rows,
                   int64_t channels, const T* mean, const T* factor, const T* shift, const T* slope,
                   T* dx, T* d_residual);
};

#define HASKD_DECLARE_NORM_KERNELS(isa)      \
  namespace isa {                            \
  extern const NormKernels<float> norm_f32;  \
  extern const NormKernels<double> norm_f64; \
  }
HASKD_DECLARE_NORM_KERNELS(generic)
HASKD_DECLARE_NORM_KERNELS(avx2)
HASKD_DECLARE_NORM_KERNELS(avx512)
#undef HASKD_DECLARE_NORM_KERNELS

}  // namespace haskd

#endif  // HASKD_KERNELS_NORM_KERNELS_H_
