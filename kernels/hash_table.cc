// Hash tables of voxels, and lookups in them.

#include <algorithm>
#include <cstdint>

#include "coords.h"
#include "export.h"
#include "parallel.h"

namespace haskd {
namespace {

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

}  // namespace

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

}  // namespace haskd
