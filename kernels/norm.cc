// Batch normalisation of masked rows, with the residual sum and the ReLU around it: on CPU these are
// passes over memory, so what can be done in one is. Rows go by chunks whose number depends on
// shapes alone, and sums over chunks are added in order: no bit depends on threads.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "export.h"
#include "isa.h"
#include "norm_kernels.h"
#include "parallel.h"

namespace haskd {
namespace {

namespace ffi = xla::ffi;

HASKD_DEFINE_KERNELS(NormKernels, norm_f32, norm_f64)

// Calls body(first row, rows, chunk) for each chunk; a chunk stays in the second-level cache.
constexpr int64_t kChunkRows = 256;

int64_t chunks_of(int64_t rows) { return (rows + kChunkRows - 1) / kChunkRows; }

template <typename Body>
void for_each_chunk(ffi::ThreadPool& pool, int64_t rows, const Body& body) {
  parallel_for(pool, chunks_of(rows), [&](int64_t chunk) {
    const int64_t first = chunk * kChunkRows;
    body(first, std::min(kChunkRows, rows - first), chunk);
  });
}

// An operand of the rows' shape that may be left out, which zero rows say.
template <typename T, typename Buffer>
T* rows_or_null(Buffer& buffer) {
  return buffer.dimensions()[0] == 0 ? nullptr : buffer.typed_data();
}

template <typename T>
const T* at_row(const T* data, int64_t offset) {
  return data == nullptr ? nullptr : data + offset;
}

// Count of the rows that the mask admits, their mean, and their sum of squares around it.
template <ffi::DataType kType, typename T>
ffi::Error moments(ffi::ThreadPool pool, ffi::Buffer<kType> x, ffi::Buffer<ffi::PRED> mask,
                   ffi::ResultBufferR0<kType> count, ffi::ResultBuffer<kType> mean,
                   ffi::ResultBuffer<kType> squares) {
  const int64_t rows = x.dimensions()[0], channels = x.dimensions()[1];
  const int64_t chunks = chunks_of(rows);
  std::vector<int64_t> counts(chunks);
  std::vector<T> parts(3 * chunks * channels);
  for_each_chunk(pool, rows, [&](int64_t first, int64_t size, int64_t chunk) {
    T* part = parts.data() + 3 * chunk * channels;
    counts[chunk] = kernels<T>().moments(x.typed_data() + first * channels,
                                         mask.typed_data() + first, size, channels, part,
                                         part + channels, part + 2 * channels);
  });
  // Chan, Golub and LeVeque's rule joins them without losing digits to a large mean.
  std::vector<double> centre(channels), sum(channels);
  double total = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (counts[chunk] == 0) continue;
    const T* part = parts.data() + 3 * chunk * channels;
    const double size = static_cast<double>(counts[chunk]), joined = total + size;
    for (int64_t c = 0; c < channels; ++c) {
      const double rest = part[channels + c];
      const double step = part[c] + rest / size - centre[c];
      centre[c] += step * (size / joined);
      sum[c] += part[2 * channels + c] - rest * rest / size + step * step * (total * size / joined);
    }
    total = joined;
  }
  *count->typed_data() = static_cast<T>(total);
  std::copy(centre.begin(), centre.end(), mean->typed_data());
  std::copy(sum.begin(), sum.end(), squares->typed_data());
  return ffi::Error::Success();
}

template <ffi::DataType kType, typename T>
ffi::Error normalize(ffi::ThreadPool pool, ffi::Buffer<kType> x, ffi::Buffer<ffi::PRED> mask,
                     ffi::Buffer<kType> mean, ffi::Buffer<kType> factor, ffi::Buffer<kType> bias,
                     ffi::Buffer<kType> residual, bool relu, ffi::ResultBuffer<kType> y) {
  const int64_t channels = x.dimensions()[1];
  const T* other = rows_or_null<T>(residual);
  for_each_chunk(pool, x.dimensions()[0], [&](int64_t first, int64_t size, int64_t) {
    const int64_t offset = first * channels;
    kernels<T>().normalize(x.typed_data() + offset, mask.typed_data() + first,
                           at_row(other, offset), size, channels, mean.typed_data(),
                           factor.typed_data(), bias.typed_data(), relu, y->typed_data() + offset);
  });
  return ffi::Error::Success();
}

template <ffi::DataType kType, typename T>
ffi::Error gradient_sums(ffi::ThreadPool pool, ffi::Buffer<kType> dy, ffi::Buffer<kType> y,
                         ffi::Buffer<kType> x, ffi::Buffer<ffi::PRED> mask, ffi::Buffer<kType> mean,
                         ffi::ResultBuffer<kType> sums, ffi::ResultBuffer<kType> products) {
  const int64_t rows = x.dimensions()[0], channels = x.dimensions()[1];
  const T* result = rows_or_null<T>(y);
  std::vector<T> parts(2 * chunks_of(rows) * channels);
  for_each_chunk(pool, rows, [&](int64_t first, int64_t size, int64_t chunk) {
    const int64_t offset = first * channels;
    T* part = parts.data() + 2 * chunk * channels;
    kernels<T>().gradient_sums(dy.typed_data() + offset, at_row(result, offset),
                               x.typed_data() + offset, mask.typed_data() + first, size, channels,
                               mean.typed_data(), part, part + channels);
  });
  std::vector<double> total(2 * channels);
  for (int64_t chunk = 0; chunk < chunks_of(rows); ++chunk) {
    for (int64_t c = 0; c < 2 * channels; ++c) total[c] += parts[2 * chunk * channels + c];
  }
  std::copy_n(total.begin(), channels, sums->typed_data());
  std::copy_n(total.begin() + channels, channels, products->typed_data());
  return ffi::Error::Success();
}

template <ffi::DataType kType, typename T>
ffi::Error gradient(ffi::ThreadPool pool, ffi::Buffer<kType> dy, ffi::Buffer<kType> y,
                    ffi::Buffer<kType> x, ffi::Buffer<ffi::PRED> mask, ffi::Buffer<kType> mean,
                    ffi::Buffer<kType> factor, ffi::Buffer<kType> shift, ffi::Buffer<kType> slope,
                    ffi::ResultBuffer<kType> dx, ffi::ResultBuffer<kType> d_residual) {
  const int64_t channels = x.dimensions()[1];
  const T* result = rows_or_null<T>(y);
  T* other = rows_or_null<T>(*d_residual);
  for_each_chunk(pool, x.dimensions()[0], [&](int64_t first, int64_t size, int64_t) {
    const int64_t offset = first * channels;
    kernels<T>().gradient(dy.typed_data() + offset, at_row(result, offset), x.typed_data() + offset,
                          mask.typed_data() + first, size, channels, mean.typed_data(),
                          factor.typed_data(), shift.typed_data(), slope.typed_data(),
                          dx->typed_data() + offset, other == nullptr ? nullptr : other + offset);
  });
  return ffi::Error::Success();
}

}  // namespace

