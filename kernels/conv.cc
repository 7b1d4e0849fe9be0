// Sparse convolution: out[i] = sum_k features[neighbours[k, i]] @ weights[k], and its weight
// gradient. The input gradient is the same convolution through the reversed map.

#include <algorithm>
#include <memory>
#include <new>
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

HASKD_DEFINE_KERNELS(GemmKernels, f32, f64)

// Output rows a tile: few enough that their sums and the rows they gather stay in the second-level
// cache, enough to pay for reading all weights, or all sums of their gradient, again.
constexpr int64_t kTileRows = 512;

// Fewer where a small cloud would leave threads without work. The sums of a row do not depend on its
// tile.
int64_t forward_tile_rows(int64_t rows, int64_t threads) {
  return std::clamp<int64_t>(rows / (2 * std::max<int64_t>(1, threads)), 64, kTileRows);
}

// Up to so many output rows, packing the weights takes longer than it saves: 15 % of a product of 335
// rows and 256 channels, 9 % at 5,000 rows. Beyond, narrow products gain 2 % by it.
constexpr int64_t kFewRows = 8192;

// Room for the pairs of one offset in a range of output rows.
struct Pairs {
  std::vector<int32_t> in, out;

  explicit Pairs(int64_t rows) : in(rows), out(rows) {}
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

  const bool pack = rows > kFewRows || padded != columns;
  auto packed = pack ? aligned_array<T>(offsets * channels * padded) : nullptr;
  const T* matrices = pack ? packed.get() : weights.typed_data();
  if (pack) {
    parallel_for(pool, offsets, [&](int64_t k) {
      kernel.pack(weights.typed_data() + k * channels * columns, channels, columns,
                  packed.get() + k * channels * padded);
    });
  }

  const int64_t tile_rows = forward_tile_rows(rows, pool.num_threads());
  parallel_for(pool, (rows + tile_rows - 1) / tile_rows, [&](int64_t tile) {
    const int64_t first = tile * tile_rows;
    const int64_t count = std::min(tile_rows, rows - first);
    // Where rows are whole vectors, sums are formed in the result itself.
    auto scratch = padded == columns ? nullptr : aligned_array<T>(count * padded);
    T* sums = scratch ? scratch.get() : out + first * columns;
    std::fill_n(sums, count * padded, T(0));
    Pairs pairs(count);
    for (int64_t k = 0; k < offsets; ++k) {
      const int64_t found = kernel.collect_pairs(neighbours.typed_data() + k * rows + first, count,
                                                 inputs, pairs.in.data(), pairs.out.data());
      kernel.multiply(x, pairs.in.data(), pairs.out.data(), found,
                      matrices + k * channels * padded, pack, channels, columns, sums);
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
    auto scratch = padded == columns ? nullptr : aligned_array<T>(kTileRows * padded);
    Pairs pairs(kTileRows);
    for (int64_t first = begin; first < end; first += kTileRows) {
      const int64_t count = std::min(kTileRows, end - first);
      const T* tile = cotangent.typed_data() + first * columns;
      if (scratch) {
        for (int64_t i = 0; i < count; ++i) {
          std::copy_n(tile + i * columns, columns, scratch.get() + i * padded);
          std::fill_n(scratch.get() + i * padded + columns, padded - columns, T(0));
        }
        tile = scratch.get();
      }
      for (int64_t k = first_offset; k < last_offset; ++k) {
        const int64_t found = kernel.collect_pairs(neighbours.typed_data() + k * rows + first, count,
                                                   inputs, pairs.in.data(), pairs.out.data());
        kernel.outer_products(x, pairs.in.data(), tile, pairs.out.data(), found, channels, columns,
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

HASKD_EXPORT_INDEXED(haskd_conv, conv)
HASKD_EXPORT_INDEXED(haskd_conv_weight_grad, conv_weight_grad)

}  // namespace haskd
