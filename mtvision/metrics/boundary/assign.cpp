// Exact assignment of rows to columns of a sparse graph by shortest augmenting paths.
//
// Every row takes one column, or stays alone at the price `alone`. The sum of costs and prices is the least possible.
// Prices u of rows and v of columns prove it: u + v <= cost for every edge, u <= alone, v <= 0, with equality for
// what is chosen, and v = 0 for columns that nobody takes (linear programming duality).
//
// First come cheap steps in which a row takes its best column from another row, at a price that leaves it as good as
// its second best (Jonker and Volgenant, 1987). Then every row that is left searches its nearest free column along
// alternating paths (Dijkstra). A search touches only what is nearer than the end that it finds.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

namespace {

typedef int64_t Cost;
constexpr Cost FAR = std::numeric_limits<Cost>::max();

struct Graph {
  int64_t rows;
  const int64_t *starts, *columns;
  const Cost* costs;
  Cost alone;
};

struct Solver {
  const Graph& g;
  std::vector<Cost> u, v, distance;            // distance of columns, valid where `seen` is the current search
  std::vector<int64_t> column, row, from, seen;  // column of a row and row of a column, -1 = none; -2 = alone
  std::vector<int64_t> done;
  std::priority_queue<std::pair<Cost, int64_t>, std::vector<std::pair<Cost, int64_t>>, std::greater<>> heap;

  Solver(const Graph& graph, int64_t width)
      : g(graph), u(graph.rows), v(width), distance(width), column(graph.rows, -1), row(width, -1), from(width),
        seen(width, -1) {}

  // Rows take their best column, or stay alone, while that needs no search. Returns the rows that are left.
  std::vector<int64_t> settle(std::vector<int64_t> waiting, int rounds) {
    for (int round = 0; round < rounds && !waiting.empty(); ++round) {
      std::vector<int64_t> left;
      for (size_t i = 0; i < waiting.size(); ++i) {
        int64_t r = waiting[i];
        for (int64_t steps = 0; r >= 0; ++steps) {
          Cost best = g.alone, second = FAR;
          int64_t target = -2;
          for (int64_t e = g.starts[r]; e < g.starts[r + 1]; ++e) {
            const Cost reduced = g.costs[e] - v[g.columns[e]];
            if (reduced < best) second = best, best = reduced, target = g.columns[e];
            else if (reduced < second) second = reduced;
          }
          if (target == -2) {
            u[r] = best, column[r] = -2;
            break;
          }
          const int64_t other = row[target];
          if (other >= 0 && second == best) {  // nothing to gain: leave it to a search
            u[r] = best;
            left.push_back(r);
            break;
          }
          u[r] = second;
          v[target] -= second - best;
          column[r] = target, row[target] = r;
          if (other >= 0) column[other] = -1;
          r = other;
          if (steps > 64 && r >= 0) {  // prices that go down by one at a time
            left.push_back(r);
            break;
          }
        }
      }
      waiting.swap(left);
    }
    return waiting;
  }

  void reach(int64_t r, Cost base, int64_t search) {
    for (int64_t e = g.starts[r]; e < g.starts[r + 1]; ++e) {
      const int64_t c = g.columns[e];
      const Cost d = base + g.costs[e] - u[r] - v[c];
      if (seen[c] == search && distance[c] <= d) continue;
      seen[c] = search, distance[c] = d, from[c] = r;
      heap.emplace(d, c);
    }
  }

  // The shortest way for `start` to a free column, or to a row that stays alone in its place.
  void augment(int64_t start, int64_t search) {
    u[start] = best_price(start);
    done.clear();
    heap = {};
    Cost end = g.alone - u[start];
    int64_t last_row = start, last_column = -1;  // a row to stay alone, or a free column
    reach(start, 0, search);
    while (!heap.empty()) {
      const auto [d, c] = heap.top();
      heap.pop();
      if (d >= end) break;
      if (d != distance[c]) continue;
      if (row[c] < 0) {
        end = d, last_column = c;
        break;
      }
      done.push_back(c);
      const int64_t r = row[c];
      const Cost stays = d + g.alone - u[r];
      if (stays < end) end = stays, last_row = r;
      reach(r, d, search);
    }
    for (int64_t c : done) {
      if (distance[c] >= end) continue;
      u[row[c]] += end - distance[c];
      v[c] -= end - distance[c];
    }
    u[start] += end;
    int64_t free = last_column;
    if (free < 0) {
      free = column[last_row];
      column[last_row] = -2;
      if (last_row == start) return;
    }
    while (true) {
      const int64_t r = from[free], next = column[r];
      column[r] = free, row[free] = r;
      if (r == start) return;
      free = next;
    }
  }

  Cost best_price(int64_t r) const {
    Cost best = g.alone;
    for (int64_t e = g.starts[r]; e < g.starts[r + 1]; ++e) best = std::min(best, g.costs[e] - v[g.columns[e]]);
    return best;
  }
};

}  // namespace

// Returns the cost of what is chosen. `chosen` receives each row's column, -1 where it stays alone. Columns of a row
// follow one another from starts[row]; `first` lists the rows in the order in which they are served.
extern "C" int64_t assign_rows(int64_t rows, int64_t width, const int64_t* starts, const int64_t* columns,
                            const int64_t* costs, int64_t alone, const int64_t* first, int64_t* chosen) {
  const Graph graph{rows, starts, columns, costs, alone};
  Solver solver(graph, width);
  int64_t search = 0;
  for (int64_t r : solver.settle(std::vector<int64_t>(first, first + rows), 3)) solver.augment(r, search++);
  Cost total = 0;
  for (int64_t r = 0; r < rows; ++r) {
    chosen[r] = std::max<int64_t>(solver.column[r], -1);
    for (int64_t e = starts[r]; e < starts[r + 1]; ++e)
      if (columns[e] == chosen[r]) total += costs[e];
  }
  return total;
}
