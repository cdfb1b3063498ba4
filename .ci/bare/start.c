// SPDX-License-Identifier: Apache-2.0
// Runs one statically linked Linux program on a bare processor, without Linux: what
// .ci/emulate_avx512.sh needs to execute the kernel tests on an emulator that no Linux
// boots on. The program runs in ring 0; its few system calls come here; one page table
// entry for every 4 KiB makes mprotect() work, so that the tests' guard pages fault.
// Any exception and any unknown call is reported; what the program writes goes to the
// first serial port. PROGRAM_BYTES, ARGUMENT and SETTING come from the compiler's
// command line.
//
// Memory: 0x8000 this file, 1 MiB page tables, 4 MiB the program and its heap, below
// 96 MiB its stack, 96 MiB the program's file, from 128 MiB what it maps.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
  kSector = 512,
  kProgramSector = 128,
  kPage = 4096,
  kStackTop = 96 << 20,
  kFile = 96 << 20,
  kMaps = 128 << 20,
  kMemory = 512 << 20
};

// boot.S jumps to the first byte, with a stack below 0x7c00.
__asm__(".section .text.start,\"ax\"\n  jmp start\n.text\n");

static void out8(u16 port, u8 value) {
  __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
static u8 in8(u16 port) {
  u8 value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static void set_msr(u32 number, u64 value) {
  __asm__ volatile("wrmsr" ::"c"(number), "a"((u32)value), "d"((u32)(value >> 32)));
}

static void put(char c) {
  while ((in8(0x3fd) & 0x20) == 0) {
  }
  out8(0x3f8, (u8)c);
}
static void say(const char* text) {
  for (; *text != 0; ++text) put(*text);
}
static void say_number(const char* name, u64 value) {
  say(name);
  for (int shift = 60; shift >= 0; shift -= 4) {
    put("0123456789abcdef"[value >> shift & 15]);
  }
}
__attribute__((noreturn)) static void power_off(void) {
  while ((in8(0x3fd) & 0x40) == 0) {  // until the last byte is sent
  }
  for (const char* c = "Shutdown"; *c != 0; ++c) out8(0x8900, (u8)*c);
  for (;;) __asm__ volatile("cli; hlt");
}

void* memset(void* to, int value, u64 bytes) {
  void* const first = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
  return first;
}
void* memcpy(void* to, const void* from, u64 bytes) {
  void* const first = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
  return first;
}

// --- pages ---------------------------------------------------------------------------

static u64* const page_entries = (u64*)(1 << 20);

static void map_pages(void) {
  for (u64 i = 0; i < kMemory / kPage; ++i) page_entries[i] = i * kPage | 3;
  u64* const tables = (u64*)0x3000;
  for (u64 i = 0; i < 512; ++i) {
    tables[i] = i < kMemory >> 21 ? (u64)page_entries + i * kPage + 3 : 0;
  }
  __asm__ volatile("mov %0, %%cr3" ::"r"(0x1000ul) : "memory");
}
// Allowed or forbidden to be touched at all: the tests need nothing between.
static void protect(u64 at, u64 bytes, int allowed) {
  for (u64 end = at + bytes; at < end; at += kPage) {
    page_entries[at / kPage] = at | (allowed ? 3 : 0);
    __asm__ volatile("invlpg (%0)" ::"r"(at) : "memory");
  }
}

// --- exceptions ----------------------------------------------------------------------

struct Frame {
  u64 vector, error, rip, cs, flags, rsp, ss;
};
__attribute__((used)) static void on_exception(const struct Frame* frame) {
  u64 address;
  __asm__ volatile("mov %%cr2, %0" : "=r"(address));
  say_number("\nexception 0x", frame->vector);
  say_number(" error 0x", frame->error);
  say_number(" at 0x", frame->rip);
  say_number(" address 0x", address);
  say("\n");
  power_off();
}
// 8, 10 to 14, 17, 21, 29 and 30 push an error code by themselves.
__asm__(
    ".text\n.balign 16\ngates:\n"
    ".set i, 0\n"
    ".rept 32\n"
    "  .balign 16\n"
    "  .if !((0x60227d00 >> i) & 1)\n  push $0\n  .endif\n"
    "  push $i\n"
    "  jmp gate\n"
    "  .set i, i + 1\n"
    ".endr\n"
    "gate:\n"
    "  mov %rsp, %rdi\n"
    "  and $-16, %rsp\n"
    "  call on_exception\n");
extern u8 gates[];

static struct {
  u64 low, high;
} table[32];

static void catch_exceptions(void) {
  for (u64 i = 0; i < 32; ++i) {
    const u64 at = (u64)gates + i * 16;
    table[i].low = (at & 0xffff) | 8ul << 16 | 0x8eul << 40 | (at >> 16 & 0xffff) << 48;
    table[i].high = at >> 32;
  }
  struct {
    u16 limit;
    u64 base;
  } __attribute__((packed)) descriptor = {sizeof table - 1, (u64)table};
  __asm__ volatile("lidt %0" ::"m"(descriptor));
}

// --- system calls --------------------------------------------------------------------

static u64 heap_end, next_map = kMaps;

__attribute__((used)) static long on_call(u64 number, u64 a, u64 b, u64 c, u64 d) {
  switch (number) {
    case 1:  // write
      for (u64 i = 0; i < c; ++i) put(((const char*)b)[i]);
      return (long)c;
    case 20: {  // writev
      const u64* part = (const u64*)b;
      long written = 0;
      for (u64 i = 0; i < c; ++i, part += 2)
        written += on_call(1, a, part[0], part[1], 0);
      return written;
    }
    case 9: {  // mmap: of no file
      const u64 at = next_map;
      const u64 bytes = (b + kPage - 1) / kPage * kPage;
      if ((d & 0x20) == 0 || at + bytes > kMemory) return -12;
      next_map += bytes;
      memset((void*)at, 0, bytes);
      protect(at, bytes, c != 0);
      return (long)at;
    }
    case 10:  // mprotect
      protect(a, (b + kPage - 1) / kPage * kPage, c != 0);
      return 0;
    case 11:  // munmap: never used again, so that a later touch is seen
      protect(a, (b + kPage - 1) / kPage * kPage, 0);
      return 0;
    case 12:  // brk
      if (a >= heap_end && a < kStackTop - (8 << 20)) {
        memset((void*)heap_end, 0, a - heap_end);
        heap_end = a;
      }
      return (long)heap_end;
    case 5:  // fstat: a terminal
      memset((void*)b, 0, 144);
      *(u32*)(b + 24) = 0020620;
      return 0;
    case 63: {  // uname: six names of 65 bytes
      memset((void*)a, 0, 6 * 65);
      memcpy((void*)a, "Linux", 5);
      memcpy((void*)(a + 130), "6.1.0", 5);
      return 0;
    }
    case 158:  // arch_prctl
      if (a != 0x1002) return -22;
      set_msr(0xc0000100, b);  // the base of FS
      return 0;
    case 228: {  // clock_gettime: the program only needs it to go on
      u32 low, high;
      __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
      const u64 ticks = (u64)high << 32 | low;
      ((u64*)b)[0] = ticks / 1000000000;
      ((u64*)b)[1] = ticks % 1000000000;
      return 0;
    }
    case 318:  // getrandom
      memset((void*)a, 0x5a, b);
      return (long)b;
    case 39:   // getpid
    case 186:  // gettid
    case 218:  // set_tid_address
      return 1;
    case 0:    // read: nothing more
    case 3:    // close
    case 13:   // rt_sigaction
    case 14:   // rt_sigprocmask
    case 28:   // madvise
    case 202:  // futex
    case 273:  // set_robust_list
      return 0;
    case 16:  // ioctl
      return -25;
    case 89:   // readlink
    case 257:  // openat
    case 262:  // newfstatat
      return -2;
    case 302:  // prlimit64
    case 334:  // rseq
      return -38;
    case 60:   // exit
    case 231:  // exit_group
      say_number("exit status 0x", a);
      say("\n");
      power_off();
    default:
      say_number("\nunknown system call 0x", number);
      say("\n");
      return -38;
  }
}
// syscall leaves the address to return to in rcx and the flags in r11; programs may
// keep data below their stack pointer, so the call has a stack of its own.
__asm__(
    ".bss\n.balign 16\n.skip 16384\ncall_stack:\n.skip 16\n"
    ".text\ncall_gate:\n"
    "  mov %rsp, call_stack\n"
    "  mov $call_stack, %rsp\n"
    "  push %rcx\n  push %r11\n  push %rdi\n  push %rsi\n"
    "  push %rdx\n  push %r8\n  push %r9\n  push %r10\n"
    "  mov %r10, %r8\n"
    "  mov %rdx, %rcx\n"
    "  mov %rsi, %rdx\n"
    "  mov %rdi, %rsi\n"
    "  mov %rax, %rdi\n"
    "  call on_call\n"
    "  pop %r10\n  pop %r9\n  pop %r8\n  pop %rdx\n"
    "  pop %rsi\n  pop %rdi\n  pop %r11\n  pop %rcx\n"
    "  mov call_stack, %rsp\n"
    "  push %r11\n  popf\n"
    "  jmp *%rcx\n");
extern u8 call_gate[];

// --- the program ---------------------------------------------------------------------

// From the first disk, by its oldest protocol.
static void read_sector(u32 sector, void* to) {
  out8(0x1f6, (u8)(0xe0 | sector >> 24));
  out8(0x1f2, 1);
  out8(0x1f3, (u8)sector);
  out8(0x1f4, (u8)(sector >> 8));
  out8(0x1f5, (u8)(sector >> 16));
  out8(0x1f7, 0x20);
  u8 state;
  do {
    state = in8(0x1f7);
    if ((state & 0x01) != 0) {
      say("the disk cannot be read\n");
      power_off();
    }
  } while ((state & 0x88) != 0x08);
  u64 words = kSector / 2;
  __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"((u16)0x1f0) : "memory");
}

extern u8 bss_begin[], bss_end[];  // start.ld

__attribute__((used, noreturn)) static void start(void) {
  memset(bss_begin, 0, (u64)(bss_end - bss_begin));
  out8(0x3f9, 0);     // no interrupts
  out8(0x3fb, 0x80);  // 115,200 baud
  out8(0x3f8, 1);
  out8(0x3f9, 0);
  out8(0x3fb, 3);
  map_pages();
  catch_exceptions();
  for (u32 i = 0; i < (PROGRAM_BYTES + kSector - 1) / kSector; ++i) {
    read_sector(kProgramSector + i, (void*)(kFile + (u64)i * kSector));
  }
  const u8* const file = (const u8*)kFile;
  const u64 entry = *(const u64*)(file + 24);
  const u64 headers = *(const u64*)(file + 32);
  const u16 header_bytes = *(const u16*)(file + 54);
  const u16 header_count = *(const u16*)(file + 56);
  u64 base = 0;
  for (u64 i = 0; i < header_count; ++i) {
    const u8* const header = file + headers + i * header_bytes;
    if (*(const u32*)header != 1) continue;  // PT_LOAD
    const u64 offset = *(const u64*)(header + 8);
    const u64 to = *(const u64*)(header + 16);
    const u64 bytes = *(const u64*)(header + 32);
    const u64 whole = *(const u64*)(header + 40);
    if (offset == 0) base = to;
    memcpy((void*)to, file + offset, bytes);
    memset((void*)(to + bytes), 0, whole - bytes);
    if (to + whole > heap_end) heap_end = (to + whole + kPage - 1) / kPage * kPage;
  }
  memset((void*)kFile, 0, kMaps - kFile);
  set_msr(0xc0000081, 8ul << 32);       // STAR: 0x08 code, 0x10 data
  set_msr(0xc0000082, (u64)call_gate);  // LSTAR
  set_msr(0xc0000084, 0x700);           // clear direction, interrupt and trap flags
  // As Linux hands a program its arguments, environment and auxiliary vector.
  static char name[] = "tests", argument[] = ARGUMENT, setting[] = SETTING;
  const u64 random = kStackTop - 64;
  memset((void*)random, 0x5a, 16);
  const u64 words[] = {2,
                       (u64)name,
                       (u64)argument,
                       0,
                       (u64)setting,
                       0,
                       3,
                       base + headers,
                       4,
                       header_bytes,
                       5,
                       header_count,
                       6,
                       kPage,
                       9,
                       entry,
                       23,
                       0,
                       25,
                       random,
                       0,
                       0};
  const u64 stack = (kStackTop - 64 - sizeof words) & ~15ul;
  memcpy((void*)stack, words, sizeof words);
  __asm__ volatile(
      "mov %0, %%rsp; xor %%edx, %%edx; xor %%ebp, %%ebp; jmp *%1" ::"r"(stack),
      "r"(entry)
      : "memory");
  __builtin_unreachable();
}
