// Makes an XLA FFI handler a symbol of the library: Python finds it by name and registers it.

#ifndef HASKD_KERNELS_EXPORT_H_
#define HASKD_KERNELS_EXPORT_H_

#include "xla/ffi/api/ffi.h"

#define HASKD_EXPORT_HANDLER(name, implementation, binding)                                    \
  extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* name(XLA_FFI_CallFrame*); \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, implementation, binding)

#endif  // HASKD_KERNELS_EXPORT_H_
