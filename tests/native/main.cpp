// SPDX-License-Identifier: Apache-2.0
// Runs every registered test, or those whose names contain the first argument. Each is
// named before it starts, so that a crash or a sanitizer's report has its test above
// it.
#include <cstdio>
#include <cstring>
#include <exception>

#include "check.h"

namespace annx::test {

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

}  // namespace annx::test

int main(int argc, char** argv) {
  std::size_t run = 0;
  std::size_t failed = 0;
  for (const annx::test::Case& test : annx::test::cases()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    ++run;
    try {
      test.body();
    } catch (const std::exception& error) {
      ++failed;
      std::printf("  FAILED %s\n", error.what());
    }
  }
  std::printf("%zu native tests, %zu failed\n", run, failed);
  return failed == 0 && run != 0 ? 0 : 1;
}
