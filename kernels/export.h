// Makes an XLA FFI handler a symbol of the library: Python finds it by name and registers it.

#ifndef HASKD_KERNELS_EXPORT_H_
#define HASKD_KERNELS_EXPORT_H_

#include <exception>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace haskd {

// A kernel whose exceptions (out of memory) become errors: none may leave the library.
template <auto kKernel>
struct Guarded;

template <typename... Args, xla::ffi::Error (*kKernel)(Args...)>
struct Guarded<kKernel> {
  static xla::ffi::Error call(Args... args) {
    try {
      return kKernel(std::move(args)...);
    } catch (const std::exception& error) {
      return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, error.what());
    }
  }
};

}  // namespace haskd

#define HASKD_EXPORT_HANDLER(name, kernel, binding)                                            \
  extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* name(XLA_FFI_CallFrame*); \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, haskd::Guarded<kernel>::call, binding)

// `kernel<dtype, type>` of two arrays of floats and one of indices, to one of floats: as name_f32 and
// name_f64.
#define HASKD_EXPORT_INDEXED(name, kernel)                            \
  HASKD_EXPORT_INDEXED_OF(name##_f32, kernel, ::xla::ffi::F32, float) \
  HASKD_EXPORT_INDEXED_OF(name##_f64, kernel, ::xla::ffi::F64, double)
#define HASKD_EXPORT_INDEXED_OF(name, kernel, dtype, type)                                \
  HASKD_EXPORT_HANDLER(name, (kernel<dtype, type>),                                       \
                       ::xla::ffi::Ffi::Bind()                                            \
                           .Ctx<::xla::ffi::ThreadPool>()                                 \
                           .Arg<::xla::ffi::Buffer<dtype>>()                              \
                           .Arg<::xla::ffi::Buffer<dtype>>()                              \
                           .Arg<::xla::ffi::Buffer<::xla::ffi::S32>>()                    \
                           .Ret<::xla::ffi::Buffer<dtype>>());

#endif  // HASKD_KERNELS_EXPORT_H_
