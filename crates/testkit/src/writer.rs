//! A guest without a system, which does nothing but write to its disk and say so.

/// Sector 128 * n gets n in its first four bytes, for n = 1, 2, 3, …: a cluster of qcow2 each. When the disk has taken one, a
/// dot goes out on the first serial port; when it has refused it, an exclamation mark.
///
/// It waits for the disk's interrupt, as systems do, and does not look at the busy bit, as a BIOS does: QEMU (10.0, `ide_sector_write_cb`
/// of hw/ide/core.c) clears that bit for a moment before a write that found no room stops the machine, and a guest that
/// looks just then takes the write for done.
///
/// ```text
///        cli;  xor ax,ax;  mov ds,ax;  mov al,0bfh;  out 0a1h,al          ; of the second controller's, only IRQ 14
///        mov dx,3f6h;  xor al,al;  out dx,al                              ; the disk interrupts
///        mov dx,1f7h;  in al,dx;  mov al,0ch;  out 0a0h,al;  in al,0a0h   ; what the BIOS left is not for us
///        mov al,20h;  out 0a0h,al
/// next:  inc dword [8000h];  mov ebx,[8000h];  shl ebx,7
///        mov dx,1f2h;  mov al,1;  out dx,al
/// lba:   inc dx;  mov al,bl;  shr ebx,8;  cmp dl,0f6h;  je last;  out dx,al;  jmp lba
/// last:  or al,0e0h;  out dx,al;  inc dx;  mov al,30h;  out dx,al         ; WRITE SECTORS
/// drq:   in al,dx;  test al,8;  jz drq
///        mov dl,0f0h;  mov si,8000h;  mov cx,256;  rep outsw
/// irq:   mov al,0ch;  out 0a0h,al;  in al,0a0h;  test al,80h;  jz irq     ; the controller's poll command
///        mov al,20h;  out 0a0h,al
///        mov dl,0f7h;  in al,dx;  mov bl,'.';  test al,21h;  jz say;  mov bl,'!'
/// say:   mov dx,3fdh;  in al,dx;  test al,20h;  jz say;  mov dl,0f8h;  mov al,bl;  out dx,al;  jmp next
/// ```
const PROGRAM: &[u8] = b"\xfa\x31\xc0\x8e\xd8\xb0\xbf\xe6\xa1\xba\xf6\x03\x30\xc0\xee\xba\xf7\x01\xec\xb0\x0c\xe6\xa0\xe4\
    \xa0\xb0\x20\xe6\xa0\x66\xff\x06\x00\x80\x66\x8b\x1e\x00\x80\x66\xc1\xe3\x07\xba\xf2\x01\xb0\x01\xee\x42\x88\xd8\x66\
    \xc1\xeb\x08\x80\xfa\xf6\x74\x03\xee\xeb\xf1\x0c\xe0\xee\x42\xb0\x30\xee\xec\xa8\x08\x74\xfb\xb2\xf0\xbe\x00\x80\xb9\
    \x00\x01\xf3\x6f\xb0\x0c\xe6\xa0\xe4\xa0\xa8\x80\x74\xf6\xb0\x20\xe6\xa0\xb2\xf7\xec\xb3\x2e\xa8\x21\x74\x02\xb3\x21\
    \xba\xfd\x03\xec\xa8\x20\x74\xf8\xb2\xf8\x88\xd8\xee\xeb\x9f";

/// From one write to the next.
pub const WRITER_STEP_BYTES: u64 = 128 * 512;

/// The first sector of a disk that boots into the writer.
#[must_use]
pub fn writer_boot_sector() -> Vec<u8> {
    let mut sector = PROGRAM.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}
