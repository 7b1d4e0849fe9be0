// Kernel maps, by merging sorted keys.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "coords.h"
#include "export.h"
#include "parallel.h"

namespace haskd {
namespace {

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
