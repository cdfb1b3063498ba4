// SPDX-License-Identifier: Apache-2.0
#include "annx/search/kd_tree.h"

#include <array>
#include <cmath>
#include <limits>

#include "annx/base/random.h"

namespace annx::search {
namespace {

constexpr std::size_t kFan = KdTree::kFan;
constexpr std::size_t kLeaf = KdTree::kLeaf;
constexpr std::size_t kSample = 256;
// Subtrees of at most so many points are split by one thread, on a copy of the points
// that stays in its caches.
constexpr std::size_t kLocalPoints = 8192;
constexpr std::size_t kMaxChoices = 16;

struct Keyed {
  float key;
  std::uint32_t row;
  friend bool operator<(const Keyed& a, const Keyed& b) {
    return a.key < b.key || (a.key == b.key && a.row < b.row);
  }
};

// Leaves that a child of the root may hold: the least power of the fan-out that lets
// eight children hold all.
std::size_t child_room(std::size_t leaves) {
  std::size_t room = 1;
  while (room * kFan < leaves) room *= kFan;
  return room;
}
std::size_t children_for(std::size_t leaves, std::size_t room) {
  return (leaves + room - 1) / room;
}
// Where child i of `count` begins, in leaves.
std::size_t child_begin(std::size_t leaves, std::size_t count, std::size_t i) {
  return leaves / count * i + std::min(i, leaves % count);
}

// Children [a, b) of a node of `leaves` leaves from `begin` on.
struct Task {
  std::size_t begin;
  std::size_t leaves;
  std::size_t room;  // of a child
  std::size_t count;
  std::size_t a;
  std::size_t b;

  static Task node(std::size_t begin, std::size_t leaves, std::size_t room) {
    const std::size_t count = children_for(leaves, room);
    return {begin, leaves, room, count, 0, count};
  }
  std::size_t first_leaf() const { return begin + child_begin(leaves, count, a); }
  std::size_t last_leaf() const { return begin + child_begin(leaves, count, b); }
  // One child becomes a node of its own; false where it is a leaf.
  bool descend() {
    while (b - a == 1) {
      if (room == 1) return false;
      *this = node(first_leaf(), last_leaf() - first_leaf(), room / kFan);
    }
    return true;
  }
};

class Splitter {
 public:
  Splitter(std::size_t dim, std::size_t count, const KdTree::Options& options)
      : dim_(dim),
        count_(count),
        options_(options),
        random_(options.seed, options.stream) {}

  std::size_t place(std::size_t leaf) const { return std::min(leaf * kLeaf, count_); }

  // Splits the task's points, those of places [place(first_leaf), ...), which begin at
  // `keyed`; rows are looked up in `points`.
  void split(const Task& task, MatrixView<float> points, Keyed* keyed,
             Task* halves) const {
    const std::size_t middle = (task.a + task.b + 1) / 2;
    halves[0] = task;
    halves[0].b = middle;
    halves[1] = task;
    halves[1].a = middle;
    const std::size_t begin = place(task.first_leaf());
    const std::size_t at = place(halves[1].first_leaf()) - begin;
    const std::size_t end = place(task.last_leaf()) - begin;
    if (at >= end) return;
    const std::size_t k = dimension(points, keyed, end, begin + at);
    for (std::size_t i = 0; i < end; ++i) {
      keyed[i].key = points.row(keyed[i].row)[k];
    }
    std::nth_element(keyed, keyed + at, keyed + end);
  }

  // All splits below a task, by this thread.
  void finish(Task task, MatrixView<float> points, Keyed* keyed) const {
    if (!task.descend()) return;
    const std::size_t begin = place(task.first_leaf());
    Task halves[2];
    split(task, points, keyed, halves);
    finish(halves[0], points, keyed);
    finish(halves[1], points, keyed + (place(halves[1].first_leaf()) - begin));
  }

