// SPDX-License-Identifier: Apache-2.0
// The smallest test framework that serves: tests register themselves, a failed check
// throws with its place and text, and main.cpp runs them all.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace annx::test {

struct Case {
  const char* name;
  void (*body)();
};

// Filled before main() starts.
std::vector<Case>& cases();

struct Registration {
  Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

// Thrown by a failed check; caught in main().
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream message;
  message << text << ": " << a << " against " << b;
  fail(file, line, message.str());
}

}  // namespace annx::test

#define ANNX_TEST(name)                                                      \
  static void name();                                                        \
  static const ::annx::test::Registration registration_##name(#name, &name); \
  static void name()

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) ::annx::test::fail(__FILE__, __LINE__, #condition); \
  } while (false)

#define CHECK_EQ(a, b) \
  ::annx::test::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)

// `expression` throws `Exception`, or a class derived from it.
#define CHECK_THROWS(expression, Exception)                                        \
  do {                                                                             \
    bool thrown = false;                                                           \
    try {                                                                          \
      (void)(expression);                                                          \
    } catch (const Exception&) {                                                   \
      thrown = true;                                                               \
    }                                                                              \
    if (!thrown) {                                                                 \
      ::annx::test::fail(__FILE__, __LINE__, #expression " threw no " #Exception); \
    }                                                                              \
  } while (false)
