#include "avx2.hpp"

namespace edvac {
const Level kAvx2{"avx2", take_row<V>, encode_row<V>, multiply_panel<V>, prepare_row<V>, Mixer<V>::mix,
                  Mixer<V>::join};
}
