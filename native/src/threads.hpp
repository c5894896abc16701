// Work shared among the threads that torch already keeps.
#pragma once
#include <cstddef>

namespace edvac {

using Task = void (*)(void* context, std::size_t index);

// Calls task(context, i) for every i below `count`, on the OpenMP threads of this process where
// torch has brought them, else on the calling one. Threads take the next index when they are done,
// so one that was put aside by the system holds nobody up.
void for_each(std::size_t count, Task task, void* context);

template <class F>
void parallel(std::size_t count, F&& work) {
  for_each(
      count, [](void* context, std::size_t index) { (*static_cast<F*>(context))(index); }, &work);
}

}  // namespace edvac
