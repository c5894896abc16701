#include "threads.hpp"

#include <dlfcn.h>

#include <atomic>

namespace edvac {
namespace {

// The entry point of GNU OpenMP (other OpenMP libraries carry it too). It is looked up, not linked:
// torch brings its own copy, and a second pool of spinning threads would fight with the first.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

struct Region {
  Task task;
  void* context;
  std::size_t count;
  std::atomic<std::size_t> next{0};
};

void run(void* data) {
  auto& region = *static_cast<Region*>(data);
  for (;;) {
    const std::size_t index = region.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= region.count) return;
    region.task(region.context, index);
  }
}

}  // namespace

void for_each(std::size_t count, Task task, void* context) {
  static std::atomic<Parallel> known{nullptr};
  Parallel parallel = known.load(std::memory_order_relaxed);
  if (parallel == nullptr) {
    parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    known.store(parallel, std::memory_order_relaxed);
  }
  if (parallel == nullptr || count < 2) {
    for (std::size_t index = 0; index < count; ++index) task(context, index);
    return;
  }
  Region region{task, context, count};
  parallel(run, &region, 0, 0);
}

}  // namespace edvac
