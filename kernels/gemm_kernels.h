// The inner loops of sparse convolution, compiled once for each instruction set.
//
// This header is included by code compiled for AVX-512, so it holds nothing that the linker could
// pick for a machine without it: no inline functions, no standard library templates.

#ifndef HASKD_KERNELS_GEMM_KERNELS_H_
#define HASKD_KERNELS_GEMM_KERNELS_H_

#include <stdint.h>

namespace haskd {

template <typename T>
struct GemmKernels {
  // Columns rounded up to whole vectors: the row length of packed weights and of accumulators.
  int64_t (*padded_columns)(int64_t columns);

  // Weights of one offset, [channels, columns], into panels of a few vectors' width, zero-padded to
  // padded_columns. `packed` holds channels * padded_columns values.
  void (*pack)(const T* weights, int64_t channels, int64_t columns, T* packed);

  // accumulators[out[i], :] += in[i][:] @ weights for i in [0, count).
  // Row r of the accumulators begins at accumulators + r * padded_columns.
  void (*multiply)(const T* const* in, const int32_t* out, int64_t count, const T* packed,
                   int64_t channels, int64_t columns, T* accumulators);

  // gradient[c, :] += sum_i in[i][c] * cotangent[i][:], i in [0, count). Rows of `cotangent` and of
  // `gradient` hold padded_columns values.
  void (*outer_products)(const T* const* in, const T* const* cotangent, int64_t count,
                         int64_t channels, int64_t columns, T* gradient);
};

// One table an instruction set; defined in gemm_kernels.cc. The AVX tables exist on x86-64 only.
#define HASKD_DECLARE_KERNELS(isa)      \
  namespace isa {                       \
  extern const GemmKernels<float> f32;  \
  extern const GemmKernels<double> f64; \
  }
HASKD_DECLARE_KERNELS(generic)
HASKD_DECLARE_KERNELS(avx2)
HASKD_DECLARE_KERNELS(avx512)
#undef HASKD_DECLARE_KERNELS

}  // namespace haskd

#endif  // HASKD_KERNELS_GEMM_KERNELS_H_
