# A DOS program (.COM) that meets others over IPX: MEET X, where X is its letter.
#
# On socket 5100h it says "HX" to all twice a second, answers each "HY" with "AXY" to who said it, and appends what it
# hears, four bytes a line, to C:\GOT.TXT. It never ends.
    .intel_syntax noprefix
    .code16
    .globl _start
_start:
    mov al, [0x82]              # the command line, behind its blank
    mov [mine], al
    mov ax, 0x7a00              # where is IPX?
    int 0x2f
    cmp al, 0xff
    jne none
    mov [ipx], di
    mov [ipx + 2], es
    push ds
    pop es
    mov [in_ecb + 0x26], ds     # the segments of the fragments
    mov [in_ecb + 0x2c], ds
    mov [out_ecb + 0x26], ds
    mov [out_ecb + 0x2c], ds
    xor bx, bx                  # 0: open a socket, for ever
    mov al, 0xff
    mov dx, 0x0051
    lcall [ipx]
    call listen
turn:
    cmp byte ptr [in_ecb + 8], 0
    jne nothing
    call hear
nothing:
    mov bx, 0x0a                # 10: have the processor
    lcall [ipx]
    mov ax, 0x40
    mov es, ax
    mov ax, es:[0x6c]           # ticks, 18.2 a second
    push ds
    pop es
    mov bx, ax
    sub ax, [last]
    cmp ax, 9
    jb turn
    mov [last], bx
    mov si, offset everyone
    mov al, 'H'
    mov ah, ' '
    call say
    jmp turn
none:
    mov ax, 0x4c01
    int 0x21

# Says AL, this program's letter, AH to the node at SI.
say:
    mov [out_text], al
    mov [out_text + 2], ah
    mov al, [mine]
    mov [out_text + 1], al
    push si
    mov di, offset out_header + 10
    mov cx, 6
    rep movsb
    pop si
    mov di, offset out_ecb + 0x1c
    mov cx, 6
    rep movsb
    mov si, offset out_ecb
    mov bx, 3                   # 3: send
    lcall [ipx]
    ret

listen:
    mov si, offset in_ecb
    mov bx, 4                   # 4: listen
    lcall [ipx]
    ret

hear:
    mov ax, 0x3d01
    mov dx, offset path
    int 0x21
    jc unheard
    mov bx, ax
    mov ax, 0x4202
    xor cx, cx
    xor dx, dx
    int 0x21
    mov ah, 0x40
    mov cx, 4
    mov dx, offset in_text
    int 0x21
    mov ah, 0x3e
    int 0x21
unheard:
    cmp byte ptr [in_text], 'H'
    jne listen
    mov si, offset in_header + 22
    mov al, 'A'
    mov ah, [in_text + 1]
    call say
    jmp listen

ipx:        .word 0, 0
last:       .word 0
mine:       .byte 0
path:       .asciz "C:\\GOT.TXT"
everyone:   .byte 0xff, 0xff, 0xff, 0xff, 0xff, 0xff

# Event control blocks: link, handler, in use, completion, socket, workspaces, node, fragments, header, text.
in_ecb:     .word 0, 0, 0, 0
            .byte 0, 0, 0x51, 0
            .fill 16, 1, 0
            .fill 6, 1, 0
            .word 2, in_header, 0, 30, in_text, 0, 4
out_ecb:    .word 0, 0, 0, 0
            .byte 0, 0, 0x51, 0
            .fill 16, 1, 0
            .fill 6, 1, 0
            .word 2, out_header, 0, 30, out_text, 0, 4
in_header:  .fill 30, 1, 0
in_text:    .fill 4, 1, 0
out_header: .byte 0xff, 0xff, 0, 34, 0, 4
            .fill 10, 1, 0
            .byte 0x51, 0
            .fill 12, 1, 0
out_text:   .ascii "H  \n"
