// SPDX-License-Identifier: Apache-2.0
// The exceptions that the core throws. The bindings map them to Python's:
// InvalidArgument -> ValueError, UnknownId -> KeyError, NotTrained ->
// annx.NotTrainedError, FormatError -> annx.FormatError, bad_alloc -> MemoryError.
#pragma once

#include <stdexcept>
#include <string>

namespace annx {

class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

class UnknownId : public InvalidArgument {
 public:
  using InvalidArgument::InvalidArgument;
};

class NotTrained : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace annx
