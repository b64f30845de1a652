// Selective scan on the CPU, forward and backward, one or four directions over a map.
//
// A vector register holds one number of `LANES` neighbouring channels. A state of N numbers is then N vectors, and
// the sum over states that makes an output is a plain chain of multiply-adds. Any N works: the inner loops keep a
// few states in registers, and walk a chunk of the sequence once for each few.
// A thread walks the sequence in chunks and, within a chunk, over its blocks of LANES channels. B and C of the
// chunk then stay in the first-level cache, and neighbouring channels are read while their page is hot.
// Directions are an order of positions, not a copy: see `position`.
//
// The interface is plain C on purpose: the file needs no PyTorch headers, so it builds in seconds.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#include "tile.h"

namespace {

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

// Pointers of one call, null where absent. Order shared with cpp_backend.py. R computes, S is stored.
template <class R, class S> struct Data {
  const S *u, *delta;
  const R* A;  // (N, groups * width)
  const S *B, *C;
  const R *D, *bias;
  void* y;           // S, or R where the directions of a map add up in it
  R *last, *states;  // last (batch, N, channels); states (batch, chunks, N, channels)
  const S* dy;
  const R* dlast;
  void* du;  // as y
  S* ddelta;
  R *dA, *dB, *dC, *dD, *dbias;  // dA (batch, N, channels); dB, dC (rows, length, N)
  Layout at_u, at_delta, at_B, at_C, at_y, at_dy, at_du, at_ddelta;
};

// `part(K, n)` for states [n, n + K) of N, with K known to the compiler: MOST, and 1 for what is left over.
template <int MOST, class Part> inline void for_states(int64_t N, Part part) {
  int64_t n = 0;
  for (; n + MOST <= N; n += MOST) part(std::integral_constant<int, MOST>(), n);
  for (; n < N; ++n) part(std::integral_constant<int, 1>(), n);
}
template <int MOST, class Part> inline void for_states_down(int64_t N, Part part) {
  int64_t n = N;
  for (; n % MOST; --n) part(std::integral_constant<int, 1>(), n - 1);
  for (; n > 0; n -= MOST) part(std::integral_constant<int, MOST>(), n - MOST);
}

template <class R, class S> struct Worker {
  static constexpr int W = LANES<R>;
  typedef Vec<R> V;
  const Shape& s;
  const Data<R, S>& x;
  const int64_t N, channels, chunks;
  std::vector<int64_t> steps;
  std::vector<R> b, c;
  std::vector<const void*> lines;  // what the next block of the chunk will read and write
  Tile<R> u, step, slope, input, out, read, turn, rate, carry, drate, other, history, decay, db, dc;

  Worker(const Shape& shape, const Data<R, S>& data, int64_t blocks, bool back)
      : s(shape), x(data), N(shape.states), channels(shape.groups * shape.width),
        chunks((shape.length + shape.chunk - 1) / shape.chunk), steps(shape.chunk), b(shape.chunk * N),
        c(shape.chunk * N), u(shape.chunk), step(shape.chunk), slope(back ? shape.chunk : 0), input(shape.chunk),
        out(shape.chunk), read(back ? shape.chunk : 0), turn(back ? shape.chunk : 0), rate(N), carry(blocks * N),
        drate(back ? blocks * N : 0), other(back ? blocks * 2 : 0),
        history(back ? (shape.chunk + 1) * STATES_AT_ONCE : 0), decay(back ? shape.chunk * STATES_AT_ONCE : 0),
        db(back ? shape.chunk * N + W : 0), dc(back ? shape.chunk * N + W : 0) {}

  void enter_chunk(int64_t batch, int64_t group, int64_t start, int64_t count) {
    const S* B = x.B + batch * x.at_B.batch + group * x.at_B.group;
    const S* C = x.C + batch * x.at_C.batch + group * x.at_C.group;
    for (int64_t t = 0; t < count; ++t) steps[t] = position(s, group, start + t);
    if (x.at_B.channel == 1 && x.at_C.channel == 1) {
      for (int64_t t = 0; t < count; ++t)
        for (int64_t n = 0; n < N; ++n) {
          b[t * N + n] = widen(B[steps[t] * x.at_B.step + n]);
          c[t * N + n] = widen(C[steps[t] * x.at_C.step + n]);
        }
      return;
    }
    for (int64_t n = 0; n < N; ++n)
      for (int64_t t = 0; t < count; ++t) {
        b[t * N + n] = widen(B[steps[t] * x.at_B.step + n * x.at_B.channel]);
        c[t * N + n] = widen(C[steps[t] * x.at_C.step + n * x.at_C.channel]);
      }
  }

  // u, step size, their product and, with SLOPE, the slope of one block; `rate` becomes A * log2(e).
  template <bool SLOPE> void enter_block(const Run& run, int64_t group, int64_t first, int64_t count, int64_t lanes) {
    const int64_t channel = group * s.width + first;
    load_tile(u, x.u + run.batch * x.at_u.batch + group * x.at_u.group + first * x.at_u.channel, x.at_u,
              steps.data(), count, lanes);
    load_tile(step, x.delta + run.batch * x.at_delta.batch + group * x.at_delta.group + first * x.at_delta.channel,
              x.at_delta, steps.data(), count, lanes);
    const V bias = x.bias ? load_lanes<R>(x.bias + channel, 1, lanes) : V{};
    for (int64_t t = 0; t < count; ++t) {
      V value = load<R>(step.at(t)) + bias, derivative = splat(R(1));
      if (s.softplus) value = softplus<R>(value, SLOPE ? &derivative : nullptr);
      store<R>(step.at(t), value);
      store<R>(input.at(t), value * load<R>(u.at(t)));
      if (SLOPE) store<R>(slope.at(t), derivative);
    }
    for (int64_t n = 0; n < N; ++n)
      store<R>(rate.at(n), load_lanes<R>(x.A + n * channels + channel, 1, lanes) * LOG2E<R>);
  }

  // Lists the lines of a tensor that the block after `first` will touch, if the run has one.
  template <class T> void look_ahead(const Run& run, int64_t group, int64_t first, int64_t count, const T* tensor,
                                     const Layout& at) {
    const int64_t next = first + W;
    if (next + W > std::min(run.to * W, s.width)) return;
    list_lines<R>(lines, tensor + run.batch * at.batch + group * at.group + next * at.channel, at, steps.data(), count);
  }

  // Asks for a share of the listed lines, while arithmetic goes on.
  void fetch(int64_t t, int64_t count) const {
    const int64_t many = lines.size() / count;
    for (int64_t i = t * many; i < (t + 1) * many; ++i) __builtin_prefetch(lines[i]);
  }

  V skip_weight(int64_t channel, int64_t lanes) const { return x.D ? load_lanes<R>(x.D + channel, 1, lanes) : V{}; }

  // A tile to `y` or `du`. The directions of a map add up there, so that it has the type of arithmetic.
  void put(Tile<R>& tile, void* to, const Layout& at, const Run& run, int64_t group, int64_t first, int64_t count,
           int64_t lanes) {
    const int64_t offset = run.batch * at.batch + group * at.group + first * at.channel;
    if (s.walk) store_tile(tile, static_cast<R*>(to) + offset, at, steps.data(), count, lanes, group > run.group);
    else store_tile(tile, static_cast<S*>(to) + offset, at, steps.data(), count, lanes, false);
  }

  // States [n, n + K) through a chunk; their share of the output is added to `out`.
  template <int K> void scan_states(int64_t n, R* state, int64_t count) {
    V h[K], a[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) h[k] = load<R>(state + k * W), a[k] = load<R>(rate.at(n + k));
    const R *bt = &b[n], *ct = &c[n], *dt = step.at(0), *in = input.at(0);
    R* y = out.at(0);
    for (int64_t t = 0; t < count; ++t, bt += N, ct += N, dt += W, in += W, y += W) {
      if (n == 0) fetch(t, count);
      V sum = load<R>(y);
#pragma GCC unroll 16
      for (int k = 0; k < K; ++k) {
        h[k] = exp2(load<R>(dt) * a[k]) * h[k] + load<R>(in) * bt[k];
        sum += h[k] * ct[k];
      }
      store<R>(y, sum);
    }
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) store<R>(state + k * W, h[k]);
  }

