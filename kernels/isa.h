// Which instruction set's kernels run: the widest that this machine has.

#ifndef HASKD_KERNELS_ISA_H_
#define HASKD_KERNELS_ISA_H_

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace haskd {

// 0: the compiler's default, 1: AVX2, 2: AVX-512. HASKD_JAX_ISA names a narrower one, to try it;
// haskd_jax refuses names that are none of these before it loads this library.
inline int isa_level() {
#ifdef HASKD_HAVE_X86_KERNELS
  static const int level = [] {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl");
    const int has = avx512 ? 2 : avx2 ? 1 : 0;
    const char* asked = std::getenv("HASKD_JAX_ISA");
    if (asked == nullptr) return has;
    if (std::strcmp(asked, "generic") == 0) return 0;
    return std::strcmp(asked, "avx2") == 0 ? std::min(has, 1) : has;
  }();
  return level;
#else
  return 0;
#endif
}

// The table `name` of the instruction set to run.
#ifdef HASKD_HAVE_X86_KERNELS
#define HASKD_PICK(name) \
  (isa_level() == 2 ? avx512::name : isa_level() == 1 ? avx2::name : generic::name)
#else
#define HASKD_PICK(name) (generic::name)
#endif

// Defines kernels<T>(): `single` for float, `twice` for double, tables of type Kernels<T>.
#define HASKD_DEFINE_KERNELS(Kernels, single, twice) \
  template <typename T>                              \
  const Kernels<T>& kernels() {                      \
    if constexpr (std::is_same_v<T, float>) {        \
      return HASKD_PICK(single);                     \
    } else {                                         \
      return HASKD_PICK(twice);                      \
    }                                                \
  }

}  // namespace haskd

#endif  // HASKD_KERNELS_ISA_H_
