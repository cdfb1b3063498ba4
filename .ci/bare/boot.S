// SPDX-License-Identifier: Apache-2.0
// First sector of the disk that .ci/emulate_avx512.sh boots: reads the 64 sectors after
// it (start.c) to 0x8000, goes from real mode to 64-bit mode with the first GiB mapped
// to itself, lets programs use AVX-512's registers, and jumps there.
    .code16
    .globl _start
_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb $0x42, %ah             // %dl: the drive, from the BIOS
    movw $packet, %si
    int $0x13
    jc stop
    inb $0x92, %al              // address line 20
    orb $2, %al
    outb %al, $0x92

    // Tables at 0x1000 (level 4), 0x2000 (3) and 0x3000 (2: 512 pages of 2 MiB).
    movw $0x1000, %di
    movw $0x1800, %cx
    xorw %ax, %ax
    rep stosw
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x83, %eax
    movw $0x3000, %di
page:
    movl %eax, (%di)
    addl $0x200000, %eax
    addw $8, %di
    cmpw $0x4000, %di
    jne page

    movl $0x40620, %eax         // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      // EFER: long mode, and the instruction syscall
    rdmsr
    orl $0x101, %eax
    wrmsr
    movl $0x80000023, %eax      // paging, own error reporting, coprocessor, protection
    movl %eax, %cr0
    lgdt descriptor
    ljmp $8, $long
stop:
    hlt
    jmp stop

    .code64
long:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x7c00, %esp
    fninit
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $0xe7, %eax            // XCR0: x87, XMM, YMM, masks, both halves of ZMM
    xsetbv
    movl $0x8000, %eax
    jmp *%rax

    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // 0x08: 64-bit code
    .quad 0x00cf93000000ffff    // 0x10: data
descriptor:
    .word descriptor - gdt - 1
    .long gdt
    .balign 4
packet:
    .byte 16, 0
    .word 64                    // sectors
    .word 0, 0x800              // to 0x800:0
    .quad 1                     // from
    .org 510
    .word 0xaa55
