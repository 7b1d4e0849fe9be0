// Coordinates of voxels as rows, and packed into one integer of the same order.

#ifndef HASKD_KERNELS_COORDS_H_
#define HASKD_KERNELS_COORDS_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.h"

namespace haskd {

namespace ffi = xla::ffi;

constexpr int32_t kPadding = std::numeric_limits<int32_t>::max();

struct Coord {
  int32_t axis[4];  // batch, x, y, z
};

inline const Coord* as_coords(const int32_t* data) { return reinterpret_cast<const Coord*>(data); }

constexpr int64_t kChunk = 8192;  // rows a task takes at a time

inline int64_t chunks(int64_t rows) { return (rows + kChunk - 1) / kChunk; }

// Calls body(begin, end, chunk) for ranges that cover [0, rows).
template <typename Body>
void for_each_chunk(ffi::ThreadPool& pool, int64_t rows, const Body& body) {
  parallel_for(pool, chunks(rows), [&](int64_t chunk) {
    body(chunk * kChunk, std::min(rows, (chunk + 1) * kChunk), chunk);
  });
}

// The extent of a set of coordinates, axis by axis.
struct Extent {
  int64_t low[4], high[4];

  Extent() {
    std::fill_n(low, 4, std::numeric_limits<int64_t>::max());
    std::fill_n(high, 4, std::numeric_limits<int64_t>::min());
  }
  void add(const Coord& c) {
    for (int a = 0; a < 4; ++a) {
      low[a] = std::min<int64_t>(low[a], c.axis[a]);
      high[a] = std::max<int64_t>(high[a], c.axis[a]);
    }
  }
  void add(const Extent& other) {
    for (int a = 0; a < 4; ++a) {
      low[a] = std::min(low[a], other.low[a]);
      high[a] = std::max(high[a], other.high[a]);
    }
  }
};

// Of the coordinates in [0, rows) for which use(i) holds.
template <typename Use>
Extent extent_of(ffi::ThreadPool& pool, const Coord* coords, int64_t rows, const Use& use) {
  std::vector<Extent> parts(chunks(rows));
  for_each_chunk(pool, rows, [&](int64_t begin, int64_t end, int64_t chunk) {
    // In the coordinates' own type, where one instruction compares all four axes.
    Coord low, high;
    std::fill_n(low.axis, 4, std::numeric_limits<int32_t>::max());
    std::fill_n(high.axis, 4, std::numeric_limits<int32_t>::min());
    bool any = false;
    for (int64_t i = begin; i < end; ++i) {
      if (!use(i)) continue;
      any = true;
      for (int a = 0; a < 4; ++a) {
        low.axis[a] = std::min(low.axis[a], coords[i].axis[a]);
        high.axis[a] = std::max(high.axis[a], coords[i].axis[a]);
      }
    }
    if (any) {
      parts[chunk].add(low);
      parts[chunk].add(high);
    }
  });
  Extent extent;
  for (const Extent& part : parts) extent.add(part);
  return extent;
}

// How a coordinate becomes a key: each axis, less its smallest value, in its own bits.
struct Packing {
  int64_t low[4] = {0, 0, 0, 0};
  int shift[4] = {0, 0, 0, 0};
  int width[4] = {0, 0, 0, 0};
  int bits = 0;

  explicit Packing(const Extent& extent) {
    for (int a = 3; a >= 0; --a) {
      shift[a] = bits;
      if (extent.low[a] > extent.high[a]) continue;  // of nothing
      low[a] = extent.low[a];
      for (int64_t span = extent.high[a] - extent.low[a]; span > 0; span >>= 1) ++width[a];
      bits += width[a];
    }
  }
  template <typename Key>
  Key key(const Coord& c) const {
    Key key = 0;
    for (int a = 0; a < 4; ++a) {
      // An axis of one value has no bits; its shift may be past the key's end.
      if (width[a] > 0) key |= static_cast<Key>(c.axis[a] - low[a]) << shift[a];
    }
    return key;
  }
  template <typename Key>
  Coord coord(Key key) const {
    Coord c;
    for (int a = 0; a < 4; ++a) {
      // Shifts by a whole key's width are not defined: an axis may have all of its bits, or none.
      const Key mask = width[a] > 0 ? ~Key(0) >> (8 * sizeof(Key) - width[a]) : 0;
      const Key offset = width[a] > 0 ? (key >> shift[a]) & mask : 0;
      c.axis[a] = static_cast<int32_t>(low[a] + static_cast<int64_t>(offset));
    }
    return c;
  }
};

// Keys are as narrow as the extent allows: they are read and written many times.
using WideKey = unsigned __int128;
#define HASKD_WITH_KEY(bits, call)      \
  if ((bits) <= 32) {                   \
    using Key = uint32_t;               \
    call;                               \
  } else if ((bits) <= 64) {            \
    using Key = uint64_t;               \
    call;                               \
  } else {                              \
    using Key = WideKey;                \
    call;                               \
  }

// How many rows of a grid are voxels: those that are come first.
inline int64_t count_valid(ffi::Buffer<ffi::PRED> mask) {
  const bool* begin = mask.typed_data();
  return std::find(begin, begin + mask.dimensions()[0], false) - begin;
}

}  // namespace haskd

#endif  // HASKD_KERNELS_COORDS_H_