 private:
  // The dimension of highest variance (of a sample, if there are many points), or one
  // of the few highest: `where` tells one draw from another.
  std::size_t dimension(MatrixView<float> points, const Keyed* keyed, std::size_t count,
                        std::size_t where) const {
    const std::size_t n = std::min(count, kSample);
    // Relative to the first point, so that an offset takes no digits.
    const float* origin = points.row(keyed[0].row);
    thread_local std::vector<double> sums;
    sums.assign(2 * dim_, 0.0);
    double* squares = sums.data() + dim_;
    for (std::size_t i = 0; i < n; ++i) {
      const float* row = points.row(keyed[i * count / n].row);
      for (std::size_t k = 0; k < dim_; ++k) {
        const double x = static_cast<double>(row[k]) - origin[k];
        sums[k] += x;
        squares[k] += x * x;
      }
    }
    for (std::size_t k = 0; k < dim_; ++k) {
      squares[k] -= sums[k] * sums[k] / static_cast<double>(n);
    }
    if (options_.choices <= 1) {
      return static_cast<std::size_t>(std::max_element(squares, squares + dim_) -
                                      squares);
    }
    std::array<std::size_t, kMaxChoices> best;
    std::size_t held = 0;
    const std::size_t wanted = std::min({options_.choices, kMaxChoices, dim_});
    for (std::size_t k = 0; k < dim_; ++k) {
      std::size_t to = held < wanted ? held++ : wanted;
      if (to == wanted) {
        if (!(squares[best[wanted - 1]] < squares[k])) continue;
        to = wanted - 1;
      }
      for (; to > 0 && squares[best[to - 1]] < squares[k]; --to)
        best[to] = best[to - 1];
      best[to] = k;
    }
    return best[random_.below(where, held)];
  }

  std::size_t dim_;
  std::size_t count_;
  KdTree::Options options_;
  Random random_;
};

}  // namespace

void KdTree::plan(std::size_t count, std::size_t dim) {
  dim_ = dim;
  leaves_ = leaves_of(count);
  // Level by level: the number of leaves below each node says all.
  std::vector<std::size_t> level = {leaves_};
  first_.clear();
  std::size_t numbered = 1;  // nodes that have got their numbers
  for (std::size_t room = child_room(leaves_);; room /= kFan) {
    bottom_ = first_.size();
    std::vector<std::size_t> next;
    for (const std::size_t leaves : level) {
      first_.push_back(static_cast<std::uint32_t>(numbered + next.size()));
      const std::size_t children = children_for(leaves, room);
      for (std::size_t i = 0; i < children; ++i) {
        next.push_back(child_begin(leaves, children, i + 1) -
                       child_begin(leaves, children, i));
      }
    }
    if (room == 1) break;
    numbered += next.size();
    level = std::move(next);
  }
  nodes_ = numbered;
  first_.push_back(static_cast<std::uint32_t>(nodes_ + leaves_));
  first_.shrink_to_fit();
}

KdTree::KdTree(MatrixView<float> points, const Options& options, std::size_t threads,
               Monitor* monitor, std::uint32_t* order) {
  plan(points.rows, points.cols);
  const Splitter splitter(dim_, points.rows, options);
  std::vector<Keyed> keyed(points.rows);
  for (std::size_t i = 0; i < points.rows; ++i) {
    keyed[i] = {0.0f, static_cast<std::uint32_t>(i)};
  }
  // The large splits level by level, the rest subtree by subtree.
  std::vector<Task> large;
  std::vector<Task> local;
  const auto sort_out = [&](Task task) {
    if (!task.descend()) return;
    const std::size_t size = (task.last_leaf() - task.first_leaf()) * kLeaf;
    (size <= kLocalPoints ? local : large).push_back(task);
  };
  sort_out(Task::node(0, leaves_, child_room(leaves_)));
  while (!large.empty()) {
    std::vector<Task> halves(2 * large.size());
    parallel_for(
        large.size(), threads, 1,
        [&](std::size_t begin, std::size_t end, std::size_t) {
          for (std::size_t i = begin; i < end; ++i) {
            splitter.split(large[i], points,
                           keyed.data() + splitter.place(large[i].first_leaf()),
                           halves.data() + 2 * i);
          }
        },
        monitor);
    large.clear();
    for (const Task& task : halves) sort_out(task);
  }
  parallel_for(
      local.size(), threads, 1,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<float> copy;
        std::vector<std::uint32_t> rows;
        for (std::size_t t = begin; t < end; ++t) {
          const Task& task = local[t];
          const std::size_t first = splitter.place(task.first_leaf());
          const std::size_t count = splitter.place(task.last_leaf()) - first;
          Keyed* mine = keyed.data() + first;
          // Equal keys go by number, also those of the copy.
          std::sort(mine, mine + count,
                    [](const Keyed& a, const Keyed& b) { return a.row < b.row; });
          copy.resize(count * dim_);
          rows.resize(count);
          for (std::size_t i = 0; i < count; ++i) {
            rows[i] = mine[i].row;
            std::copy_n(points.row(rows[i]), dim_, copy.data() + i * dim_);
            mine[i].row = static_cast<std::uint32_t>(i);
          }
          splitter.finish(task, {copy.data(), count, dim_, dim_}, mine);
          for (std::size_t i = 0; i < count; ++i) mine[i].row = rows[mine[i].row];
        }
      },
      monitor);
  for (std::size_t i = 0; i < points.rows; ++i) order[i] = keyed[i].row;
  keyed = {};
  make_boxes(points, order, threads, monitor);
}

