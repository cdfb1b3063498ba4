// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/os_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <system_error>
#include <utility>

#include "annx/base/aligned_buffer.h"
#include "annx/base/error.h"
#include "annx/base/random.h"

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace annx::storage {
namespace {

// The most that one call is asked to move: some systems refuse 2 GiB and more.
constexpr std::size_t kChunk = std::size_t{1} << 30;

#if defined(_WIN32)
constexpr const char* kSeparators = "/\\:";
#else
constexpr const char* kSeparators = "/";
#endif

// A file beside `path` that no other process or thread is likely to choose; opening it
// exclusively settles the rest. Its name does not grow with the other's, which may be
// as long as the file system allows.
std::string temporary_beside(const std::string& path, std::uint64_t process) {
  static std::atomic<std::uint64_t> counter{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const std::uint64_t unique =
      Random(static_cast<std::uint64_t>(now), process).bits(counter.fetch_add(1));
  static constexpr char kDigits[] = "0123456789abcdef";
  const std::size_t slash = path.find_last_of(kSeparators);
  std::string name = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  name += ".annx-";
  for (int shift = 60; shift >= 0; shift -= 4) name += kDigits[(unique >> shift) & 15];
  return name + ".tmp";
}

std::size_t checked_size(std::uint64_t size, const std::string& path) {
  if (size > std::numeric_limits<std::size_t>::max() / 2) throw FileError(EFBIG, path);
  return static_cast<std::size_t>(size);
}

#if defined(_WIN32)

int last_errno() {
  const std::error_code code(static_cast<int>(GetLastError()), std::system_category());
  const std::error_condition condition = code.default_error_condition();
  return condition.category() == std::generic_category() ? condition.value() : EIO;
}

std::wstring wide(const std::string& path) {
  if (path.empty()) throw FileError(ENOENT, path);
  const int size = static_cast<int>(std::min<std::size_t>(path.size(), 1 << 20));
  const int count =
      MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), size, nullptr, 0);
  if (count <= 0) throw FileError(EINVAL, path);
  std::wstring result(static_cast<std::size_t>(count), L'\0');
  MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), size, result.data(),
                      count);
  return result;
}

class Handle {
 public:
  explicit Handle(HANDLE handle) : handle_(handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { close(); }
  HANDLE get() const { return handle_; }
  bool valid() const { return handle_ != INVALID_HANDLE_VALUE && handle_ != nullptr; }
  void close() {
    if (valid()) CloseHandle(handle_);
    handle_ = INVALID_HANDLE_VALUE;
  }

 private:
  HANDLE handle_;
};

HANDLE open_for_reading(const std::string& path, std::size_t& size) {
  const HANDLE handle =
      CreateFileW(wide(path).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE,
                  nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (handle == INVALID_HANDLE_VALUE) throw FileError(last_errno(), path);
  LARGE_INTEGER bytes;
  if (!GetFileSizeEx(handle, &bytes)) {
    const int code = last_errno();
    CloseHandle(handle);
    throw FileError(code, path);
  }
  size = checked_size(static_cast<std::uint64_t>(bytes.QuadPart), path);
  return handle;
}

struct View {
  explicit View(void* p) : data(p) {}
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (data != nullptr) UnmapViewOfFile(data);
  }
  void* data;
};

#else

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int fd;
  do {
    fd = ::open(path, flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

// Only a regular file has a size that can be trusted. Without O_NONBLOCK, opening a
// pipe would wait for its writer.
int open_for_reading(const std::string& path, std::size_t& size) {
  Descriptor file(open_retrying(path.c_str(), O_RDONLY | O_NONBLOCK));
  if (file.get() < 0) throw FileError(errno, path);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) throw FileError(errno, path);
  if (S_ISDIR(status.st_mode)) throw FileError(EISDIR, path);
  if (!S_ISREG(status.st_mode)) throw FormatError(path + ": not a regular file");
  size = checked_size(static_cast<std::uint64_t>(status.st_size), path);
  return file.release();
}

void write_all(int fd, std::span<const std::byte> part, const std::string& path) {
  while (!part.empty()) {
    const ssize_t count = ::write(fd, part.data(), std::min(part.size(), kChunk));
    if (count < 0) {
      if (errno == EINTR) continue;
      throw FileError(errno, path);
    }
    part = part.subspan(static_cast<std::size_t>(count));
  }
}

void flush(int fd, const std::string& path) {
#if defined(__APPLE__)
  // fsync leaves the data in the drive's cache there.
  if (::fcntl(fd, F_FULLFSYNC) == 0) return;
#endif
  int result;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  if (result != 0) throw FileError(errno, path);
}

// The rename is durable once the folder is. Some file systems cannot flush a folder and
// say EINVAL; then nothing more can be done.
void flush_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  std::string folder = ".";
  if (slash != std::string::npos) folder = slash == 0 ? "/" : path.substr(0, slash);
  const Descriptor file(open_retrying(folder.c_str(), O_RDONLY | O_DIRECTORY));
  // A folder that may be written but not read cannot be opened for this.
  if (file.get() < 0) return;
  if (::fsync(file.get()) != 0 && errno != EINVAL && errno != EINTR &&
      errno != ENOTSUP && errno != EBADF) {
    throw FileError(errno, path);
  }
}

std::string follow_link(const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return path;
  char* resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return path;
  std::string result(resolved);
  std::free(resolved);
  return result;
}

#endif

}  // namespace

