// Compiled once for each instruction set, with HASKD_ISA naming it. Plain loops over columns, which
// compilers vectorise.

#include "interpolation_kernels.h"

namespace haskd {
namespace HASKD_ISA {
namespace {

template <typename T>
void add_scaled(T* __restrict sum, const T* __restrict row, T weight, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) sum[c] += weight * row[c];
}

template <typename T>
void gather(const T* rows, int64_t size, const int32_t* index, const T* weights, int64_t points,
            int64_t corners, int64_t columns, T* out) {
  for (int64_t i = 0; i < points; ++i, index += corners, weights += corners, out += columns) {
    for (int64_t c = 0; c < columns; ++c) out[c] = T(0);
    for (int64_t k = 0; k < corners; ++k) {
      if (index[k] < 0 || index[k] >= size) continue;
      add_scaled(out, rows + index[k] * columns, weights[k], columns);
    }
  }
}

template <typename T>
void scatter(const T* values, const int32_t* index, const T* weights, int64_t points,
             int64_t corners, int64_t columns, int64_t begin, int64_t end, T* sums) {
  for (int64_t c = 0; c < (end - begin) * columns; ++c) sums[c] = T(0);
  for (int64_t i = 0; i < points; ++i, index += corners, weights += corners, values += columns) {
    for (int64_t k = 0; k < corners; ++k) {
      if (index[k] < begin || index[k] >= end) continue;
      add_scaled(sums + (index[k] - begin) * columns, values, weights[k], columns);
    }
  }
}

}  // namespace

extern const InterpolationKernels<float> interpolation_f32 = {gather<float>, scatter<float>};
extern const InterpolationKernels<double> interpolation_f64 = {gather<double>, scatter<double>};

}  // namespace HASKD_ISA
}  // namespace haskd