#define HASKD_EXPORT_NORM(suffix, dtype, type)                                            \
  HASKD_EXPORT_HANDLER(haskd_moments_##suffix, (moments<dtype, type>),                    \
                       ffi::Ffi::Bind()                                                   \
                           .Ctx<ffi::ThreadPool>()                                        \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<ffi::PRED>>()                                 \
                           .Ret<ffi::BufferR0<dtype>>()                                   \
                           .Ret<ffi::Buffer<dtype>>()                                     \
                           .Ret<ffi::Buffer<dtype>>());                                   \
  HASKD_EXPORT_HANDLER(haskd_normalize_##suffix, (normalize<dtype, type>),                \
                       ffi::Ffi::Bind()                                                   \
                           .Ctx<ffi::ThreadPool>()                                        \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<ffi::PRED>>()                                 \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Attr<bool>("relu")                                            \
                           .Ret<ffi::Buffer<dtype>>());                                   \
  HASKD_EXPORT_HANDLER(haskd_norm_gradient_sums_##suffix, (gradient_sums<dtype, type>),   \
                       ffi::Ffi::Bind()                                                   \
                           .Ctx<ffi::ThreadPool>()                                        \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<ffi::PRED>>()                                 \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Ret<ffi::Buffer<dtype>>()                                     \
                           .Ret<ffi::Buffer<dtype>>());                                   \
  HASKD_EXPORT_HANDLER(haskd_norm_gradient_##suffix, (gradient<dtype, type>),             \
                       ffi::Ffi::Bind()                                                   \
                           .Ctx<ffi::ThreadPool>()                                        \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<ffi::PRED>>()                                 \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Arg<ffi::Buffer<dtype>>()                                     \
                           .Ret<ffi::Buffer<dtype>>()                                     \
                           .Ret<ffi::Buffer<dtype>>());
HASKD_EXPORT_NORM(f32, ffi::F32, float)
HASKD_EXPORT_NORM(f64, ffi::F64, double)
#undef HASKD_EXPORT_NORM

}  // namespace haskd