void KdTree::make_boxes(MatrixView<float> points, const std::uint32_t* order,
                        std::size_t threads, Monitor* monitor) {
  constexpr float kNowhere = std::numeric_limits<float>::infinity();
  const std::size_t size = 2 * kFan * dim_;
  boxes_.reserve(nodes_ * size);
  boxes_.resize(nodes_ * size);
  float* boxes = boxes_.mutable_data();
  // A child that is not there is infinitely far.
  const auto clear = [&](float* box) {
    for (std::size_t k = 0; k < dim_; ++k) {
      std::fill_n(box + k * 2 * kFan, kFan, kNowhere);
      std::fill_n(box + k * 2 * kFan + kFan, kFan, -kNowhere);
    }
  };
  parallel_for(
      nodes_ - bottom_, threads, 256,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t node = bottom_ + begin; node < bottom_ + end; ++node) {
          float* box = boxes + node * size;
          clear(box);
          for (std::size_t c = 0; c < children(node); ++c) {
            const std::size_t at = (first_[node] + c - nodes_) * kLeaf;
            const std::size_t last = std::min(at + kLeaf, points.rows);
            for (std::size_t i = at; i < last; ++i) {
              const float* row = points.row(order[i]);
              for (std::size_t k = 0; k < dim_; ++k) {
                float* ends = box + k * 2 * kFan + c;
                ends[0] = std::min(ends[0], row[k]);
                ends[kFan] = std::max(ends[kFan], row[k]);
              }
            }
          }
        }
      },
      monitor);
  // The others from their children, which have larger numbers.
  for (std::size_t node = bottom_; node-- > 0;) {
    float* box = boxes + node * size;
    clear(box);
    for (std::size_t c = 0; c < children(node); ++c) {
      const float* below = boxes + (first_[node] + c) * size;
      for (std::size_t k = 0; k < dim_; ++k) {
        const float* ends = below + k * 2 * kFan;
        box[k * 2 * kFan + c] = *std::min_element(ends, ends + kFan);
        box[k * 2 * kFan + kFan + c] = *std::max_element(ends + kFan, ends + 2 * kFan);
      }
    }
  }
}

std::size_t KdTree::nearest_leaf(const float* query, kernels::BoxBounds bounds) const {
  std::size_t node = 0;
  float found[kFan];
  while (node < nodes_) {
    bounds(query, boxes(node), dim_, found);
    const float* nearest = std::min_element(found, found + children(node));
    node = first_child(node) + static_cast<std::size_t>(nearest - found);
  }
  return node - nodes_;
}

void KdTree::save_to(storage::FileWriter& writer, const std::string& prefix) const {
  writer.add(prefix + "boxes", boxes_.bytes());
}

KdTree KdTree::load_from(const storage::FileReader& reader, const std::string& prefix,
                         std::size_t count, std::size_t dim) {
  KdTree tree;
  // The shape follows from the number of points.
  tree.plan(count, dim);
  tree.boxes_ = reader.array<float>(prefix + "boxes", tree.nodes_ * 2 * kFan * dim);
  return tree;
}

}  // namespace annx::search
