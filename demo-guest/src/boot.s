/* From QEMU's PVH entry (32-bit protected mode, paging off, EBX = start info) to 64-bit kmain: identity map of 4 GiB in
   2-MiB pages, SSE on, a stack. Interrupts are open only around `sti; hlt; cli`, and the interrupt stubs touch RAX alone,
   so neither SSE state nor the red zone needs saving; exceptions never return. */
.section .note.xen,"a"
.align 4
.long 4, 4, 18
.asciz "Xen"
.long start32
.section .text.boot,"ax"
.code32
.global start32
start32:
  cli
  mov $stack_top, %esp
  mov %ebx, START_INFO
  mov $pml4, %edi
  xor %eax,%eax
  mov $(4096*6/4), %ecx
  rep stosl
  movl $(pdpt+3), pml4
  movl $(pd+3), pdpt
  movl $(pd+4096+3), pdpt+8
  movl $(pd+8192+3), pdpt+16
  movl $(pd+12288+3), pdpt+24
  mov $pd, %edi
  mov $0x83, %eax
  mov $2048, %ecx
1: mov %eax,(%edi)
  add $0x200000,%eax
  add $8,%edi
  loop 1b
  mov %cr4,%eax
  or $0x620,%eax
  mov %eax,%cr4
  mov $pml4,%eax
  mov %eax,%cr3
  mov $0xC0000080,%ecx
  rdmsr
  or $0x100,%eax
  wrmsr
  mov %cr0,%eax
  and $0xfffffffb,%eax
  or $0x80000003,%eax
  mov %eax,%cr0
  lgdt gdtr
  ljmp $8,$start64
.code64
start64:
  mov $16,%eax
  mov %eax,%ds
  mov %eax,%es
  mov %eax,%ss
  xor %eax,%eax
  mov %eax,%fs
  mov %eax,%gs
  mov $stack_top,%rsp
  call kmain
2: hlt
  jmp 2b
.align 8
gdt: .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr: .word 23
  .long gdt

.global isr_timer, isr_master, isr_slave
isr_timer: push %rax
  incq TICKS(%rip)
  mov $0x20,%al
  outb %al,$0x20
  pop %rax
  iretq
isr_master: push %rax
  mov $0x20,%al
  outb %al,$0x20
  pop %rax
  iretq
/* PCI lines are level-triggered: mask 9, 10, 11; the main loop quiets the card and unmasks. */
isr_slave: push %rax
  inb $0xa1,%al
  or $0x0e,%al
  outb %al,$0xa1
  mov $0x20,%al
  outb %al,$0xa0
  outb %al,$0x20
  pop %rax
  iretq

/* Exceptions 0..31: (vector, error code, RIP) to the crash screen, on a stack of its own: the old one may be the cause. */
.macro exception n, has_error
exception_\n:
  .if \has_error
  pop %rsi
  .else
  xor %esi,%esi
  .endif
  mov (%rsp),%rdx
  mov 24(%rsp),%rcx
  mov $\n,%edi
  jmp exception_common
.endm
.altmacro
.set i,0
.rept 32
  .if (i == 8) || (i >= 10 && i <= 14) || (i == 17) || (i == 21) || (i == 29) || (i == 30)
  exception %i, 1
  .else
  exception %i, 0
  .endif
  .set i,i+1
.endr
.noaltmacro
exception_common:
  cli
  mov $crash_stack_top,%rsp
  call exception
3: hlt
  jmp 3b

.macro entry n
  .quad exception_\n
.endm
.section .rodata
.align 8
.global exception_table
exception_table:
.altmacro
.set i,0
.rept 32
  entry %i
  .set i,i+1
.endr
.noaltmacro

.section .bss
.align 4096
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 16384
.skip 131072
stack_top:
.skip 16384
crash_stack_top:
