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

#endif  // HASKD_KERNELS_EXPORT_H_
