// Compiled once for each instruction set, with HASKD_ISA naming it. Vectors are the compiler's own
// (GCC's and Clang's vector extension), so that one source serves SSE2, NEON, AVX2 and AVX-512.

#include "gemm_kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace haskd {
namespace HASKD_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kAccumulators = 24;  // of 32 registers
constexpr int kMaxPanel = 4;       // vectors side by side in a panel of weights
constexpr int kMaxGradientPanel = 2;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kAccumulators = 12;  // of 16 registers
constexpr int kMaxPanel = 3;
constexpr int kMaxGradientPanel = 3;
#else
constexpr int kVectorBytes = 16;
constexpr int kAccumulators = 12;
constexpr int kMaxPanel = 3;
constexpr int kMaxGradientPanel = 3;
#endif

template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  static constexpr int width = kVectorBytes / sizeof(T);
};

template <typename T>
int64_t vectors(int64_t columns) {
  return (columns + Vector<T>::width - 1) / Vector<T>::width;
}

template <typename T>
int64_t padded_columns(int64_t columns) {
  return vectors<T>(columns) * Vector<T>::width;
}

// Calls visit(first column, width in vectors) for each panel of at most `widest`. Columns are shared
// out evenly: seven vectors make panels of 4 and 3, not of 4, 2 and 1.
template <typename T, typename Visit>
void for_each_panel(int64_t columns, int64_t widest, Visit visit) {
  const int64_t total = vectors<T>(columns);
  const int64_t panels = (total + widest - 1) / widest;
  int64_t first = 0;
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t width = total / panels + (panel < total % panels);
    visit(first * Vector<T>::width, width);
    first += width;
  }
}

template <typename T>
void pack(const T* weights, int64_t channels, int64_t columns, T* packed) {
  for_each_panel<T>(columns, kMaxPanel, [&](int64_t first, int64_t width) {
    const int64_t panel_columns = width * Vector<T>::width;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < panel_columns; ++i) {
        *packed++ = first + i < columns ? weights[c * columns + first + i] : T(0);
      }
    }
  });
}

int64_t collect_pairs(const int32_t* neighbours, int64_t rows, int64_t inputs, int32_t* in,
                      int32_t* out) {
  int64_t count = 0, i = 0;
#if defined(__AVX512F__)
  // Sixteen at a time. The compressed vector is stored whole, as a store of a part is microcode;
  // there is room, as the pairs so far are at most the rows so far.
  const __m512i limit = _mm512_set1_epi32(static_cast<int32_t>(inputs));
  __m512i row = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (; i + 16 <= rows; i += 16, row = _mm512_add_epi32(row, _mm512_set1_epi32(16))) {
    const __m512i j = _mm512_loadu_si512(neighbours + i);
    const __mmask16 there = _mm512_cmplt_epu32_mask(j, limit);  // -1, unsigned: none
    _mm512_storeu_si512(in + count, _mm512_maskz_compress_epi32(there, j));
    _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(there, row));
    count += __builtin_popcount(there);
  }
#endif
  for (; i < rows; ++i) {
    const int32_t j = neighbours[i];
    in[count] = j;
    out[count] = static_cast<int32_t>(i);
    count += static_cast<uint64_t>(static_cast<int64_t>(j)) < static_cast<uint64_t>(inputs);
  }
  return count;
}

// Asks for a row before it is gathered: rows lie all over the features, where the processor does not
// foresee them.
template <typename T>
void prefetch(const T* row, int64_t channels) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t c = 0; c < channels; c += kLine) __builtin_prefetch(row + c);
}

// A panel of weights, kWidth vectors wide: its rows are `stride` values apart.
template <typename T>
struct Panel {
  const T* data;
  int64_t stride;
};

// A register block: kRows gathered rows times a panel of kWidth vectors.
template <typename T, int kWidth, int kRows>
void multiply_block(const T* features, const int32_t* in, const int32_t* out, Panel<T> panel,
                    int64_t channels, T* accumulators, int64_t stride) {
  using V = typename Vector<T>::type;
  constexpr int kLanes = Vector<T>::width;
  V sum[kRows][kWidth];
  const T* row[kRows];
  for (int r = 0; r < kRows; ++r) {
    row[r] = features + in[r] * channels;
    const T* source = accumulators + out[r] * stride;
    for (int w = 0; w < kWidth; ++w) sum[r][w] = *reinterpret_cast<const V*>(source + w * kLanes);
  }
  for (int64_t c = 0; c < channels; ++c) {
    V weight[kWidth];
    for (int w = 0; w < kWidth; ++w) {
      weight[w] = *reinterpret_cast<const V*>(panel.data + c * panel.stride + w * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const T x = row[r][c];
      for (int w = 0; w < kWidth; ++w) sum[r][w] += weight[w] * x;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    T* target = accumulators + out[r] * stride;
    for (int w = 0; w < kWidth; ++w) *reinterpret_cast<V*>(target + w * kLanes) = sum[r][w];
  }
}

template <typename T, int kWidth, int kRows>
void multiply_rest(const T* features, const int32_t* in, const int32_t* out, int64_t count,
                   Panel<T> panel, int64_t channels, T* accumulators, int64_t stride) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      multiply_block<T, kWidth, kRows>(features, in, out, panel, channels, accumulators, stride);
    } else {
      multiply_rest<T, kWidth, kRows - 1>(features, in, out, count, panel, channels, accumulators,
                                          stride);
    }
  }
}