  void forward_block(const Run& run, int64_t group, int64_t m, int64_t count, int64_t j) {
    const int64_t first = j * W, lanes = std::min<int64_t>(W, s.width - first), channel = group * s.width + first;
    R* state = carry.at((j - run.from) * N);
    enter_block<false>(run, group, first, count, lanes);
    lines.clear();
    look_ahead(run, group, first, count, x.u, x.at_u);
    look_ahead(run, group, first, count, x.delta, x.at_delta);
    if (s.walk) look_ahead(run, group, first, count, static_cast<const R*>(x.y), x.at_y);
    else look_ahead(run, group, first, count, static_cast<const S*>(x.y), x.at_y);
    if (x.states)
      for (int64_t n = 0; n < N; ++n)
        store_lanes<R>(x.states + ((run.batch * chunks + m) * N + n) * channels + channel, 1, lanes,
                       load<R>(state + n * W));
    const V skip = skip_weight(channel, lanes);
    for (int64_t t = 0; t < count; ++t) store<R>(out.at(t), skip * load<R>(u.at(t)));
    for_states<STATES_AT_ONCE>(N, [&](auto K, int64_t n) { scan_states<K.value>(n, state + n * W, count); });
    put(out, x.y, x.at_y, run, group, first, count, lanes);
    if (x.last && m + 1 == chunks)
      for (int64_t n = 0; n < N; ++n)
        store_lanes<R>(x.last + (run.batch * N + n) * channels + channel, 1, lanes, load<R>(state + n * W));
  }

