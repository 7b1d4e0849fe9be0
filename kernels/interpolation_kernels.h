// The inner loops of interpolation, compiled once for each instruction set. As gemm_kernels.h, this
// header holds nothing that the linker could pick for another machine.

#ifndef HASKD_KERNELS_INTERPOLATION_KERNELS_H_
#define HASKD_KERNELS_INTERPOLATION_KERNELS_H_

#include <stdint.h>

namespace haskd {

// Each of `points` points has `corners` rows, by `index`, and as many weights. Indices outside of
// the rows stand for corners that are missing.
template <typename T>
struct InterpolationKernels {
  // out[i] = sum over k of weights[i, k] * rows[index[i, k]], of `size` rows of `columns` values.
  void (*gather)(const T* rows, int64_t size, const int32_t* index, const T* weights,
                 int64_t points, int64_t corners, int64_t columns, T* out);

  // sums[j - begin] = sum over i, k with index[i, k] == j of weights[i, k] * values[i], for j in
  // [begin, end).
  void (*scatter)(const T* values, const int32_t* index, const T* weights, int64_t points,
                  int64_t corners, int64_t columns, int64_t begin, int64_t end, T* sums);
};

#define HASKD_DECLARE_INTERPOLATION_KERNELS(isa)               \
  namespace isa {                                              \
  extern const InterpolationKernels<float> interpolation_f32;  \
  extern const InterpolationKernels<double> interpolation_f64; \
  }
HASKD_DECLARE_INTERPOLATION_KERNELS(generic)
HASKD_DECLARE_INTERPOLATION_KERNELS(avx2)
HASKD_DECLARE_INTERPOLATION_KERNELS(avx512)
#undef HASKD_DECLARE_INTERPOLATION_KERNELS

}  // namespace haskd

#endif  // HASKD_KERNELS_INTERPOLATION_KERNELS_H_