#if defined(_WIN32)

FileBytes read_file(const std::string& path, std::size_t limit) {
  std::size_t size = 0;
  const Handle file(open_for_reading(path, size));
  size = std::min(size, limit);
  auto buffer = std::make_shared<AlignedBuffer>(size);
  std::size_t done = 0;
  while (done < size) {
    DWORD count = 0;
    const auto wanted = static_cast<DWORD>(std::min(size - done, kChunk));
    if (!ReadFile(file.get(), buffer->data() + done, wanted, &count, nullptr)) {
      throw FileError(last_errno(), path);
    }
    if (count == 0) throw FormatError(path + ": the file shrank while it was read");
    done += count;
  }
  return {{buffer->data(), size}, buffer, false};
}

FileBytes map_file(const std::string& path) {
  std::size_t size = 0;
  const Handle file(open_for_reading(path, size));
  if (size == 0) return {};
  const Handle mapping(
      CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  if (!mapping.valid()) throw FileError(last_errno(), path);
  auto view =
      std::make_shared<View>(MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, 0));
  if (view->data == nullptr) throw FileError(last_errno(), path);
  return {{static_cast<const std::byte*>(view->data), size}, view, true};
}

// Windows refuses to replace a file that is mapped; the old one then stays.
void replace_file(const std::string& path,
                  std::span<const std::span<const std::byte>> parts) {
  const std::wstring target = wide(path);
  const std::wstring temporary = wide(temporary_beside(path, GetCurrentProcessId()));
  Handle file(CreateFileW(temporary.c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW,
                          FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!file.valid()) throw FileError(last_errno(), path);
  try {
    for (std::span<const std::byte> part : parts) {
      while (!part.empty()) {
        DWORD count = 0;
        const auto wanted = static_cast<DWORD>(std::min(part.size(), kChunk));
        if (!WriteFile(file.get(), part.data(), wanted, &count, nullptr)) {
          throw FileError(last_errno(), path);
        }
        part = part.subspan(count);
      }
    }
    if (!FlushFileBuffers(file.get())) throw FileError(last_errno(), path);
    file.close();
    if (!MoveFileExW(temporary.c_str(), target.c_str(),
                     MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) {
      throw FileError(last_errno(), path);
    }
  } catch (...) {
    file.close();
    DeleteFileW(temporary.c_str());
    throw;
  }
}

#else

FileBytes read_file(const std::string& path, std::size_t limit) {
  std::size_t size = 0;
  const Descriptor file(open_for_reading(path, size));
  size = std::min(size, limit);
  auto buffer = std::make_shared<AlignedBuffer>(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count =
        ::read(file.get(), buffer->data() + done, std::min(size - done, kChunk));
    if (count < 0) {
      if (errno == EINTR) continue;
      throw FileError(errno, path);
    }
    if (count == 0) throw FormatError(path + ": the file shrank while it was read");
    done += static_cast<std::size_t>(count);
  }
  return {{buffer->data(), size}, buffer, false};
}

FileBytes map_file(const std::string& path) {
  std::size_t size = 0;
  const Descriptor file(open_for_reading(path, size));
  if (size == 0) return {};
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) throw FileError(errno, path);
  std::shared_ptr<const void> owner(data, [size](void* p) { ::munmap(p, size); });
  return {{static_cast<const std::byte*>(data), size}, std::move(owner), true};
}

void replace_file(const std::string& path,
                  std::span<const std::span<const std::byte>> parts) {
  const std::string target = follow_link(path);
  struct stat old;
  const bool exists = ::stat(target.c_str(), &old) == 0;
  if (exists && S_ISDIR(old.st_mode)) throw FileError(EISDIR, path);
  if (exists && !S_ISREG(old.st_mode)) throw FileError(EINVAL, path);
  const std::string temporary =
      temporary_beside(target, static_cast<std::uint64_t>(::getpid()));
  const int fd = open_retrying(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (fd < 0) throw FileError(errno, path);
  try {
    Descriptor file(fd);
    // Permissions are a courtesy: a file system without them is no reason to fail.
    if (exists) static_cast<void>(::fchmod(fd, old.st_mode & 07777));
    for (const std::span<const std::byte> part : parts) write_all(fd, part, path);
    flush(fd, path);
    // Some network file systems report a failed write only here.
    if (::close(file.release()) != 0 && errno != EINTR) throw FileError(errno, path);
    if (::rename(temporary.c_str(), target.c_str()) != 0) throw FileError(errno, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  flush_folder_of(target);
}

#endif

}  // namespace annx::storage