  void forward(const Run& run) {
    for (int64_t group = run.group; group < run.group_end; ++group) {
      std::memset(carry.at(0), 0, (run.to - run.from) * N * sizeof(V));
      for (int64_t m = 0; m < chunks; ++m) {
        const int64_t start = m * s.chunk, count = std::min(s.chunk, s.length - start);
        enter_chunk(run.batch, group, start, count);
        for (int64_t j = run.from; j < run.to; ++j) forward_block(run, group, m, count, j);
      }
    }
  }

  // States [n, n + K) and their decays again, from the state at the start of the chunk, which is in `history`.
  template <int K> void replay_states(int64_t n, int64_t count) {
    V h[K], a[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) h[k] = load<R>(history.at(k)), a[k] = load<R>(rate.at(n + k));
    const R *bt = &b[n], *dt = step.at(0), *in = input.at(0);
    R *after = history.at(K), *keep = decay.at(0);
    for (int64_t t = 0; t < count; ++t, bt += N, dt += W, in += W, after += K * W, keep += K * W) {
      if (n == 0) fetch(t, count);
#pragma GCC unroll 16
      for (int k = 0; k < K; ++k) {
        const V kept = exp2(load<R>(dt) * a[k]);
        h[k] = kept * h[k] + load<R>(in) * bt[k];
        store<R>(keep + k * W, kept);
        store<R>(after + k * W, h[k]);
      }
    }
  }

