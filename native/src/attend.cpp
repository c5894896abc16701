#include "attend.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "rows.hpp"
#include "threads.hpp"

namespace edvac {
namespace {

// Tokens of one piece: many, since each piece makes its keys ready anew, but not so many that there
// are fewer pieces than threads. How many changes no row's bits.
int tokens_of_piece(const Attend& a) {
  static const std::int64_t threads = std::max(1U, std::thread::hardware_concurrency());
  std::int64_t rows = 0;
  for (int i = a.split; i < a.span_count; ++i) rows += a.spans[i].count;
  return static_cast<int>(
      std::clamp<std::int64_t>(rows * a.kv_heads / threads, kFewTokens, kManyTokens));
}

// What there is to do, the segments of one piece one after the other; `parts` is their memory.
std::vector<Piece> pieces_of(const Attend& a, std::vector<float>& parts) {
  std::vector<Piece> pieces;
  std::size_t size = 0;
  const int tokens = tokens_of_piece(a);
  for (int i = 0; i < a.span_count; ++i) {
    const Span& span = a.spans[i];
    for (int head = 0; head < a.kv_heads; ++head) {
      for (int first = 0; first < span.count; first += tokens) {
        const int last = std::min(first + tokens, span.count);
        const std::int64_t keys = span.start + last, step = i < a.split ? kSegment : keys;
        for (std::int64_t at = 0; at < keys; at += step) {
          pieces.push_back({i, head, first, last, at, std::min(at + step, keys), nullptr});
          if (keys > step) size += (last - first) * a.group() * (a.width + 2);
        }
      }
    }
  }
  parts.resize(size);
  float* at = parts.data();
  for (Piece& piece : pieces) {
    const Span& span = a.spans[piece.span];
    if (piece.begin == 0 && piece.end == span.start + piece.last) continue;
    piece.part = at;
    at += (piece.last - piece.first) * a.group() * (a.width + 2);
  }
  return pieces;
}

}  // namespace

void attend(const Level& use, const Attend& a, std::size_t rows) {
  std::vector<float> queries(rows * a.heads * a.width), parts;
  std::vector<std::pair<int, int>> tokens;
  for (int i = 0; i < a.span_count; ++i)
    for (int token = 0; token < a.spans[i].count; ++token) tokens.emplace_back(i, token);
  constexpr std::size_t kAtOnce = 8;
  parallel((tokens.size() + kAtOnce - 1) / kAtOnce, [&](std::size_t part) {
    const std::size_t end = std::min((part + 1) * kAtOnce, tokens.size());
    for (std::size_t i = part * kAtOnce; i < end; ++i) {
      const Span& span = a.spans[tokens[i].first];
      const std::size_t row = span.row + tokens[i].second;
      use.prepare(a, span, tokens[i].second, queries.data() + row * a.heads * a.width);
    }
  });
  const std::vector<Piece> pieces = pieces_of(a, parts);
  parallel(pieces.size(), [&](std::size_t i) { use.mix(a, pieces[i], queries.data()); });
  for (std::size_t i = 0; i < pieces.size();) {
    std::size_t end = i + 1;
    while (end < pieces.size() && pieces[end].begin > 0) ++end;
    if (pieces[i].part != nullptr) use.join(a, &pieces[i], static_cast<int>(end - i));
    i = end;
  }
}

}  // namespace edvac
