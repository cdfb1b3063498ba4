// SPDX-License-Identifier: Apache-2.0
// What the file format needs of the operating system: a file's bytes, read or mapped,
// and the atomic replacement of a file. Paths are in the file system's encoding (UTF-8
// on Windows). Failures throw FileError with errno's value.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <span>
#include <string>

namespace annx::storage {

// Bytes that stay valid as long as `owner` lives; they start on a 64-byte boundary.
struct FileBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
  bool mapped = false;
};

// The file's bytes, or the first `limit` of them, in memory of our own.
FileBytes read_file(const std::string& path,
                    std::size_t limit = std::numeric_limits<std::size_t>::max());

// The file's bytes mapped read-only: pages come in when touched and are shared between
// processes. Replacing the file by a rename leaves the mapping as it is; somebody who
// truncates the file in place takes the pages away, which no reader can survive.
FileBytes map_file(const std::string& path);

// Makes `path` a file of these parts, one after the other: they go to a temporary file
// in the same folder, which is flushed to the device and then renamed, so that a crash
// at any moment leaves the old file or the new one. A failure removes the temporary
// file and leaves the old one. A symbolic link is followed; an existing file's
// permissions are kept. What exists and is no regular file is refused.
void replace_file(const std::string& path,
                  std::span<const std::span<const std::byte>> parts);

}  // namespace annx::storage
