"""Run a program where it sees little of this machine (namespaces(7), user_namespaces(7)).

A program of its own, started as ``python -I -S sandbox_program.py [--rw PATH] [--ro PATH] [--device
PATH] [--network | --served-by SOCKET] -- PROGRAM ...``;
:mod:`pytest_nixos.local.sandbox` builds that command and says what it promises. It works for root
and, where the kernel lets an ordinary user make user namespaces, for that user, and in the same
way: the user keeps its id and loses every capability.

There are three processes: this one, which waits and ends as the program does; the first one of the
new process namespace, which buries what the program leaves; and the program. All end with the
first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

_LIBC = ctypes.CDLL(None, use_errno=True)

# linux/sched.h
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
# linux/mount.h
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _AT_RECURSIVE = 1, 2, 0x8000
# The same on every architecture but Alpha.
_MOUNT_SETATTR = 442
# linux/prctl.h
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_CLEAR = 1, 24, 38, 47, 4
_CAPABILITY_VERSION = 0x20080522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
# linux/rtnetlink.h, linux/netlink.h
_RTM_NEWROUTE, _NLM_REQUEST_ACK_CREATE, _NLMSG_ERROR, _RTA_OIF = 24, 0x405, 2, 4
_TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _ROUTE_LOCAL, _LO = 255, 3, 254, 2, 1
#: Ports of the name and the time server, whose sockets are handed over in this order.
_SERVED = (53, 123)
_OWN_RESOLVER = b"nameserver 127.0.0.1\n"

_PIVOT_ROOT = {
    "x86_64": 155,
    "aarch64": 41,
    "riscv64": 41,
    "armv7l": 218,
    "i686": 217,
    "ppc64le": 203,
    "s390x": 217,
}

_OLD = "/oldroot"
#: Directories with programs, for everybody to read; links among them are kept.
_PROGRAMS = (
    "/nix/store",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/run/current-system",
)
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
_ETC_COPIED = ("hosts", "resolv.conf", "nsswitch.conf", "services", "protocols", "localtime")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SIZE = "256m"
_MOST_COPIED = 1 << 20


@dataclass
class Wanted:
    """What was asked for."""

    writable: list[str] = field(default_factory=list)
    readable: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    network: bool = False
    served_by: str = ""
    program: list[str] = field(default_factory=list)


class Refused(Exception):
    """The kernel does not let this user do a step."""


def _parse(words: list[str]) -> Wanted:
    wanted = Wanted()
    lists = {"--rw": wanted.writable, "--ro": wanted.readable, "--device": wanted.devices}
    rest = iter(words)
    for word in rest:
        if word == "--":
            wanted.program = list(rest)
        elif word == "--network":
            wanted.network = True
        elif word == "--served-by":
            wanted.served_by = next(rest)
        else:
            lists[word].append(next(rest))
    return wanted


def _check(step: str, done: int) -> None:
    if done < 0:
        code = ctypes.get_errno()
        raise Refused(f"{step}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags))
    _check(f"mount {target}", _LIBC.mount(*words, options.encode() or None))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _leave(network: bool) -> None:
    """Make the namespaces; this process stays in its process namespace, its children do not."""
    uid, gid = os.geteuid(), os.getegid()
    flags = _NEWUSER | _NEWNS | _NEWPID | _NEWIPC | _NEWUTS | _NEWCGROUP
    flags |= 0 if network else _NEWNET
    _check("new namespaces (unshare)", _LIBC.unshare(flags))
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1\n")
        _write("/proc/self/gid_map", f"{gid} {gid} 1\n")
    except OSError as err:
        raise Refused(f"user ids of the namespace: {err.strerror}") from err


def _copies(wanted: Wanted) -> dict[str, bytes]:
    """Read files of /etc while links in it still lead somewhere."""
    found = {}
    for name in _ETC_COPIED:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/etc/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                found[name] = os.read(descriptor, _MOST_COPIED)
            finally:
                os.close(descriptor)
    if wanted.served_by:
        found["resolv.conf"] = _OWN_RESOLVER
    uid, gid = os.geteuid(), os.getegid()
    found["passwd"] = (
        f"user:x:{uid}:{gid}::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n".encode()
    )
    found["group"] = f"user:x:{gid}:\nnogroup:x:65534:\n".encode()
    return found


def _build_root(wanted: Wanted) -> None:
    """Make a new root directory, and show in it what was asked for."""
    copies, cwd = _copies(wanted), os.getcwd()  # noqa: PTH109
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("sandbox", "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={_SIZE},mode=0755")  # noqa: S108
    os.mkdir(f"/tmp{_OLD}", 0o700)  # noqa: PTH102, S108
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise Refused(f"pivot_root: its number on {os.uname().machine} is not known")
    _check("pivot_root", _LIBC.syscall(number, b"/tmp", f"/tmp{_OLD}".encode()))  # noqa: S108
    os.chdir("/")
    if os.geteuid() == 0:
        # No namespaces within, where capabilities would come back: what belongs to root, as control
        # groups do, would be open to them.
        with contextlib.suppress(OSError):
            _write(f"{_OLD}/proc/sys/user/max_user_namespaces", "0\n")
    for path in ("/tmp", "/var/tmp", "/run", "/etc", "/dev/pts", "/dev/shm", "/proc"):  # noqa: S108
        os.makedirs(path, 0o755, exist_ok=True)  # noqa: PTH103
    for path in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108
        os.chmod(path, 0o1777)  # noqa: PTH101, S103
    for name, content in copies.items():
        with open(f"/etc/{name}", "wb") as file:  # noqa: PTH123
            file.write(content)
    for path in (*_PROGRAMS, *_ETC):
        if os.path.lexists(_OLD + path):
            _show(path, read_only=True)
    _devices(wanted.devices)
    for path in wanted.readable:
        _show(path, read_only=True)
    for path in wanted.writable:
        _show(path, read_only=False)
    flags = _RDONLY | _NOSUID | _NODEV | _NOEXEC
    _mount("proc", "/proc", "proc", flags)
    _check("umount", _LIBC.umount2(_OLD.encode(), _DETACH))
    os.rmdir(_OLD)  # noqa: PTH106
    os.chdir(cwd if os.path.isdir(cwd) else "/")  # noqa: PTH112


def _devices(more: list[str]) -> None:
    for path in (*(f"/dev/{name}" for name in _DEVICES), *more):
        if os.path.exists(_OLD + path):  # noqa: PTH110
            _show(path, read_only=False)
    _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", "/dev/ptmx")  # noqa: PTH211
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")  # noqa: PTH211


def _show(path: str, *, read_only: bool) -> None:
    source = _OLD + path
    parent = os.path.dirname(path)  # noqa: PTH120
    os.makedirs(parent, 0o755, exist_ok=True)  # noqa: PTH103
    if os.path.islink(source):  # noqa: PTH114
        if not os.path.lexists(path):
            os.symlink(os.readlink(source), path)  # noqa: PTH115, PTH211
        return
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(path, 0o755, exist_ok=True)  # noqa: PTH103
    elif not os.path.lexists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    _mount(source, path, "", _BIND | _REC)
    # struct mount_attr: set, clear, propagation, userns
    attributes = struct.pack("QQQQ", _ATTR_NOSUID | (_ATTR_RDONLY if read_only else 0), 0, 0, 0)
    words = (-100, os.fsencode(path), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes)))
    _check(f"read-only {path}", _LIBC.syscall(_MOUNT_SETATTR, *words))


def _loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16xH22x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))


def _hand_over(path: str) -> None:
    """Make every address one of this network, and give the sockets that answer for names and the
    time at all of them to who listens on the Unix socket `path`.
    """
    route = struct.pack(
        "8BIHHI",
        *(socket.AF_INET, 0, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _ROUTE_LOCAL, 0),
        *(8, _RTA_OIF, _LO),
    )
    head = struct.pack("IHHII", 16 + len(route), _RTM_NEWROUTE, _NLM_REQUEST_ACK_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(head + route)
        kind, code = struct.unpack_from("4xH10xi", netlink.recv(4096))
        if kind == _NLMSG_ERROR and code:
            raise Refused(f"route: {os.strerror(-code)}")
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in _SERVED]
        for served, port in zip(made, _SERVED, strict=True):
            served.bind(("0.0.0.0", port))  # noqa: S104 - of a network of its own
        taker = stack.enter_context(socket.socket(socket.AF_UNIX))
        taker.connect(path)
        socket.send_fds(taker, [b"!"], [served.fileno() for served in made])


def _drop() -> None:
    """Give up every capability for good."""
    _check("no_new_privs", _LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _LIBC.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    number = 0
    while _LIBC.prctl(_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    if ctypes.get_errno() != errno.EINVAL:
        raise Refused(f"capability {number}: {os.strerror(ctypes.get_errno())}")
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _check("capset", _LIBC.capset(header, bytes(24)))


def _first(wanted: Wanted, status: int, held: int, holding: int) -> None:
    """Be process 1: build everything, start the program, bury the dead.

    :param held: reads as ended once nobody but this process has `holding`: the parent is gone, and
        was before the kernel was asked to end this process with it.
    """
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.close(holding)
    if select.select([held], [], [], 0)[0]:
        os._exit(125)
    os.close(held)
    _build_root(wanted)
    if not wanted.network:
        _loopback()
    if wanted.served_by:
        _hand_over(wanted.served_by)
    _drop()
    child = os.fork()
    if child == 0:
        os.close(status)
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvp(wanted.program[0], wanted.program)  # noqa: S606
        except OSError as err:
            print(f"{wanted.program[0]}: {err.strerror}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(127)
    while True:
        pid, ended = os.wait()
        if pid == child:
            os.write(status, struct.pack("i", ended))
            return


def _as_child(work: Callable[[], None]) -> int:
    """Fork; in the child do `work` and end, with a message if it is refused."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except (Refused, OSError) as err:
        print(f"pytest-nixos-sandbox: {err}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(125)
    os._exit(0)


def main(words: list[str]) -> int:
    """Run the program and end as it does; 125 if the sandbox cannot be made."""
    wanted = _parse(words)
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        _leave(wanted.network)
    except Refused as err:
        print(f"pytest-nixos-sandbox: {err}", file=sys.stderr, flush=True)  # noqa: T201
        return 125
    # New credentials may have cleared it.
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 125
    reading, writing = os.pipe()
    held, holding = os.pipe()
    first = _as_child(lambda: _first(wanted, writing, held, holding))
    os.close(writing)
    os.close(held)
    said = os.read(reading, 4)
    _, ended = os.waitpid(first, 0)
    if len(said) == 4:
        ended = struct.unpack("i", said)[0]
    code = os.waitstatus_to_exitcode(ended)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL) if -code not in (
            signal.SIGKILL,
            signal.SIGSTOP,
        ) else None
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
