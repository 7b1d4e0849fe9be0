// Sparse convolution: out[i] = sum_k features[neighbours[k, i]] @ weights[k], and its weight
// gradient. The input gradient is the same convolution through the reversed map.

#include <algorithm>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "export.h"
#include "gemm_kernels.h"
#include "isa.h"
#include "parallel.h"

namespace haskd {
namespace {

namespace ffi = xla::ffi;

constexpr size_t kAlignment = 64;  // a cache line; buffers off it cost 10 % and more

template <typename T>
struct AlignedDelete {
  void operator()(T* data) const { ::operator delete[](data, std::align_val_t(kAlignment)); }
};

template <typename T>
std::unique_ptr<T[], AlignedDelete<T>> aligned_array(int64_t size) {
  void* data = ::operator new[](size * sizeof(T), std::align_val_t(kAlignment));
  return std::unique_ptr<T[], AlignedDelete<T>>(static_cast<T*>(data));
}

template <typename T>
const GemmKernels<T>& kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return HASKD_PICK(f32);
  } else {
    return HASKD_PICK(f64);
  }
}

// Output rows a tile: few enough that their sums stay in the second-level cache and that a small
// cloud makes work for every thread; not fewer, as each tile reads all weights. The sums of a row do
// not depend on its tile.
int64_t forward_tile_rows(int64_t rows, int64_t threads) {
  return std::clamp<int64_t>(rows / (2 * std::max<int64_t>(1, threads)), 64, 384);
}

// The pairs of one offset in a range of output rows, dense.
template <typename T>
struct Pairs {
  std::vector<const T*> in;
  std::vector<int32_t> out;
  int64_t count = 0;

  explicit Pairs(int64_t rows) : in(rows), out(rows) {}

  void collect(const int32_t* neighbours, int64_t rows, const T* features, int64_t inputs,
               int64_t channels) {
    count = 0;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t j = neighbours[i];
      const bool there = static_cast<uint64_t>(j) < static_cast<uint64_t>(inputs);  // -1: none
      in[count] = features + (there ? j : 0) * channels;
      out[count] = static_cast<int32_t>(i);
      count += there;
    }
  }
};

template <ffi::DataType kType, typename T>
ffi::Error conv(ffi::ThreadPool pool, ffi::Buffer<kType> features, ffi::Buffer<kType> weights,
                ffi::Buffer<ffi::S32> neighbours, ffi::ResultBuffer<kType> result) {
  const int64_t inputs = features.dimensions()[0], channels = features.dimensions()[1];
  const int64_t offsets = weights.dimensions()[0];
  const int64_t columns = weights.dimensions()[2];
  const int64_t rows = neighbours.dimensions()[1];
  const T* x = features.typed_data();
  T* out = result->typed_data();
  const GemmKernels<T>& kernel = kernels<T>();
  const int64_t padded = kernel.padded_columns(columns);

  auto packed = aligned_array<T>(offsets * channels * padded);
  parallel_for(pool, offsets, [&](int64_t k) {
    kernel.pack(weights.typed_data() + k * channels * columns, channels, columns,
                packed.get() + k * channels * padded);
  });

  const int64_t tile_rows = forward_tile_rows(rows, pool.num_threads());
  parallel_for(pool, (rows + tile_rows - 1) / tile_rows, [&](int64_t tile) {
    const int64_t first = tile * tile_rows;
    const int64_t count = std::min(tile_rows, rows - first);
    // Where rows are whole vectors, sums are formed in the result itself.
    auto scratch = padded == columns ? nullptr : aligned_array<T>(count * padded);
    T* sums = scratch ? scratch.get() : out + first * columns;
    std::fill_n(sums, count * padded, T(0));
    Pairs<T> pairs(count);
    for (int64_t k = 0; k < offsets; ++k) {
      pairs.collect(neighbours.typed_data() + k * rows + first, count, x, inputs, channels);
      kernel.multiply(pairs.in.data(), pairs.out.data(), pairs.count,
                      packed.get() + k * channels * padded, channels, columns, sums);
    }
    if (scratch) {
      for (int64_t i = 0; i < count; ++i) {
        std::copy_n(sums + i * padded, columns, out + (first + i) * columns);
      }
    }
  });
  return ffi::Error::Success();
}

// Sums over rows are cut into parts, each summed by one thread, and the parts added in order. Their
// number depends on shapes alone, so the bits do not depend on the number of threads.
constexpr int64_t kTasks = 16;
constexpr int64_t kPartRows = 4096;
constexpr int64_t kMaxPartialBytes = 64 << 20;

// Few enough that the gathered rows stay in the first caches, enough to pay for reading the sums;
// which of the two weighs more depends on the channels.
int64_t gradient_tile_rows(int64_t channels) {
  if (channels >= 256) return 512;
  return std::clamp<int64_t>(12288 / std::max<int64_t>(1, channels), 128, 256);
}

