// Weighted sums of rows by index, and their transpose: interpolation from voxels to points and its
// gradient. Composed of gathers and products each corner would be a pass over memory, and more.

#include <algorithm>
#include <cstdint>

#include "export.h"
#include "interpolation_kernels.h"
#include "isa.h"
#include "parallel.h"

namespace haskd {
namespace {

namespace ffi = xla::ffi;

HASKD_DEFINE_KERNELS(InterpolationKernels, interpolation_f32, interpolation_f64)

// out[i, :] = sum over k of weights[i, k] * rows[index[i, k], :].
template <ffi::DataType kType, typename T>
ffi::Error weighted_rows(ffi::ThreadPool pool, ffi::Buffer<kType> rows, ffi::Buffer<kType> weights,
                         ffi::Buffer<ffi::S32> index, ffi::ResultBuffer<kType> out) {
  const int64_t points = index.dimensions()[0], corners = index.dimensions()[1];
  const int64_t size = rows.dimensions()[0], columns = rows.dimensions()[1];
  constexpr int64_t kChunk = 1024;
  parallel_for(pool, (points + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t first = chunk * kChunk;
    kernels<T>().gather(rows.typed_data(), size, index.typed_data() + first * corners,
                        weights.typed_data() + first * corners, std::min(kChunk, points - first),
                        corners, columns, out->typed_data() + first * columns);
  });
  return ffi::Error::Success();
}

// sums[j, :] = sum over i, k with index[i, k] == j of weights[i, k] * values[i, :]. Each task owns
// a range of sums and reads all indices, so the order of a sum is that of i, k, whatever the number
// of tasks.
template <ffi::DataType kType, typename T>
ffi::Error spread_rows(ffi::ThreadPool pool, ffi::Buffer<kType> values, ffi::Buffer<kType> weights,
                       ffi::Buffer<ffi::S32> index, ffi::ResultBuffer<kType> sums) {
  const int64_t points = index.dimensions()[0], corners = index.dimensions()[1];
  const int64_t size = sums->dimensions()[0], columns = sums->dimensions()[1];
  const int64_t tasks = std::clamp<int64_t>(pool.num_threads(), 1, 16);
  parallel_for(pool, tasks, [&](int64_t task) {
    const int64_t begin = size * task / tasks, end = size * (task + 1) / tasks;
    kernels<T>().scatter(values.typed_data(), index.typed_data(), weights.typed_data(), points,
                         corners, columns, begin, end, sums->typed_data() + begin * columns);
  });
  return ffi::Error::Success();
}

}  // namespace

HASKD_EXPORT_INDEXED(haskd_weighted_rows, weighted_rows)
HASKD_EXPORT_INDEXED(haskd_spread_rows, spread_rows)

}  // namespace haskd