  // The reverse sweep of states [n, n + K). `out` holds dy. What du and d(step) are made of is added to `read` and
  // `turn`. Gradients of B and C are added to `db` and `dc`, lane by lane: part [n, n + K) starts at count * n.
  template <int K> void reverse_states(int64_t n, R* lambda, R* da, int64_t count) {
    V l[K], a[K], rates[K], after[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) {
      l[k] = load<R>(lambda + k * W), rates[k] = load<R>(da + k * W);
      a[k] = load<R>(rate.at(n + k)), after[k] = load<R>(history.at(count * K + k));
    }
    for (int64_t t = count - 1; t >= 0; --t) {
      const V dt = load<R>(step.at(t)), in = load<R>(input.at(t)), dy = load<R>(out.at(t));
      const R *bt = &b[t * N + n], *ct = &c[t * N + n], *before = history.at(t * K), *keep = decay.at(t * K);
      R *to_b = db.at(count * n + t * K), *to_c = dc.at(count * n + t * K);
      V r = load<R>(read.at(t)), q = load<R>(turn.at(t));
#pragma GCC unroll 16
      for (int k = K - 1; k >= 0; --k) {
        const V grad = l[k] + dy * ct[k];
        store<R>(to_b + k * W, load<R>(to_b + k * W) + grad * in);
        store<R>(to_c + k * W, load<R>(to_c + k * W) + dy * after[k]);
        after[k] = load<R>(before + k * W);
        l[k] = grad * load<R>(keep + k * W);
        const V turned = l[k] * after[k];
        r += grad * bt[k];
        q += turned * a[k];
        rates[k] += turned * dt;
      }
      store<R>(read.at(t), r);
      store<R>(turn.at(t), q);
    }
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) store<R>(lambda + k * W, l[k]), store<R>(da + k * W, rates[k]);
  }

  void backward_block(const Run& run, int64_t group, int64_t m, int64_t count, int64_t j) {
    const int64_t first = j * W, lanes = std::min<int64_t>(W, s.width - first), channel = group * s.width + first;
    R *lambda = carry.at((j - run.from) * N), *da = drate.at((j - run.from) * N), *sums = other.at((j - run.from) * 2);
    enter_block<true>(run, group, first, count, lanes);
    load_tile(out, x.dy + run.batch * x.at_dy.batch + group * x.at_dy.group + first * x.at_dy.channel, x.at_dy,
              steps.data(), count, lanes);
    lines.clear();
    look_ahead(run, group, first, count, x.u, x.at_u);
    look_ahead(run, group, first, count, x.delta, x.at_delta);
    look_ahead(run, group, first, count, x.dy, x.at_dy);
    look_ahead(run, group, first, count, x.ddelta, x.at_ddelta);
    if (s.walk) look_ahead(run, group, first, count, static_cast<const R*>(x.du), x.at_du);
    else look_ahead(run, group, first, count, static_cast<const S*>(x.du), x.at_du);
    std::memset(read.at(0), 0, count * sizeof(V));
    std::memset(turn.at(0), 0, count * sizeof(V));
    for_states_down<STATES_AT_ONCE>(N, [&](auto K, int64_t n) {
      const R* from = x.states + ((run.batch * chunks + m) * N + n) * channels + channel;
      for (int k = 0; k < K; ++k) store<R>(history.at(k), load_lanes<R>(from + k * channels, 1, lanes));
      replay_states<K.value>(n, count);
      reverse_states<K.value>(n, lambda + n * W, da + n * W, count);
    });
    const V skip = skip_weight(channel, lanes);
    const R ln2 = R(0.693147180559945309417);  // `rate` is A * log2(e)
    V dskip = load<R>(sums), dbias = load<R>(sums + W);
    for (int64_t t = count - 1; t >= 0; --t) {
      const V ut = load<R>(u.at(t)), dy = load<R>(out.at(t)), r = load<R>(read.at(t));
      const V dstep = (ut * r + load<R>(turn.at(t)) * ln2) * load<R>(slope.at(t));
      dskip += dy * ut;
      dbias += dstep;
      store<R>(out.at(t), skip * dy + load<R>(step.at(t)) * r);
      store<R>(turn.at(t), dstep);
    }
    store<R>(sums, dskip);
    store<R>(sums + W, dbias);
    put(out, x.du, x.at_du, run, group, first, count, lanes);
    store_tile(turn,
               x.ddelta + run.batch * x.at_ddelta.batch + group * x.at_ddelta.group + first * x.at_ddelta.channel,
               x.at_ddelta, steps.data(), count, lanes, false);
  }

  // Sums over lanes of gradients by B or C of a chunk, to their row.
  void gather(Tile<R>& parts, R* row, int64_t count) {
    for_states_down<STATES_AT_ONCE>(N, [&](auto K, int64_t n) {
      for (int64_t flat = 0; flat < count * K; flat += W) {
        V some[W];
        for (int i = 0; i < W; ++i) some[i] = load<R>(parts.at(count * n + flat + i));
        R sums[W];
        store<R>(sums, lane_sums<R>(some));
        for (int i = 0; i < W && flat + i < count * K; ++i)
          row[steps[(flat + i) / K] * N + n + (flat + i) % K] = sums[i];
      }
    });
  }

  void backward(const Run& run) {
    const int64_t blocks = run.to - run.from;
    for (int64_t group = run.group; group < run.group_end; ++group) {
      std::memset(carry.at(0), 0, blocks * N * sizeof(V));
      std::memset(drate.at(0), 0, blocks * N * sizeof(V));
      std::memset(other.at(0), 0, blocks * 2 * sizeof(V));
      for (int64_t j = run.from; x.dlast && j < run.to; ++j)
        for (int64_t n = 0; n < N; ++n)
          store<R>(carry.at((j - run.from) * N + n),
                   load_lanes<R>(x.dlast + (run.batch * N + n) * channels + group * s.width + j * W, 1,
                                 std::min<int64_t>(W, s.width - j * W)));
      const int64_t row = (run.row + group - run.group) * s.length * N;
      for (int64_t m = chunks - 1; m >= 0; --m) {
        const int64_t start = m * s.chunk, count = std::min(s.chunk, s.length - start);
        enter_chunk(run.batch, group, start, count);
        std::memset(db.at(0), 0, count * N * sizeof(V));
        std::memset(dc.at(0), 0, count * N * sizeof(V));
        for (int64_t j = run.from; j < run.to; ++j) backward_block(run, group, m, count, j);
        gather(db, x.dB + row, count);
        gather(dc, x.dC + row, count);
      }
      for (int64_t j = run.from; j < run.to; ++j) {
        const int64_t channel = group * s.width + j * W, lanes = std::min<int64_t>(W, s.width - j * W);
        for (int64_t n = 0; n < N; ++n)
          store_lanes<R>(x.dA + (run.batch * N + n) * channels + channel, 1, lanes,
                         load<R>(drate.at((j - run.from) * N + n)));
        store_lanes<R>(x.dD + run.batch * channels + channel, 1, lanes, load<R>(other.at((j - run.from) * 2)));
        store_lanes<R>(x.dbias + run.batch * channels + channel, 1, lanes, load<R>(other.at((j - run.from) * 2 + 1)));
      }
    }
  }
};

