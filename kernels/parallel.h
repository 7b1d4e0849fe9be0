// A parallel loop on XLA's own thread pool.

#ifndef HASKD_KERNELS_PARALLEL_H_
#define HASKD_KERNELS_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace haskd {

// Calls body(index) once for every index in [0, count), in any order and on any thread, and returns
// when all calls have returned. Throws what the first call that threw has thrown.
//
// The calling thread takes indices from the same counter as the pool's threads do, so the loop makes
// progress, and ends, even where every thread of the pool is itself waiting in such a loop.
template <typename Body>
void parallel_for(xla::ffi::ThreadPool& pool, int64_t count, const Body& body) {
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;  // of the first call that threw
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  if (helpers < 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  // Shared: a task may start after the loop has ended. It then finds no index left, and must not
  // touch `body`, which lives on the caller's stack.
  auto state = std::make_shared<State>();
  const Body* work = &body;
  auto take = [state, work, count] {
    for (;;) {
      const int64_t i = state->next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      try {
        (*work)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(state->mutex);
        if (!state->error) state->error = std::current_exception();
      }
      if (state->done.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->finished.notify_one();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(take)(take));
  take();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done.load(std::memory_order_acquire) == count; });
  if (state->error) std::rethrow_exception(state->error);
}

}  // namespace haskd

#endif  // HASKD_KERNELS_PARALLEL_H_
