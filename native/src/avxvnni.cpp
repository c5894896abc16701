#include "avx2.hpp"

namespace edvac {
const Level kAvxVnni{"avxvnni", take_row<V>, encode_row<V>, multiply_panel<V>, prepare_row<V>, Mixer<V>::mix,
                  Mixer<V>::join};
}