template <class R, class S> void scan(const int64_t* numbers, void* const* pointers, bool backward) {
  Shape shape;
  std::memcpy(&shape, numbers, sizeof shape);
  using Call = Data<R, S>;
  Call data;
  std::memcpy(static_cast<void*>(&data), pointers, offsetof(Call, at_u));
  std::memcpy(&data.at_u, numbers + sizeof shape / 8, 8 * sizeof(Layout));
  const Run* runs = reinterpret_cast<const Run*>(numbers + sizeof shape / 8 + 8 * 4);
  auto work = [&](int64_t thread) {
    int64_t blocks = 0;
    for (int64_t i = 0; i < shape.runs; ++i)
      if (runs[i].thread == thread) blocks = std::max(blocks, runs[i].to - runs[i].from);
    if (!blocks) return;
    Worker<R, S> worker(shape, data, blocks, backward);
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
typedef const int64_t* Numbers;
typedef void* const* Pointers;
void scan_forward_float32(Numbers n, Pointers p) { scan<float, float>(n, p, false); }
void scan_backward_float32(Numbers n, Pointers p) { scan<float, float>(n, p, true); }
void scan_forward_float64(Numbers n, Pointers p) { scan<double, double>(n, p, false); }
void scan_backward_float64(Numbers n, Pointers p) { scan<double, double>(n, p, true); }
void scan_forward_bfloat16(Numbers n, Pointers p) { scan<float, bfloat16>(n, p, false); }
void scan_backward_bfloat16(Numbers n, Pointers p) { scan<float, bfloat16>(n, p, true); }
int64_t vector_bytes() { return BYTES; }
// The exponential alone, over `count` numbers `repeats` times: the floor that the benchmark prints.
float exponentials(const float* from, int64_t count, int64_t repeats) {
  Vec<float> sum = {};
  for (int64_t r = 0; r < repeats; ++r)
    for (int64_t i = 0; i < count; i += LANES<float>) sum += exp2(load<float>(from + i) * (1 + r * 0x1p-10f));
  return sum[0];
}
}
