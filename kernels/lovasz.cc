// Weights of the Lovasz extension of the Jaccard loss, class by class and scene by scene.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "export.h"
#include "parallel.h"

namespace haskd {
namespace {

namespace ffi = xla::ffi;

// The voxels that count, scene by scene, in the order of voxels within each.
struct Scenes {
  std::vector<int64_t> start;  // where each scene begins, and the end
  std::vector<int32_t> voxel, label;

  Scenes(const int32_t* labels, const int32_t* scene, int64_t voxels, int64_t count)
      : start(count + 1) {
    const auto counts = [&](int64_t i) {
      return labels[i] >= 0 && scene[i] >= 0 && scene[i] < count;
    };
    for (int64_t i = 0; i < voxels; ++i) {
      if (counts(i)) ++start[scene[i] + 1];
    }
    for (int64_t s = 0; s < count; ++s) start[s + 1] += start[s];
    voxel.resize(start[count]);
    label.resize(start[count]);
    std::vector<int64_t> next(start);
    for (int64_t i = 0; i < voxels; ++i) {
      if (!counts(i)) continue;
      const int64_t at = next[scene[i]]++;
      voxel[at] = static_cast<int32_t>(i);
      label[at] = labels[i];
    }
  }
};

// Above, a key that orders by |error|, largest first: the bits of a float order like its magnitude.
// Below, the position within the scene, so that entries are distinct.
uint64_t entry(float error, int64_t position) {
  uint32_t bits;
  std::memcpy(&bits, &error, sizeof bits);
  return static_cast<uint64_t>(0x7fffffffu - (bits & 0x7fffffffu)) << 32 |
         static_cast<uint64_t>(position);
}

// Sorts entries that stand in the order of their positions; `spare` has room for as many.
void sort_entries(std::vector<uint64_t>& entries, std::vector<uint64_t>& spare) {
  constexpr int kDigits = 3, kDigitBits = 11, kFirstBit = 32;
  constexpr uint64_t kMask = (1 << kDigitBits) - 1;
  if (entries.size() < 512) {  // where clearing the counters would take longer
    std::sort(entries.begin(), entries.end());
    return;
  }
  uint32_t place[kDigits][kMask + 1] = {};
  for (const uint64_t e : entries) {
    for (int d = 0; d < kDigits; ++d) ++place[d][(e >> (kFirstBit + d * kDigitBits)) & kMask];
  }
  spare.resize(entries.size());
  for (int d = 0; d < kDigits; ++d) {
    uint32_t before = 0;
    for (uint32_t& count : place[d]) before += std::exchange(count, before);
    for (const uint64_t e : entries) {
      spare[place[d][(e >> (kFirstBit + d * kDigitBits)) & kMask]++] = e;
    }
    entries.swap(spare);
  }
}

// weights[c, i]: what voxel i adds to 1 - I/U of its scene when it joins the mistakes of class c,
// which voxels do in the order of their errors; 0 where it does not count.
ffi::Error jaccard_weights(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> errors,
                           ffi::Buffer<ffi::S32> labels, ffi::Buffer<ffi::S32> scene,
                           int32_t num_scenes, ffi::ResultBuffer<ffi::F32> result) {
  const int64_t classes = errors.dimensions()[0], voxels = errors.dimensions()[1];
  const Scenes scenes(labels.typed_data(), scene.typed_data(), voxels,
                      std::max<int32_t>(num_scenes, 0));
  parallel_for(pool, classes, [&](int64_t c) {
    const float* error = errors.typed_data() + c * voxels;
    float* weight = result->typed_data() + c * voxels;
    std::fill_n(weight, voxels, 0.0f);
    std::vector<uint64_t> entries, spare;
    for (size_t s = 0; s + 1 < scenes.start.size(); ++s) {
      const int64_t count = scenes.start[s + 1] - scenes.start[s];
      const int32_t* voxel = scenes.voxel.data() + scenes.start[s];
      const int32_t* label = scenes.label.data() + scenes.start[s];
      const int64_t inside = std::count(label, label + count, c);
      if (inside == 0) continue;  // the intersection is empty, so every weight is 0
      entries.resize(count);
      for (int64_t i = 0; i < count; ++i) entries[i] = entry(error[voxel[i]], i);
      sort_entries(entries, spare);
      // 1/U for a voxel of the class, I/(U(U-1)) for another, as in losses/_jaccard.py, which says
      // why; the operations are the same, so that the results are.
      int32_t intersection = static_cast<int32_t>(inside), united = intersection;
      for (const uint64_t e : entries) {
        const uint32_t i = static_cast<uint32_t>(e);
        if (label[i] == c) {
          --intersection;
          weight[voxel[i]] = 1.0f / static_cast<float>(united);
        } else {
          ++united;
          const float size = static_cast<float>(united);
          weight[voxel[i]] = static_cast<float>(intersection) * (1.0f / size) / (size - 1.0f);
        }
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

HASKD_EXPORT_HANDLER(haskd_jaccard_weights, jaccard_weights,
                     ffi::Ffi::Bind()
                         .Ctx<ffi::ThreadPool>()
                         .Arg<ffi::Buffer<ffi::F32>>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Arg<ffi::Buffer<ffi::S32>>()
                         .Attr<int32_t>("num_scenes")
                         .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace haskd
