// Sums of rows by segment, and rows gathered by index: what voxel means, pooling and their gradients
// are made of.

#include <algorithm>
#include <cstdint>

#include "export.h"
#include "parallel.h"

namespace haskd {
namespace {

namespace ffi = xla::ffi;

constexpr int64_t kTasks = 16;

// out[s, :] = sum of rows[i, :] with ids[i] == s, in the order of i. Each task owns a range of
// segments, so no two threads meet and the order of sums is fixed.
template <ffi::DataType kType, typename T>
ffi::Error segment_sum(ffi::ThreadPool pool, ffi::Buffer<kType> rows, ffi::Buffer<ffi::S32> ids,
                       ffi::ResultBuffer<kType> result) {
  const int64_t count = rows.dimensions()[0], columns = rows.dimensions()[1];
  const int64_t segments = result->dimensions()[0];
  const int32_t* id = ids.typed_data();
  parallel_for(pool, kTasks, [&](int64_t task) {
    const int64_t begin = segments * task / kTasks, end = segments * (task + 1) / kTasks;
    T* out = result->typed_data();
    std::fill(out + begin * columns, out + end * columns, T(0));
    for (int64_t i = 0; i < count; ++i) {
      if (id[i] < begin || id[i] >= end) continue;
      const T* row = rows.typed_data() + i * columns;
      T* sum = out + id[i] * columns;
      for (int64_t c = 0; c < columns; ++c) sum[c] += row[c];
    }
  });
  return ffi::Error::Success();
}

// out[i, :] = rows[indices[i], :], zero where the index is negative or past the end.
template <ffi::DataType kType, typename T>
ffi::Error gather_rows(ffi::ThreadPool pool, ffi::Buffer<kType> rows, ffi::Buffer<ffi::S32> indices,
                       ffi::ResultBuffer<kType> result) {
  const int64_t count = indices.dimensions()[0], columns = rows.dimensions()[1];
  const int64_t size = rows.dimensions()[0];
  constexpr int64_t kChunk = 4096;
  parallel_for(pool, (count + kChunk - 1) / kChunk, [&](int64_t chunk) {
    for (int64_t i = chunk * kChunk; i < std::min(count, (chunk + 1) * kChunk); ++i) {
      const int64_t index = indices.typed_data()[i];
      T* out = result->typed_data() + i * columns;
      if (index >= 0 && index < size) {
        std::copy_n(rows.typed_data() + index * columns, columns, out);
      } else {
        std::fill_n(out, columns, T(0));
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

#define HASKD_EXPORT_SEGMENT(suffix, dtype, type)                                \
  HASKD_EXPORT_HANDLER(haskd_segment_sum_##suffix, (segment_sum<dtype, type>),   \
                       ffi::Ffi::Bind()                                          \
                           .Ctx<ffi::ThreadPool>()                               \
                           .Arg<ffi::Buffer<dtype>>()                            \
                           .Arg<ffi::Buffer<ffi::S32>>()                         \
                           .Ret<ffi::Buffer<dtype>>());                          \
  HASKD_EXPORT_HANDLER(haskd_gather_rows_##suffix, (gather_rows<dtype, type>),   \
                       ffi::Ffi::Bind()                                          \
                           .Ctx<ffi::ThreadPool>()                               \
                           .Arg<ffi::Buffer<dtype>>()                            \
                           .Arg<ffi::Buffer<ffi::S32>>()                         \
                           .Ret<ffi::Buffer<dtype>>());
HASKD_EXPORT_SEGMENT(f32, ffi::F32, float)
HASKD_EXPORT_SEGMENT(f64, ffi::F64, double)
#undef HASKD_EXPORT_SEGMENT

}  // namespace haskd
