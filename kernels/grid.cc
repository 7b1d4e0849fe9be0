// Voxel grids: distinct voxels of a cloud in lexicographic order, their hash table, lookups in it,
// and kernel maps by merging sorted keys.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "export.h"
#include "parallel.h"

namespace haskd {
namespace {

namespace ffi = xla::ffi;

constexpr int32_t kPadding = std::numeric_limits<int32_t>::max();

struct Coord {
  int32_t axis[4];  // batch, x, y, z
};

const Coord* as_coords(const int32_t* data) { return reinterpret_cast<const Coord*>(data); }

constexpr int64_t kChunk = 8192;  // rows a task takes at a time

int64_t chunks(int64_t rows) { return (rows + kChunk - 1) / kChunk; }

// Calls body(begin, end, chunk) for ranges that cover [0, rows).
template <typename Body>
void for_each_chunk(ffi::ThreadPool& pool, int64_t rows, const Body& body) {
  parallel_for(pool, chunks(rows), [&](int64_t chunk) {
    body(chunk * kChunk, std::min(rows, (chunk + 1) * kChunk), chunk);
  });
}

// ---- Keys: coordinates packed into one integer of the same order -------------------------------

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
    Extent extent;
    for (int64_t i = begin; i < end; ++i) {
      if (use(i)) extent.add(coords[i]);
    }
    parts[chunk] = extent;
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

// ---- Distinct voxels ----------------------------------------------------------------------------

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

// ---- Hash table ---------------------------------------------------------------------------------

// As `_hash` in haskd_jax/sparse/_hash_table.py: both build and read the same tables.
uint32_t hash(const Coord& c) {
  uint32_t h = 0;
  for (int32_t value : c.axis) {
    h = (h ^ static_cast<uint32_t>(value)) * 0x9E3779B1u;
    h ^= h >> 15;
  }
  h *= 0x85EBCA77u;
  return h ^ (h >> 13);
}

bool equal(const Coord& a, const Coord& b) {
  return a.axis[0] == b.axis[0] && a.axis[1] == b.axis[1] && a.axis[2] == b.axis[2] &&
         a.axis[3] == b.axis[3];
}

int64_t count_valid(ffi::Buffer<ffi::PRED> mask) {
  const bool* begin = mask.typed_data();
  return std::find(begin, begin + mask.dimensions()[0], false) - begin;
}

ffi::Error build_table(ffi::Buffer<ffi::S32> coords, ffi::Buffer<ffi::PRED> mask,
                       ffi::ResultBuffer<ffi::S32> result) {
  const Coord* voxels = as_coords(coords.typed_data());
  const int64_t rows = count_valid(mask);
  int32_t* table = result->typed_data();
  const uint32_t last = static_cast<uint32_t>(result->dimensions()[0] - 1);
  std::fill_n(table, result->dimensions()[0], -1);
  for (int64_t row = 0; row < rows; ++row) {
    uint32_t slot = hash(voxels[row]) & last;
    for (uint32_t step = 1; table[slot] >= 0; ++step) slot = (slot + step) & last;
    table[slot] = static_cast<int32_t>(row);
  }
  return ffi::Error::Success();
}

ffi::Error lookup(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> coords, ffi::Buffer<ffi::S32> table,
                  ffi::Buffer<ffi::S32> queries, ffi::ResultBuffer<ffi::S32> result) {
  const Coord* voxels = as_coords(coords.typed_data());
  const Coord* wanted = as_coords(queries.typed_data());
  const int32_t* slots = table.typed_data();
  const uint32_t last = static_cast<uint32_t>(table.dimensions()[0] - 1);
  for_each_chunk(pool, queries.dimensions()[0], [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t i = begin; i < end; ++i) {
      uint32_t slot = hash(wanted[i]) & last;
      int32_t row = slots[slot];
      for (uint32_t step = 1; row >= 0 && !equal(voxels[row], wanted[i]); ++step) {
        slot = (slot + step) & last;
        row = slots[slot];
      }
      result->typed_data()[i] = row;
    }
  });
  return ffi::Error::Success();
}

// ---- Kernel maps --------------------------------------------------------------------------------

// Both grids' rows are in lexicographic order, so as the output row advances, the row that an offset
// leads to advances too: one pass with a pointer that never goes back, for each pair of x and y
// offsets. `offsets` are in lexicographic order.
template <typename Key>
void merge_neighbours(ffi::ThreadPool& pool, const Coord* in, int64_t in_rows, const Coord* out,
                      int64_t out_valid, int64_t out_rows, const int32_t* offsets, int64_t count,
                      const Packing& packing, int32_t* neighbours) {
  auto keys_of = [&](const Coord* coords, int64_t rows) {
    std::vector<Key> keys(rows + 1);
    for_each_chunk(pool, rows, [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t i = begin; i < end; ++i) keys[i] = packing.key<Key>(coords[i]);
    });
    keys[rows] = ~Key(0);  // a stop for the pointer: no coordinate has this key
    return keys;
  };
  const std::vector<Key> in_keys = keys_of(in, in_rows);
  const bool same = in == out && in_rows == out_valid;
  const std::vector<Key> other_keys = same ? std::vector<Key>() : keys_of(out, out_valid);
  const Key* out_keys = same ? in_keys.data() : other_keys.data();
  std::vector<Key> shift(count);  // what an offset adds to a key, modulo the key's range
  for (int64_t k = 0; k < count; ++k) {
    for (int a = 0; a < 3; ++a) {
      shift[k] += static_cast<Key>(static_cast<int64_t>(offsets[3 * k + a])) << packing.shift[a + 1];
    }
  }

