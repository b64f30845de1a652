// Tiles: `count` steps of LANES neighbouring channels, one vector a step, and their way from and to tensors.
//
// R is the type of arithmetic, S the type that a tensor stores.

#pragma once

#include <cstdint>
#include <vector>

#include "vector.h"

namespace {

struct Layout {
  int64_t batch, group, step, channel;  // strides in numbers
};

template <class R> struct Tile {
  std::vector<R> data;
  explicit Tile(int64_t steps) : data((steps + 1) * LANES<R>) {}
  R* at(int64_t step) {
    auto start = (reinterpret_cast<uintptr_t>(data.data()) + BYTES - 1) & ~uintptr_t(BYTES - 1);
    return reinterpret_cast<R*>(start) + step * LANES<R>;
  }
};

template <class R, class S> inline Vec<R> load_lanes(const S* from, int64_t stride, int64_t lanes) {
  if (stride == 1 && lanes == LANES<R>) return load<R>(from);
  S buffer[LANES<R>] = {};
  for (int64_t i = 0; i < lanes; ++i) buffer[i] = from[i * stride];
  return load<R>(buffer);
}

template <class R, class S> inline void store_lanes(S* to, int64_t stride, int64_t lanes, Vec<R> v) {
  if (stride == 1 && lanes == LANES<R>) return store<R>(to, v);
  S buffer[LANES<R>];
  store<R>(buffer, v);
  for (int64_t i = 0; i < lanes; ++i) to[i * stride] = buffer[i];
}

// Addresses of the vectors that make a tile: rows are far apart, so that the hardware does not fetch them ahead.
template <class R, class S>
void list_lines(std::vector<const void*>& lines, const S* from, const Layout& at, const int64_t* steps, int64_t count) {
  constexpr int64_t W = LANES<R>;
  const bool rows = at.step == 1 && at.channel != 1;
  for (int64_t t = 0; t < count; ++t)
    lines.push_back(rows ? from + (t % W) * at.channel + steps[t / W * W] : from + steps[t] * at.step);
}

template <class R, class S>
void load_tile(Tile<R>& tile, const S* from, const Layout& at, const int64_t* steps, int64_t count, int64_t lanes) {
  constexpr int W = LANES<R>;
  int64_t t = 0;
  if (at.step == 1 && at.channel != 1 && lanes == W)
    for (; t + W <= count && steps[t + W - 1] == steps[t] + W - 1; t += W) {
      Vec<R> v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) v[i] = load<R>(from + i * at.channel + steps[t]);
      transpose<R>(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store<R>(tile.at(t + i), v[i]);
    }
  for (; t < count; ++t) store<R>(tile.at(t), load_lanes<R>(from + steps[t] * at.step, at.channel, lanes));
}

template <class R, class S>
void store_tile(Tile<R>& tile, S* to, const Layout& at, const int64_t* steps, int64_t count, int64_t lanes, bool add) {
  constexpr int W = LANES<R>;
  int64_t t = 0;
  if (at.step == 1 && at.channel != 1 && lanes == W && !add)
    for (; t + W <= count && steps[t + W - 1] == steps[t] + W - 1; t += W) {
      Vec<R> v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) v[i] = load<R>(tile.at(t + i));
      transpose<R>(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store<R>(to + i * at.channel + steps[t], v[i]);
    }
  for (; t < count; ++t) {
    S* place = to + steps[t] * at.step;
    Vec<R> v = load<R>(tile.at(t));
    if (add) v += load_lanes<R>(place, at.channel, lanes);
    store_lanes<R>(place, at.channel, lanes, v);
  }
}

}  // namespace
