// SPDX-License-Identifier: Apache-2.0
// The exceptions that the core throws. The bindings map them to Python's:
// InvalidArgument -> ValueError, UnknownId -> KeyError, NotTrained ->
// annx.NotTrainedError, FormatError -> annx.FormatError, FileError -> OSError (and its
// subclass that belongs to errno), bad_alloc -> MemoryError.
#pragma once

#include <stdexcept>
#include <string>
#include <system_error>

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

// The operating system refused something about a file; code() is errno's.
class FileError : public std::system_error {
 public:
  FileError(int code, const std::string& path)
      : std::system_error(code, std::generic_category(), path), path_(path) {}
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace annx
