// What Python sees. Shapes are checked here; nothing below looks at them again.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>

#include "attend.hpp"
#include "packed.hpp"
#include "rows.hpp"
#include "threads.hpp"

namespace nb = nanobind;
using namespace edvac;

namespace {

using Raw = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Target = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;

constexpr int kRowBlock = 128;  // rows whose codes stay in a cache while panels go by
constexpr int kTaskPanels = 16;
constexpr int kLeastTasks = 16;  // of a matrix
constexpr int kMost = 1 << 24;

const Level* level = nullptr;

const Level& chosen() {
  if (level == nullptr) throw std::runtime_error("this processor has none of the known levels");
  return *level;
}

void need(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

Kind kind_named(const std::string& name) {
  const std::pair<const char*, Kind> known[] = {
      {"Q4_0", Kind::Q4_0}, {"Q4_1", Kind::Q4_1}, {"Q5_0", Kind::Q5_0}, {"Q5_1", Kind::Q5_1},
      {"Q8_0", Kind::Q8_0}, {"Q4_K", Kind::Q4_K}, {"Q5_K", Kind::Q5_K}, {"Q6_K", Kind::Q6_K}};
  for (const auto& [known_name, kind] : known)
    if (name == known_name) return kind;
  throw std::invalid_argument("no such kind of block: " + name);
}

Matrix packed(const std::string& name, const Raw& raw, std::int64_t outputs, std::int64_t width,
              const std::vector<std::int32_t>& order) {
  const Kind kind = kind_named(name);
  const Traits t = traits(kind);
  need(0 < outputs && outputs < kMost && 0 < width && width < kMost, "a side is out of range");
  need(width % t.block == 0, "a row is no whole number of blocks");
  need(raw.shape(0) == static_cast<std::size_t>(outputs * (width / t.block) * t.block_bytes),
       "the blocks do not have the size of the matrix");
  need(order.empty() || order.size() == static_cast<std::size_t>(outputs),
       "the order does not name every row");
  for (const auto row : order) need(0 <= row && row < outputs, "the order names no row");
  nb::gil_scoped_release unlocked;
  return pack(kind, raw.data(), static_cast<int>(outputs), static_cast<int>(width), order);
}

// Rows that products read: as they are, normalised, or (gate, up) side by side as silu(gate) * up.
Source source_of(const Floats& values, const std::optional<Vector>& norm, float epsilon,
                 bool gated) {
  need(values.shape(1) == 1 || values.stride(1) == 1, "numbers of a row do not lie side by side");
  need(!norm || norm->shape(0) == values.shape(1), "the norm has another width");
  need(!gated || (values.shape(1) % 2 == 0 && !norm), "gate and up do not have the same width");
  const auto kind = gated  ? Source::Kind::gated
                    : norm ? Source::Kind::normed
                           : Source::Kind::plain;
  return {kind, values.data(), values.stride(0), norm ? norm->data() : nullptr, epsilon};
}

constexpr int kRowsAtOnce = kMostRows;  // whole groups, so that threads share no cache line

// Calls work(row) for every row, a few at a time on each thread.
template <class F>
void for_rows(std::int64_t count, F&& work) {
  parallel((count + kRowsAtOnce - 1) / kRowsAtOnce, [&](std::size_t part) {
    const auto first = static_cast<std::int64_t>(part) * kRowsAtOnce;
    for (std::int64_t row = first; row < std::min(first + kRowsAtOnce, count); ++row)
      work(static_cast<int>(row));
  });
}

Rows take(const Floats& values, const std::optional<Vector>& norm, float epsilon, bool gated) {
  const Source source = source_of(values, norm, epsilon, gated);
  const std::int64_t count = values.shape(0), width = values.shape(1) / (gated ? 2 : 1);
  need(0 < count && count < kMost && 0 < width && width < kMost, "a side is out of range");
  need(width % kUnit == 0, "the width is no multiple of 32");
  const Level& use = chosen();
  nb::gil_scoped_release unlocked;
  Rows rows(static_cast<int>(count), static_cast<int>(width));
  for_rows(count, [&](int row) { use.take(source, row, rows); });
  return rows;
}

using Codes = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using RowScales = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void encode(const Floats& values, const std::optional<Vector>& norm, float epsilon, bool gated,
            const Codes& codes, const RowScales& scales) {
  const Source source = source_of(values, norm, epsilon, gated);
  const std::size_t count = values.shape(0), width = values.shape(1) / (gated ? 2 : 1);
  need(width % kLanes == 0 && width < kMost, "the width is no multiple of 16");
  need(codes.shape(0) == count && codes.shape(1) == width, "the codes have another shape");
  need(scales.shape(0) == count && scales.shape(1) == 1, "the scales have another shape");
  const Level& use = chosen();
  nb::gil_scoped_release unlocked;
  for_rows(static_cast<std::int64_t>(count), [&](int row) {
    use.encode(source, row, static_cast<int>(width), codes.data() + row * width,
               scales.data() + row);
  });
}

struct Part {
  const Matrix* matrix;
  Output out;

  // Panels of a task: many, for a long read of memory, but so few that every thread has tasks.
  int share() const { return std::clamp(matrix->panels() / kLeastTasks, 1, kTaskPanels); }
  int tasks() const { return (matrix->panels() + share() - 1) / share(); }
};

void run(const Rows& rows, const std::vector<Part>& parts) {
  const Level& use = chosen();
  const int per_block = std::max(1, kRowBlock / rows.group);
  const int blocks = (rows.groups() + per_block - 1) / per_block;
  std::size_t tasks = 0;
  for (const Part& part : parts) tasks += part.tasks();
  parallel(tasks * blocks, [&](std::size_t index) {
    const int block = static_cast<int>(index / tasks);
    auto task = static_cast<int>(index % tasks);
    const Part* part = parts.data();
    while (task >= part->tasks()) task -= (part++)->tasks();
    const int first = block * per_block, last = std::min(first + per_block, rows.groups());
    const int end = std::min((task + 1) * part->share(), part->matrix->panels());
    for (int panel = task * part->share(); panel < end; ++panel)
      use.multiply(*part->matrix, rows, first, last, panel, part->out);
  });
}

void multiply(const Rows& rows, const std::vector<const Matrix*>& matrices, const Target& out,
              const std::optional<Vector>& bias) {
  need(out.shape(0) == static_cast<std::size_t>(rows.count), "the target has other rows");
  need(out.shape(1) == 1 || out.stride(1) == 1, "numbers of a row do not lie side by side");
  std::vector<Part> parts;
  std::size_t at = 0;
  for (const Matrix* matrix : matrices) {
    need(matrix->width == rows.width, "a matrix has another width than the rows");
    need(at + matrix->outputs <= out.shape(1), "the target is too narrow");
    const float* from = bias ? bias->data() + at : nullptr;
    parts.push_back({matrix, {out.data() + at, out.stride(0), from}});
    at += matrix->outputs;
  }
  need(at == out.shape(1), "the target is too wide");
  need(!bias || bias->shape(0) == at, "the bias has another width");
  nb::gil_scoped_release unlocked;
  run(rows, parts);
}

// [slots][blocks][heads][32 tokens][bytes of keys and values], the last two without gaps
using Records = nb::ndarray<std::uint8_t, nb::ndim<5>, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using SpanTable = nb::ndarray<const std::int32_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;

// Every span lies inside the memory and the rows of the step.
void check_spans(const SpanTable& spans, std::size_t rows, const Records& memory) {
  for (std::size_t i = 0; i < spans.shape(0); ++i) {
    const std::int64_t slot = spans(i, 0), start = spans(i, 1), count = spans(i, 2);
    const std::int64_t row = spans(i, 3), most = static_cast<std::int64_t>(memory.shape(1)) * kTile;
    need(0 <= slot && slot < static_cast<std::int64_t>(memory.shape(0)), "a span has no such slot");
    need(0 <= start && 0 < count && start + count <= most, "a span passes the end of its slot");
    need(0 <= row && row + count <= static_cast<std::int64_t>(rows), "a span has no such rows");
  }
}

// How keys and values are stored (attend.hpp), for every step of one memory.
struct Stored {
  int key_bits, value_bits, key_order, value_order, width;
  std::optional<Table> block_turns, token_turns;
};

Stored stored(int key_bits, int value_bits, int key_order, int value_order, int width,
              const std::optional<Table>& block_turns,
              const std::optional<Table>& token_turns) {
  for (const int bits : {key_bits, value_bits})
    need(bits == 16 || bits == 8 || bits == 4, "numbers are not stored in so many bits");
  need(0 < width && width < kMost && width % kLanes == 0,
       "the width of a head is no multiple of 16");
  for (const auto [order, bits] : {std::pair{key_order, key_bits}, {value_order, value_bits}}) {
    need(0 < order && (order & (order - 1)) == 0 && width % order == 0,
         "the order is no power of two that divides a head");
    need(order == 1 || bits < 16, "float16 is stored as it is");
  }
  need(key_order <= kLanes || !block_turns, "behind a bias matrices are of 16 at most");
  need(block_turns.has_value() == token_turns.has_value(), "both turns belong to a bias");
  need(!block_turns || block_turns->shape(1) == static_cast<std::size_t>(width),
       "the turns of blocks have another width");
  need(!token_turns || (token_turns->shape(0) == static_cast<std::size_t>(width) &&
                        token_turns->shape(1) == kTile),
       "the turns of tokens have another shape");
  return {key_bits, value_bits, key_order, value_order, width, block_turns, token_turns};
}

void attend_step(const Floats& qkv, const Floats& cosine, const Floats& sine,
                 const std::optional<Vector>& query_norm, const std::optional<Vector>& key_norm,
                 float epsilon, const Records& memory, const SpanTable& spans, int split,
                 int heads, const Target& out, const Stored& kept,
                 const std::optional<Vector>& key_bias) {
  const std::size_t rows = qkv.shape(0), kv_heads = memory.shape(2), width = kept.width;
  need(0 < heads && heads < kMost && heads % static_cast<int>(kv_heads) == 0,
       "the heads do not share the keys' heads evenly");
  need(qkv.stride(1) == 1 && qkv.shape(1) == (heads + 2 * kv_heads) * width, "rows of other width");
  for (const Floats* one : {&cosine, &sine})
    need(one->shape(0) == rows && one->shape(1) == width / 2 && one->stride(1) == 1 &&
             one->stride(0) == static_cast<std::int64_t>(width / 2),
         "the rotation has another shape");
  for (const auto* norm : {&query_norm, &key_norm})
    need(!*norm || (*norm)->shape(0) == width, "a norm has another width");
  need(out.shape(0) == rows && out.shape(1) == heads * width && out.stride(1) == 1,
       "the target has another shape");
  need(!key_bias || key_bias->shape(0) == kv_heads * width, "the bias has another width");
  need(!key_bias || (kept.block_turns && kept.block_turns->shape(0) >= memory.shape(1)),
       "the bias has no turn for every block");
  check_spans(spans, rows, memory);
  const Attend a{heads, static_cast<int>(kv_heads), static_cast<int>(width), qkv.data(),
                 qkv.stride(0), cosine.data(), sine.data(),
                 query_norm ? query_norm->data() : nullptr, key_norm ? key_norm->data() : nullptr,
                 epsilon, memory.data(), memory.stride(0), memory.stride(1), memory.stride(2),
                 kept.key_bits, kept.value_bits, kept.key_order, kept.value_order,
                 key_bias ? key_bias->data() : nullptr,
                 key_bias ? kept.block_turns->data() : nullptr,
                 key_bias ? kept.token_turns->data() : nullptr,
                 reinterpret_cast<const Span*>(spans.data()),
                 static_cast<int>(spans.shape(0)), split, out.data(), out.stride(0)};
  need(memory.shape(3) == kTile && memory.stride(3) == a.record() && memory.stride(4) == 1 &&
           memory.shape(4) == static_cast<std::size_t>(a.record()),
       "tokens of a block do not lie one after the other");
  const Level& use = chosen();
  nb::gil_scoped_release unlocked;
  edvac::attend(use, a, rows);
}

std::string use_level(const std::string& most) {
  const Level* found = find_level(most.c_str());
  if (found == nullptr) throw std::runtime_error("this processor has no such level: " + most);
  level = found;
  return found->name;
}

}  // namespace

NB_MODULE(_kernels, m) {
  level = find_level("");
  nb::set_leak_warnings(false);  // what lives until the interpreter ends, it does not take down
  nb::class_<Matrix>(m, "Matrix")
      .def_ro("outputs", &Matrix::outputs)
      .def_ro("width", &Matrix::width)
      .def_prop_ro("size", &Matrix::size);
  nb::class_<Rows>(m, "Rows").def_ro("count", &Rows::count).def_ro("width", &Rows::width);
  m.def("level", [] { return std::string(level == nullptr ? "" : level->name); });
  m.def("use_level", &use_level, nb::arg("most"));
  m.def("pack", &packed, nb::arg("kind"), nb::arg("raw"), nb::arg("outputs"), nb::arg("width"),
        nb::arg("order"));
  m.def("rows", &take, nb::arg("values"), nb::arg("norm").none(), nb::arg("epsilon"),
        nb::arg("gated"));
  m.def("encode", &encode, nb::arg("values"), nb::arg("norm").none(), nb::arg("epsilon"),
        nb::arg("gated"), nb::arg("codes"), nb::arg("scales"));
  nb::class_<Stored>(m, "Stored");
  m.def("stored", &stored, nb::arg("key_bits"), nb::arg("value_bits"), nb::arg("key_order"),
        nb::arg("value_order"), nb::arg("width"), nb::arg("block_turns").none(), nb::arg("token_turns").none());
  m.def("attend", &attend_step, nb::arg("qkv"), nb::arg("cosine"), nb::arg("sine"),
        nb::arg("query_norm").none(), nb::arg("key_norm").none(), nb::arg("epsilon"),
        nb::arg("memory"), nb::arg("spans"), nb::arg("split"), nb::arg("heads"),
        nb::arg("out"), nb::arg("stored"), nb::arg("key_bias").none());
  m.def("multiply", &multiply, nb::arg("rows"), nb::arg("matrices"), nb::arg("out"),
        nb::arg("bias").none());
}