template <ffi::DataType kType, typename T>
ffi::Error conv_weight_grad(ffi::ThreadPool pool, ffi::Buffer<kType> features,
                            ffi::Buffer<kType> cotangent, ffi::Buffer<ffi::S32> neighbours,
                            ffi::ResultBuffer<kType> result) {
  const int64_t inputs = features.dimensions()[0], channels = features.dimensions()[1];
  const int64_t rows = neighbours.dimensions()[1];
  const int64_t offsets = neighbours.dimensions()[0];
  const int64_t columns = cotangent.dimensions()[1];
  const T* x = features.typed_data();
  T* out = result->typed_data();
  const GemmKernels<T>& kernel = kernels<T>();
  const int64_t padded = kernel.padded_columns(columns);
  const int64_t tile_rows = gradient_tile_rows(channels);
  const int64_t size = offsets * channels * padded;  // of one partial gradient

  const int64_t most = std::max<int64_t>(1, kMaxPartialBytes / std::max<int64_t>(1, size * sizeof(T)));
  const int64_t parts = std::clamp<int64_t>(rows / kPartRows, 1, std::min(kTasks, most));
  const int64_t groups = std::min(offsets, (kTasks + parts - 1) / parts);

  // One part of whole vectors is formed in the result itself.
  const bool in_place = parts == 1 && padded == columns;
  auto partial = in_place ? nullptr : aligned_array<T>(parts * size);
  parallel_for(pool, parts * groups, [&](int64_t task) {
    const int64_t part = task / groups, group = task % groups;
    const int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
    const int64_t first_offset = offsets * group / groups;
    const int64_t last_offset = offsets * (group + 1) / groups;
    T* gradient = in_place ? out : partial.get() + part * size;
    std::fill(gradient + first_offset * channels * padded, gradient + last_offset * channels * padded,
              T(0));
    auto scratch = padded == columns ? nullptr : aligned_array<T>(tile_rows * padded);
    Pairs<T> pairs(tile_rows);
    std::vector<const T*> dy(tile_rows);
    for (int64_t first = begin; first < end; first += tile_rows) {
      const int64_t count = std::min(tile_rows, end - first);
      const T* tile = cotangent.typed_data() + first * columns;
      if (scratch) {
        for (int64_t i = 0; i < count; ++i) {
          std::copy_n(tile + i * columns, columns, scratch.get() + i * padded);
          std::fill_n(scratch.get() + i * padded + columns, padded - columns, T(0));
        }
        tile = scratch.get();
      }
      for (int64_t k = first_offset; k < last_offset; ++k) {
        pairs.collect(neighbours.typed_data() + k * rows + first, count, x, inputs, channels);
        for (int64_t i = 0; i < pairs.count; ++i) dy[i] = tile + pairs.out[i] * padded;
        kernel.outer_products(pairs.in.data(), dy.data(), pairs.count, channels, columns,
                              gradient + k * channels * padded);
      }
    }
  });

  if (in_place) return ffi::Error::Success();
  parallel_for(pool, offsets, [&](int64_t k) {
    for (int64_t row = k * channels; row < (k + 1) * channels; ++row) {
      T* target = out + row * columns;
      std::copy_n(partial.get() + row * padded, columns, target);
      for (int64_t part = 1; part < parts; ++part) {
        const T* source = partial.get() + part * size + row * padded;
        for (int64_t i = 0; i < columns; ++i) target[i] += source[i];
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

#define HASKD_EXPORT_CONV(suffix, dtype, type)                                      \
  HASKD_EXPORT_HANDLER(haskd_conv_##suffix, (conv<dtype, type>),                     \
                       ffi::Ffi::Bind()                                              \
                           .Ctx<ffi::ThreadPool>()                                   \
                           .Arg<ffi::Buffer<dtype>>()                                \
                           .Arg<ffi::Buffer<dtype>>()                                \
                           .Arg<ffi::Buffer<ffi::S32>>()                             \
                           .Ret<ffi::Buffer<dtype>>());                              \
  HASKD_EXPORT_HANDLER(haskd_conv_weight_grad_##suffix, (conv_weight_grad<dtype, type>), \
                       ffi::Ffi::Bind()                                              \
                           .Ctx<ffi::ThreadPool>()                                   \
                           .Arg<ffi::Buffer<dtype>>()                                \
                           .Arg<ffi::Buffer<dtype>>()                                \
                           .Arg<ffi::Buffer<ffi::S32>>()                             \
                           .Ret<ffi::Buffer<dtype>>());
HASKD_EXPORT_CONV(f32, ffi::F32, float)
HASKD_EXPORT_CONV(f64, ffi::F64, double)
#undef HASKD_EXPORT_CONV

}  // namespace haskd
