// Selective scan on the CPU, forward and backward, one or four directions over a map.
//
// A vector register holds one number of `LANES` neighbouring channels, so a state of N numbers is N
// registers, the sum over states that makes an output is a plain chain of multiply-adds, and any N works.
// A thread walks the sequence in chunks and, within a chunk, over its blocks of LANES channels: B and C of the
// chunk then stay in the first-level cache, and neighbouring channels are read while their page is hot.
// Directions are an order of positions, not a copy: see `position`.
//
// The interface is plain C on purpose: the file needs no PyTorch headers, so it builds in seconds.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "vector.h"

namespace {

struct Layout {
  int64_t batch, group, step, channel;  // strides in numbers
};

struct Run {  // what one thread does in one go: channel blocks [from, to) of groups [group, group_end)
  int64_t thread, batch, group, group_end, from, to, row;
};

struct Shape {
  int64_t groups, width, states, length, height, chunk, walk, softplus, threads, runs;
};

int64_t position(const Shape& s, int64_t group, int64_t step) {
  if (!s.walk) return step;
  if (group >= 2) step = s.length - 1 - step;
  return (group & 1) ? (step % s.height) * (s.length / s.height) + step / s.height : step;
}

template <class R> struct Tile {  // `count` steps of LANES channels, one vector a step
  std::vector<R> data;
  explicit Tile(int64_t steps) : data((steps + 1) * LANES<R>) {}
  R* at(int64_t step) {
    auto start = (reinterpret_cast<uintptr_t>(data.data()) + 63) & ~uintptr_t(63);
    return reinterpret_cast<R*>(start) + step * LANES<R>;
  }
};

template <class R> inline Vec<R> load_lanes(const R* from, int64_t stride, int64_t lanes) {
  if (stride == 1 && lanes == LANES<R>) return load(from);
  R buffer[LANES<R>] = {};
  for (int64_t i = 0; i < lanes; ++i) buffer[i] = from[i * stride];
  return load(buffer);
}

template <class R> inline void store_lanes(R* to, int64_t stride, int64_t lanes, Vec<R> v) {
  if (stride == 1 && lanes == LANES<R>) return store(to, v);
  R buffer[LANES<R>];
  store(buffer, v);
  for (int64_t i = 0; i < lanes; ++i) to[i * stride] = buffer[i];
}

template <class R>
void load_tile(Tile<R>& tile, const R* from, const Layout& at, const int64_t* steps, int64_t count, int64_t lanes) {
  constexpr int W = LANES<R>;
  int64_t t = 0;
  if (at.step == 1 && at.channel != 1 && lanes == W)
    for (; t + W <= count && steps[t + W - 1] == steps[t] + W - 1; t += W) {
      Vec<R> v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) v[i] = load(from + i * at.channel + steps[t]);
      transpose<R>(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store(tile.at(t + i), v[i]);
    }
  for (; t < count; ++t) store(tile.at(t), load_lanes(from + steps[t] * at.step, at.channel, lanes));
}

template <class R>
void store_tile(Tile<R>& tile, R* to, const Layout& at, const int64_t* steps, int64_t count, int64_t lanes, bool add) {
  constexpr int W = LANES<R>;
  int64_t t = 0;
  if (at.step == 1 && at.channel != 1 && lanes == W && !add)
    for (; t + W <= count && steps[t + W - 1] == steps[t] + W - 1; t += W) {
      Vec<R> v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) v[i] = load(tile.at(t + i));
      transpose<R>(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store(to + i * at.channel + steps[t], v[i]);
    }
  for (; t < count; ++t) {
    R* place = to + steps[t] * at.step;
    Vec<R> v = load<R>(tile.at(t));
    if (add) v += load_lanes(place, at.channel, lanes);
    store_lanes(place, at.channel, lanes, v);
  }
}

// Pointers of one call, null where absent. Order shared with cpp_backend.py.
template <class R> struct Data {
  const R *u, *delta, *A, *B, *C, *D, *bias;  // A is (N, groups * width)
  R *y, *last, *states;                       // last (batch, N, channels); states (batch, chunks, N, channels)
  const R *dy, *dlast;
  R *du, *ddelta, *dA, *dB, *dC, *dD, *dbias;  // dA (batch, N, channels); dB, dC (rows, length, N)
  Layout at_u, at_delta, at_B, at_C, at_y, at_dy, at_du, at_ddelta;
};

template <class R> struct Worker {
  static constexpr int W = LANES<R>;
  typedef Vec<R> V;
  const Shape& s;
  const Data<R>& x;
  const int64_t N, channels, chunks;
  std::vector<int64_t> steps;
  std::vector<R> b, c, db, dc;
  Tile<R> u, step, slope, out, dstep, rate, carry, drate, other, history, decay;

  Worker(const Shape& shape, const Data<R>& data, int64_t blocks, bool backward)
      : s(shape), x(data), N(shape.states), channels(shape.groups * shape.width),
        chunks((shape.length + shape.chunk - 1) / shape.chunk), steps(shape.chunk), b(shape.chunk * N + W),
        c(shape.chunk * N + W), db(shape.chunk * N + W), dc(shape.chunk * N + W), u(shape.chunk), step(shape.chunk),
        slope(shape.chunk), out(shape.chunk), dstep(shape.chunk), rate(N), carry(blocks * N), drate(blocks * N),
        other(blocks * 2), history(backward ? (shape.chunk + 1) * N : 0), decay(backward ? shape.chunk * N : 0) {}

  void enter_chunk(int64_t batch, int64_t group, int64_t start, int64_t count) {
    const R* B = x.B + batch * x.at_B.batch + group * x.at_B.group;
    const R* C = x.C + batch * x.at_C.batch + group * x.at_C.group;
    for (int64_t t = 0; t < count; ++t) steps[t] = position(s, group, start + t);
    if (x.at_B.channel == 1 && x.at_C.channel == 1) {
      for (int64_t t = 0; t < count; ++t) {
        std::memcpy(&b[t * N], B + steps[t] * x.at_B.step, N * sizeof(R));
        std::memcpy(&c[t * N], C + steps[t] * x.at_C.step, N * sizeof(R));
      }
      return;
    }
    for (int64_t n = 0; n < N; ++n)
      for (int64_t t = 0; t < count; ++t) {
        b[t * N + n] = B[steps[t] * x.at_B.step + n * x.at_B.channel];
        c[t * N + n] = C[steps[t] * x.at_C.step + n * x.at_C.channel];
      }
  }

  // u, step size and its slope of one block; `rate` becomes A * log2(e).
  void enter_block(const Run& run, int64_t group, int64_t first, int64_t count, int64_t lanes, bool want_slope) {
    const int64_t channel = group * s.width + first;
    load_tile(u, x.u + run.batch * x.at_u.batch + group * x.at_u.group + first * x.at_u.channel, x.at_u,
              steps.data(), count, lanes);
    load_tile(step, x.delta + run.batch * x.at_delta.batch + group * x.at_delta.group + first * x.at_delta.channel,
              x.at_delta, steps.data(), count, lanes);
    const V bias = x.bias ? load_lanes(x.bias + channel, 1, lanes) : V{};
    for (int64_t t = 0; t < count; ++t) {
      V value = load<R>(step.at(t)) + bias, derivative = splat(R(1));
      if (s.softplus) softplus<R>(value, value, derivative);
      store(step.at(t), value);
      if (want_slope) store(slope.at(t), derivative);
    }
    for (int64_t n = 0; n < N; ++n)
      store(rate.at(n), load_lanes(x.A + n * channels + channel, 1, lanes) * LOG2E<R>);
  }

  template <int NS> void scan_block(R* state, int64_t count, V skip) {
    const int64_t N = NS ? NS : this->N;
    V h[NS ? NS : 1];
    if constexpr (NS > 0)
#pragma GCC unroll 16
      for (int n = 0; n < NS; ++n) h[n] = load<R>(state + n * W);
    const R* a = rate.at(0);
    for (int64_t t = 0; t < count; ++t) {
      const V dt = load<R>(step.at(t)), ut = load<R>(u.at(t)), input = dt * ut;
      const R *bt = &b[t * N], *ct = &c[t * N];
      V y = skip * ut;
      if constexpr (NS > 0) {
#pragma GCC unroll 16
        for (int n = 0; n < NS; ++n) {
          h[n] = exp2(dt * load<R>(a + n * W)) * h[n] + input * bt[n];
          y += h[n] * ct[n];
        }
      } else {
        for (int64_t n = 0; n < N; ++n) {
          const V next = exp2(dt * load<R>(a + n * W)) * load<R>(state + n * W) + input * bt[n];
          store(state + n * W, next);
          y += next * ct[n];
        }
      }
      store(out.at(t), y);
    }
    if constexpr (NS > 0)
#pragma GCC unroll 16
      for (int n = 0; n < NS; ++n) store(state + n * W, h[n]);
  }

  void forward(const Run& run) {
    for (int64_t group = run.group; group < run.group_end; ++group) {
      std::memset(carry.at(0), 0, (run.to - run.from) * N * sizeof(V));
      for (int64_t m = 0; m < chunks; ++m) {
        const int64_t start = m * s.chunk, count = std::min(s.chunk, s.length - start);
        enter_chunk(run.batch, group, start, count);
        for (int64_t j = run.from; j < run.to; ++j) {
          const int64_t first = j * W, lanes = std::min<int64_t>(W, s.width - first);
          const int64_t channel = group * s.width + first;
          R* state = carry.at((j - run.from) * N);
          enter_block(run, group, first, count, lanes, false);
          if (x.states)
            for (int64_t n = 0; n < N; ++n)
              store_lanes(x.states + ((run.batch * chunks + m) * N + n) * channels + channel, 1, lanes,
                          load<R>(state + n * W));
          const V skip = x.D ? load_lanes(x.D + channel, 1, lanes) : V{};
          if (N == 16) scan_block<16>(state, count, skip);
          else if (N == 8) scan_block<8>(state, count, skip);
          else if (N == 1) scan_block<1>(state, count, skip);
          else scan_block<0>(state, count, skip);
          store_tile(out, x.y + run.batch * x.at_y.batch + group * x.at_y.group + first * x.at_y.channel, x.at_y,
                     steps.data(), count, lanes, s.walk && group > run.group);
          if (x.last && m + 1 == chunks)
            for (int64_t n = 0; n < N; ++n)
              store_lanes(x.last + (run.batch * N + n) * channels + channel, 1, lanes, load<R>(state + n * W));
        }
      }
    }
  }

  // States and decays of a chunk again, from the state at its start.
  template <int NS> void replay_block(int64_t count) {
    const int64_t N = NS ? NS : this->N;
    const R* a = rate.at(0);
    for (int64_t t = 0; t < count; ++t) {
      const V dt = load<R>(step.at(t)), input = dt * load<R>(u.at(t));
      const R *bt = &b[t * N], *before = history.at(t * N);
      R *after = history.at((t + 1) * N), *keep = decay.at(t * N);
#pragma GCC unroll 16
      for (int64_t n = 0; n < N; ++n) {
        const V kept = exp2(dt * load<R>(a + n * W));
        store(keep + n * W, kept);
        store(after + n * W, kept * load<R>(before + n * W) + input * bt[n]);
      }
    }
  }

  // One reverse sweep. `out` holds dy on entry; du goes to `out` and d(step) to `dstep`.
  template <int NS> void reverse_block(R* lambda, R* da, int64_t count, V skip, V& dskip) {
    const int64_t N = NS ? NS : this->N;
    const R* a = rate.at(0);
    const R ln2 = R(0.693147180559945309417);  // `rate` is A * log2(e)
    V to_b[W] = {}, to_c[W] = {};
    for (int64_t t = count - 1; t >= 0; --t) {
      const V dt = load<R>(step.at(t)), ut = load<R>(u.at(t)), dy = load<R>(out.at(t)), input = dt * ut;
      const R *bt = &b[t * N], *ct = &c[t * N], *before = history.at(t * N), *after = history.at((t + 1) * N);
      const R* keep = decay.at(t * N);
      V read = V{}, turn = V{};
#pragma GCC unroll 16
      for (int64_t n = N - 1; n >= 0; --n) {
        const V l = load<R>(lambda + n * W) + dy * ct[n];
        const V passed = l * load<R>(keep + n * W), q = passed * load<R>(before + n * W);
        read += l * bt[n];
        turn += q * load<R>(a + n * W);
        store(da + n * W, load<R>(da + n * W) + q * dt);
        store(lambda + n * W, passed);
        const int64_t flat = t * N + n;
        const int slot = NS == W ? n : flat % W;
        to_b[slot] = l * input;
        to_c[slot] = dy * load<R>(after + n * W);
        if (slot == 0) {
          store(&db[flat], load<R>(&db[flat]) + lane_sums<R>(to_b));
          store(&dc[flat], load<R>(&dc[flat]) + lane_sums<R>(to_c));
        }
      }
      store(out.at(t), skip * dy + dt * read);
      store(dstep.at(t), ut * read + turn * ln2);
      dskip += dy * ut;
    }
  }

  void backward_block(const Run& run, int64_t group, int64_t m, int64_t count, int64_t j) {
    const int64_t first = j * W, lanes = std::min<int64_t>(W, s.width - first), channel = group * s.width + first;
    R *lambda = carry.at((j - run.from) * N), *da = drate.at((j - run.from) * N), *sums = other.at((j - run.from) * 2);
    enter_block(run, group, first, count, lanes, true);
    load_tile(out, x.dy + run.batch * x.at_dy.batch + group * x.at_dy.group + first * x.at_dy.channel, x.at_dy,
              steps.data(), count, lanes);
    for (int64_t n = 0; n < N; ++n)
      store(history.at(n), load_lanes(x.states + ((run.batch * chunks + m) * N + n) * channels + channel, 1, lanes));
    const V skip = x.D ? load_lanes(x.D + channel, 1, lanes) : V{};
    V dskip = load<R>(sums), dbias = load<R>(sums + W);
    if (N == W) {
      replay_block<W>(count);
      reverse_block<W>(lambda, da, count, skip, dskip);
    } else if (N == 1) {
      replay_block<1>(count);
      reverse_block<1>(lambda, da, count, skip, dskip);
    } else {
      replay_block<0>(count);
      reverse_block<0>(lambda, da, count, skip, dskip);
    }
    for (int64_t t = 0; t < count; ++t) {
      const V d = load<R>(dstep.at(t)) * load<R>(slope.at(t));
      store(dstep.at(t), d);
      dbias += d;
    }
    store(sums, dskip);
    store(sums + W, dbias);
    store_tile(out, x.du + run.batch * x.at_du.batch + group * x.at_du.group + first * x.at_du.channel, x.at_du,
               steps.data(), count, lanes, s.walk && group > run.group);
    store_tile(dstep,
               x.ddelta + run.batch * x.at_ddelta.batch + group * x.at_ddelta.group + first * x.at_ddelta.channel,
               x.at_ddelta, steps.data(), count, lanes, false);
  }

  void backward(const Run& run) {
    const int64_t blocks = run.to - run.from;
    for (int64_t group = run.group; group < run.group_end; ++group) {
      std::memset(carry.at(0), 0, blocks * N * sizeof(V));
      std::memset(drate.at(0), 0, blocks * N * sizeof(V));
      std::memset(other.at(0), 0, blocks * 2 * sizeof(V));
      for (int64_t j = run.from; x.dlast && j < run.to; ++j)
        for (int64_t n = 0; n < N; ++n)
          store(carry.at((j - run.from) * N + n),
                load_lanes(x.dlast + (run.batch * N + n) * channels + group * s.width + j * W, 1,
                           std::min<int64_t>(W, s.width - j * W)));
      for (int64_t m = chunks - 1; m >= 0; --m) {
        const int64_t start = m * s.chunk, count = std::min(s.chunk, s.length - start);
        enter_chunk(run.batch, group, start, count);
        std::fill(db.begin(), db.end(), R(0));
        std::fill(dc.begin(), dc.end(), R(0));
        for (int64_t j = run.from; j < run.to; ++j) backward_block(run, group, m, count, j);
        const int64_t row = (run.row + group - run.group) * s.length;
        for (int64_t t = 0; t < count; ++t) {
          std::memcpy(x.dB + (row + steps[t]) * N, &db[t * N], N * sizeof(R));
          std::memcpy(x.dC + (row + steps[t]) * N, &dc[t * N], N * sizeof(R));
        }
      }
      for (int64_t j = run.from; j < run.to; ++j) {
        const int64_t channel = group * s.width + j * W, lanes = std::min<int64_t>(W, s.width - j * W);
        for (int64_t n = 0; n < N; ++n)
          store_lanes(x.dA + (run.batch * N + n) * channels + channel, 1, lanes,
                      load<R>(drate.at((j - run.from) * N + n)));
        store_lanes(x.dD + run.batch * channels + channel, 1, lanes, load<R>(other.at((j - run.from) * 2)));
        store_lanes(x.dbias + run.batch * channels + channel, 1, lanes, load<R>(other.at((j - run.from) * 2 + 1)));
      }
    }
  }
};

template <class R> void scan(const int64_t* numbers, void* const* pointers, bool backward) {
  Shape shape;
  std::memcpy(&shape, numbers, sizeof shape);
  Data<R> data;
  std::memcpy(&data, pointers, offsetof(Data<R>, at_u));
  std::memcpy(&data.at_u, numbers + sizeof shape / 8, 8 * sizeof(Layout));
  const Run* runs = reinterpret_cast<const Run*>(numbers + sizeof shape / 8 + 8 * 4);
  auto work = [&](int64_t thread) {
    int64_t blocks = 0;
    for (int64_t i = 0; i < shape.runs; ++i)
      if (runs[i].thread == thread) blocks = std::max(blocks, runs[i].to - runs[i].from);
    if (!blocks) return;
    Worker<R> worker(shape, data, blocks, backward);
    for (int64_t i = 0; i < shape.runs; ++i) {
      if (runs[i].thread != thread) continue;
      if (backward) worker.backward(runs[i]);
      else worker.forward(runs[i]);
    }
  };
  // Plain threads: they survive a fork, and need no second OpenMP runtime beside PyTorch's.
  std::vector<std::thread> others;
  for (int64_t thread = 1; thread < shape.threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (auto& other : others) other.join();
}

}  // namespace

extern "C" {
void scan_forward_float(const int64_t* numbers, void* const* pointers) { scan<float>(numbers, pointers, false); }
void scan_backward_float(const int64_t* numbers, void* const* pointers) { scan<float>(numbers, pointers, true); }
void scan_forward_double(const int64_t* numbers, void* const* pointers) { scan<double>(numbers, pointers, false); }
void scan_backward_double(const int64_t* numbers, void* const* pointers) { scan<double>(numbers, pointers, true); }
// The exponential alone, over `count` vectors `repeats` times: the floor that the benchmark prints.
float exponentials(const float* from, int64_t count, int64_t repeats) {
  Vec<float> sum = {};
  for (int64_t r = 0; r < repeats; ++r)
    for (int64_t i = 0; i < count; ++i) sum += exp2(load<float>(from + i * 16) * float(r + 1));
  return sum[0];
}
}
