#include <cstring>

#include "rows.hpp"

namespace edvac {

Rows::Rows(int count_, int width_) : count(count_), width(width_), group(1) {
  while (group < kMostRows && group < count) group *= 2;
  const auto padded = static_cast<std::size_t>(groups()) * group;  // rows beyond `count` stay zero
  codes.resize(padded * width);
  scales.resize(padded * chunks());
  sums.resize(padded * (width / 32));
  half_sums.resize(padded * (width / 16));
}

#if defined(__x86_64__)

const Level* find_level(const char* most) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  const bool avxvnni = avx2 && __builtin_cpu_supports("avxvnni");
  const struct { const Level& level; bool there; } known[] = {
      {kAvx512, avx512}, {kAvxVnni, avxvnni}, {kAvx2, avx2}};
  bool allowed = *most == '\0';
  for (const auto& [level, there] : known) {
    allowed = allowed || std::strcmp(level.name, most) == 0;
    if (allowed && there) return &level;
  }
  return nullptr;
}

#else

const Level* find_level(const char*) { return nullptr; }

#endif

}  // namespace edvac
