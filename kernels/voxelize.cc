// Distinct voxels of a cloud, in lexicographic order.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "coords.h"
#include "export.h"
#include "parallel.h"

namespace haskd {
namespace {

template <typename Key>
struct Entry {
  Key key;
  int32_t point;
};

// Not a vector: that would write zeros first, in one thread.
template <typename Key>
using Entries = std::unique_ptr<Entry<Key>[]>;

// Stable least-significant-digit radix sort by the lowest `bits` bits of the key. Chunks count and
// place their entries in parallel; as the sort is stable, how many they are changes nothing.
template <typename Key>
void radix_sort(ffi::ThreadPool& pool, Entries<Key>& entries, int64_t count, int bits) {
  constexpr int kMaxDigit = 12;
  const int passes = (bits + kMaxDigit - 1) / kMaxDigit;
  const int64_t parts = std::clamp<int64_t>(count / kChunk, 1, 2 * std::max<int64_t>(1, pool.num_threads()));
  Entries<Key> other(new Entry<Key>[count]);
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = bits * pass / passes;
    const int64_t digits = int64_t{1} << (bits * (pass + 1) / passes - shift);
    auto digit = [&](const Entry<Key>& e) {
      return static_cast<size_t>(e.key >> shift) & static_cast<size_t>(digits - 1);
    };
    std::vector<int32_t> place(parts * digits);
    parallel_for(pool, parts, [&](int64_t part) {
      int32_t* histogram = place.data() + part * digits;
      for (int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        ++histogram[digit(entries[i])];
      }
    });
    int32_t next = 0;
    for (int64_t d = 0; d < digits; ++d) {
      for (int64_t part = 0; part < parts; ++part) {
        next += std::exchange(place[part * digits + d], next);
      }
    }
    parallel_for(pool, parts, [&](int64_t part) {
      int32_t* target = place.data() + part * digits;
      for (int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        other[target[digit(entries[i])]++] = entries[i];
      }
    });
    entries.swap(other);
  }
}

template <typename Key>
void distinct_voxels(ffi::ThreadPool& pool, const Coord* coords, const bool* mask, int64_t points,
                     const Packing& packing, int64_t capacity, Coord* voxels, int32_t* kept,
                     int32_t* overflow, int32_t* point_to_voxel) {
  const int64_t valid = std::count(mask, mask + points, true);
  Entries<Key> entries(new Entry<Key>[valid]);
  if (valid == points) {
    for_each_chunk(pool, points, [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t i = begin; i < end; ++i) {
        entries[i] = {packing.key<Key>(coords[i]), static_cast<int32_t>(i)};
      }
    });
  } else {
    int64_t next = 0;
    for (int64_t i = 0; i < points; ++i) {
      if (mask[i]) entries[next++] = {packing.key<Key>(coords[i]), static_cast<int32_t>(i)};
    }
    std::fill_n(point_to_voxel, points, -1);
  }
  radix_sort(pool, entries, valid, packing.bits);

  // The sort is stable: the first entry of each voxel is the voxel's first point.
  auto starts_voxel = [&](int64_t i) { return i == 0 || entries[i].key != entries[i - 1].key; };
  std::vector<int64_t> rows_before(chunks(valid) + 1);
  for_each_chunk(pool, valid, [&](int64_t begin, int64_t end, int64_t chunk) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += starts_voxel(i);
    rows_before[chunk + 1] = count;
  });
  for (size_t i = 1; i < rows_before.size(); ++i) rows_before[i] += rows_before[i - 1];
  const int64_t distinct = rows_before.back();

  // Where not all fit, those whose first points come earliest do.
  int32_t last_first_point = std::numeric_limits<int32_t>::max();
  if (distinct > capacity) {
    std::vector<int32_t> first_points;
    first_points.reserve(distinct);
    for (int64_t i = 0; i < valid; ++i) {
      if (starts_voxel(i)) first_points.push_back(entries[i].point);
    }
    auto last = first_points.begin() + (capacity - 1);
    std::nth_element(first_points.begin(), last, first_points.end());
    last_first_point = *last;
    int64_t row = 0;  // again, of the voxels that fit
    for (int64_t i = 0; i < valid; ++i) {
      if (i % kChunk == 0) rows_before[i / kChunk] = row;
      row += starts_voxel(i) && entries[i].point <= last_first_point;
    }
  }

  for_each_chunk(pool, valid, [&](int64_t begin, int64_t end, int64_t chunk) {
    int32_t next = static_cast<int32_t>(rows_before[chunk]);
    // The first entry of the voxel that the chunk begins in.
    const auto before = [](const Entry<Key>& e, Key key) { return e.key < key; };
    const int64_t first =
        std::lower_bound(entries.get(), entries.get() + begin, entries[begin].key, before) -
        entries.get();
    int32_t row = first < begin && entries[first].point <= last_first_point ? next - 1 : -1;
    for (int64_t i = begin; i < end; ++i) {
      if (starts_voxel(i)) {
        row = entries[i].point <= last_first_point ? next++ : -1;
        if (row >= 0) voxels[row] = packing.coord(entries[i].key);
      }
      point_to_voxel[entries[i].point] = row;
    }
  });
  *kept = static_cast<int32_t>(std::min(distinct, capacity));
  *overflow = static_cast<int32_t>(distinct - *kept);
  std::fill_n(&voxels[*kept].axis[0], (capacity - *kept) * 4, kPadding);
}

ffi::Error voxelize(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> coords,
                    ffi::Buffer<ffi::PRED> mask, ffi::ResultBuffer<ffi::S32> voxels,
                    ffi::ResultBufferR0<ffi::S32> kept, ffi::ResultBufferR0<ffi::S32> overflow,
                    ffi::ResultBuffer<ffi::S32> point_to_voxel) {
  const int64_t points = coords.dimensions()[0];
  const Coord* in = as_coords(coords.typed_data());
  const bool* valid = mask.typed_data();
  const Packing packing(extent_of(pool, in, points, [&](int64_t i) { return valid[i]; }));
  HASKD_WITH_KEY(packing.bits,
                 distinct_voxels<Key>(pool, in, valid, points, packing, voxels->dimensions()[0],
                                      reinterpret_cast<Coord*>(voxels->typed_data()),
                                      kept->typed_data(), overflow->typed_data(),
                                      point_to_voxel->typed_data()))
  return ffi::Error::Success();
}

}  // namespace

HASKD_EXPORT_HANDLER(haskd_voxelize, voxelize,
                     ffi::Ffi::Bind()
                         .Ctx<ffi::ThreadPool>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::PRED>>()
                         .Ret<ffi::Buffer<ffi::S32>>()
                         .Ret<ffi::BufferR0<ffi::S32>>()
                         .Ret<ffi::BufferR0<ffi::S32>>()
                         .Ret<ffi::Buffer<ffi::S32>>());

}  // namespace haskd
