# Runs a program in a Debian folder: sh enter.sh MODE FOLDER UID PROGRAM [ARGUMENT]…
#
# In a mount and PID namespace that the caller made (`unshare --mount --pid --fork --kill-child`), so that nothing of it
# is left when the program ends. MODE is `keep`, which writes to the folder, or `try`, where what is written is forgotten:
# two programs of one folder do not meet, and no run changes the next one.
set -eu
mode=$1
folder=$2
user=$3
shift 3
# Made with the folder, by `cargo xtask test --genuine`.
home=home/peer
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
if [ "$mode" = keep ]; then
    mount --bind "$folder" /mnt/root
else
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
fi
mount --bind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
# Not in this shell's place: becoming another user would take away what ends it with its caller, and everything with it.
# Wine: no window, no .NET and no HTML engine, which it would want to download.
chroot --userspec="$user:$user" /mnt/root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="/$home" \
    LANG=C.UTF-8 WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml= "$@"
exit $?
