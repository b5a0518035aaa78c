"""Becomes the given command, bound to the life of the process that started it.

Run as a script, before anything of the project is imported:
`python -I -S launch.py '{"parent": PID, "death_signal": N, "uid": …, "capability": …}' COMMAND…`

The order matters: the kernel forgets the death signal at a change of credentials, so it is set
last; a parent that died before that is noticed by its pid.
"""

import ctypes
import json
import os
import sys

PR_SET_PDEATHSIG, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522


def main(options_json: str, command: list[str]) -> None:
    options = json.loads(options_json)
    if options.get("uid") is not None:
        become(options["uid"], options["capability"])
    die_with(options["parent"], options["death_signal"])
    os.execvp(command[0], command)  # noqa: S606 - its whole purpose


def die_with(parent: int, death_signal: int) -> None:
    """Have the kernel send this signal to this process when its parent dies."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        check(libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")


def become(uid: int, capability: int | None) -> None:
    """Drop to another user, keeping at most one capability of root, also over the exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    if capability is not None:
        # without it access(2), by which PostgreSQL looks for its programs, ignores capabilities
        check(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setresuid(uid, uid, uid)
    if capability is not None:
        mask = 1 << capability
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        # effective, permitted, inheritable; the second triple is for capabilities above 31
        sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        check(libc.capset(header, sets))
        check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