  const Key* const keys = in_keys.data();
  for_each_chunk(pool, out_rows, [&](int64_t begin, int64_t end, int64_t) {
    const int64_t valid_end = std::clamp(out_valid, begin, end);
    for (int64_t k = 0, next; k < count; k = next) {
      next = k + 1;  // offsets [k, next) differ in z alone, ascending
      while (next < count && offsets[3 * next] == offsets[3 * k] &&
             offsets[3 * next + 1] == offsets[3 * k + 1]) {
        ++next;
      }
      int64_t pointer = 0;
      if (begin < valid_end) {
        pointer = std::lower_bound(keys, keys + in_rows, out_keys[begin] + shift[k]) - keys;
      }
      const bool three_in_a_row = next - k == 3 && shift[k + 1] - shift[k] == 1;
      for (int64_t i = begin; i < valid_end; ++i) {
        const Key wanted = out_keys[i] + shift[k];
        pointer += keys[pointer] < wanted;  // mostly one step: taken without a branch
        while (keys[pointer] < wanted) ++pointer;
        int64_t at = pointer;
        int32_t* target = neighbours + k * out_rows + i;
        if (three_in_a_row) {
          for (int z = 0; z < 3; ++z, target += out_rows) {
            // Nothing lies between the three keys, so a match moves on by one.
            const bool found = keys[at] == wanted + z;
            *target = found ? static_cast<int32_t>(at) : -1;
            at += found;
          }
        } else {
          for (int64_t z = k; z < next; ++z, target += out_rows) {
            while (keys[at] < out_keys[i] + shift[z]) ++at;
            *target = keys[at] == out_keys[i] + shift[z] ? static_cast<int32_t>(at) : -1;
          }
        }
      }
      for (int64_t z = k; z < next; ++z) {
        std::fill(neighbours + z * out_rows + valid_end, neighbours + z * out_rows + end, -1);
      }
    }
  });
}

ffi::Error neighbours(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> in_coords,
                      ffi::Buffer<ffi::PRED> in_mask, ffi::Buffer<ffi::S32> out_coords,
                      ffi::Buffer<ffi::PRED> out_mask, ffi::Span<const int32_t> offsets,
                      ffi::ResultBuffer<ffi::S32> result) {
  const Coord* in = as_coords(in_coords.typed_data());
  const Coord* out = as_coords(out_coords.typed_data());
  const int64_t in_rows = count_valid(in_mask), out_valid = count_valid(out_mask);
  const int64_t count = offsets.size() / 3;
  const auto all = [](int64_t) { return true; };
  Extent extent = extent_of(pool, in, in_rows, all);
  if (in != out) extent.add(extent_of(pool, out, out_valid, all));
  // Room on each side for every offset, so that none carries into the next axis; and one more
  // batch, so that no key has all bits set.
  int64_t reach = 0;
  for (int32_t step : offsets) reach = std::max<int64_t>(reach, std::abs(int64_t{step}));
  if (in_rows > 0 || out_valid > 0) {
    for (int a = 1; a < 4; ++a) {
      extent.low[a] -= reach;
      extent.high[a] += reach;
    }
    extent.high[0] += 1;
  }
  const Packing packing(extent);
  HASKD_WITH_KEY(packing.bits,
                 merge_neighbours<Key>(pool, in, in_rows, out, out_valid, result->dimensions()[1],
                                       offsets.begin(), count, packing, result->typed_data()))
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
HASKD_EXPORT_HANDLER(haskd_build_table, build_table,
                     ffi::Ffi::Bind()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::PRED>>()
                         .Ret<ffi::Buffer<ffi::S32>>());
HASKD_EXPORT_HANDLER(haskd_lookup, lookup,
                     ffi::Ffi::Bind()
                         .Ctx<ffi::ThreadPool>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Ret<ffi::Buffer<ffi::S32>>());
HASKD_EXPORT_HANDLER(haskd_neighbours, neighbours,
                     ffi::Ffi::Bind()
                         .Ctx<ffi::ThreadPool>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::PRED>>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::PRED>>()
                         .Attr<ffi::Span<const int32_t>>("offsets")
                         .Ret<ffi::Buffer<ffi::S32>>());

}  // namespace haskd
