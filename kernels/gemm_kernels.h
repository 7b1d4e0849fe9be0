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

  // The pairs of one offset, dense and in order: out[p] = i and in[p] = neighbours[i] for every i in
  // [0, rows) whose neighbour is in [0, inputs). Returns how many they are. `in` and `out` have `rows`
  // places; those after the pairs are left with anything.
  int64_t (*collect_pairs)(const int32_t* neighbours, int64_t rows, int64_t inputs, int32_t* in,
                           int32_t* out);

  // accumulators[out[p], :] += features[in[p], :] @ weights for p in [0, count).
  // Rows of the features hold `channels` values, those of the accumulators padded_columns. Weights
  // are packed, or as they are where columns are whole vectors.
  void (*multiply)(const T* features, const int32_t* in, const int32_t* out, int64_t count,
                   const T* weights, bool packed, int64_t channels, int64_t columns,
                   T* accumulators);

  // gradient[c, :] += sum_p features[in[p], c] * cotangent[out[p], :], p in [0, count). Rows of
  // `cotangent` and of `gradient` hold padded_columns values.
  void (*outer_products)(const T* features, const int32_t* in, const T* cotangent,
                         const int32_t* out, int64_t count, int64_t channels, int64_t columns,
                         T* gradient);
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