template <typename T, int kWidth>
void multiply_panel(const T* features, const int32_t* in, const int32_t* out, int64_t count,
                    Panel<T> panel, int64_t channels, T* accumulators, int64_t stride,
                    bool first_panel) {
  constexpr int kRows = kAccumulators / kWidth;
  int64_t i = 0;
  for (; i + kRows <= count; i += kRows) {
    if (first_panel) {  // the others find the rows in the caches
      for (int64_t next = i + kRows; next < count && next < i + 2 * kRows; ++next) {
        prefetch(features + in[next] * channels, channels);
      }
    }
    multiply_block<T, kWidth, kRows>(features, in + i, out + i, panel, channels, accumulators,
                                     stride);
  }
  multiply_rest<T, kWidth, kRows - 1>(features, in + i, out + i, count - i, panel, channels,
                                      accumulators, stride);
}

template <typename T>
void multiply(const T* features, const int32_t* in, const int32_t* out, int64_t count,
              const T* weights, bool packed, int64_t channels, int64_t columns, T* accumulators) {
  const int64_t stride = padded_columns<T>(columns);
  for_each_panel<T>(columns, kMaxPanel, [&](int64_t first, int64_t width) {
    const Panel<T> panel = packed ? Panel<T>{weights + first * channels, width * Vector<T>::width}
                                  : Panel<T>{weights + first, columns};
    const auto run = [&](auto* multiply_panel) {
      multiply_panel(features, in, out, count, panel, channels, accumulators + first, stride,
                     first == 0);
    };
    if (width == 1) run(multiply_panel<T, 1>);
    if (width == 2) run(multiply_panel<T, 2>);
    if (width == 3) run(multiply_panel<T, 3>);
    if constexpr (kMaxPanel > 3) {
      if (width == 4) run(multiply_panel<T, 4>);
    }
  });
}

// A register block of the weight gradient: kRows channels times a panel of kWidth vectors.
template <typename T, int kWidth, int kRows>
void outer_block(const T* features, const int32_t* in, const T* cotangent, const int32_t* out,
                 int64_t count, int64_t channels, int64_t channel, int64_t column, T* gradient,
                 int64_t stride) {
  using V = typename Vector<T>::type;
  constexpr int kLanes = Vector<T>::width;
  constexpr int64_t kAhead = 8;
  const bool first_block = channel == 0 && column == 0;  // the others find the rows in the caches
  V sum[kRows][kWidth];
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) {
      sum[r][w] = *reinterpret_cast<const V*>(gradient + (channel + r) * stride + column + w * kLanes);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    if (first_block && i + kAhead < count) prefetch(features + in[i + kAhead] * channels, channels);
    const T* x = features + in[i] * channels + channel;
    const T* dy = cotangent + out[i] * stride + column;
    V value[kWidth];
    for (int w = 0; w < kWidth; ++w) value[w] = *reinterpret_cast<const V*>(dy + w * kLanes);
    for (int r = 0; r < kRows; ++r) {
      for (int w = 0; w < kWidth; ++w) sum[r][w] += value[w] * x[r];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) {
      *reinterpret_cast<V*>(gradient + (channel + r) * stride + column + w * kLanes) = sum[r][w];
    }
  }
}

template <typename T, int kWidth, int kRows>
void outer_rest(const T* features, const int32_t* in, const T* cotangent, const int32_t* out,
                int64_t count, int64_t channels, int64_t channel, int64_t rows, int64_t column,
                T* gradient, int64_t stride) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      outer_block<T, kWidth, kRows>(features, in, cotangent, out, count, channels, channel, column,
                                    gradient, stride);
    } else {
      outer_rest<T, kWidth, kRows - 1>(features, in, cotangent, out, count, channels, channel, rows,
                                       column, gradient, stride);
    }
  }
}

template <typename T, int kWidth>
void outer_panel(const T* features, const int32_t* in, const T* cotangent, const int32_t* out,
                 int64_t count, int64_t channels, int64_t column, T* gradient, int64_t stride) {
  constexpr int kRows = kAccumulators / kWidth;
  int64_t c = 0;
  for (; c + kRows <= channels; c += kRows) {
    outer_block<T, kWidth, kRows>(features, in, cotangent, out, count, channels, c, column, gradient,
                                  stride);
  }
  outer_rest<T, kWidth, kRows - 1>(features, in, cotangent, out, count, channels, c, channels - c,
                                   column, gradient, stride);
}

template <typename T>
void outer_products(const T* features, const int32_t* in, const T* cotangent, const int32_t* out,
                    int64_t count, int64_t channels, int64_t columns, T* gradient) {
  const int64_t stride = padded_columns<T>(columns);
  for_each_panel<T>(columns, kMaxGradientPanel, [&](int64_t first, int64_t width) {
    const auto run = [&](auto* outer_panel) {
      outer_panel(features, in, cotangent, out, count, channels, first, gradient, stride);
    };
    if (width == 1) run(outer_panel<T, 1>);
    if (width == 2) run(outer_panel<T, 2>);
    if constexpr (kMaxGradientPanel > 2) {
      if (width == 3) run(outer_panel<T, 3>);
    }
  });
}

template <typename T>
constexpr GemmKernels<T> kernels() {
  return {padded_columns<T>, pack<T>, collect_pairs, multiply<T>, outer_products<T>};
}

}  // namespace

extern const GemmKernels<float> f32 = kernels<float>();
extern const GemmKernels<double> f64 = kernels<double>();

}  // namespace HASKD_ISA
}  // namespace haskd
