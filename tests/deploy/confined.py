"""Run a command under the system calls that a unit leaves it: `confined.py UNIT COMMAND...`

A stand-in for systemd where none runs: the same library, libseccomp, gets what
`SystemCallFilter=`, `MemoryDenyWriteExecute=` and `RestrictAddressFamilies=` say
(systemd.exec(5), seccomp(2)).
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)
EQUAL, MASKED_EQUAL = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
PROT_WRITE, PROT_EXEC = 2, 4
NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS


class Comparison(ctypes.Structure):
    """One condition on a system call's argument, `struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def calls_of(names: str) -> set[str]:
    """Return the system calls of a `SystemCallFilter=` value, groups resolved by systemd."""
    found: set[str] = set()
    for name in names.split():
        if not name.startswith("@"):
            found.add(name)
            continue
        asked = ["systemd-analyze", "syscall-filter", name]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        members = [line.strip() for line in said.splitlines()[1:]]
        found |= calls_of(" ".join(m for m in members if m and not m.startswith("#")))
    return found


def conditions(call: str, families: list[int]) -> list[list[Comparison]]:
    """Return under which conditions a call is let through; one empty list for always."""
    if call == "socket":
        return [[Comparison(0, EQUAL, family, 0)] for family in families]
    if call == "mprotect":
        return [[Comparison(2, MASKED_EQUAL, PROT_EXEC, 0)]]
    if call == "mmap":
        both = PROT_WRITE | PROT_EXEC
        return [[Comparison(2, MASKED_EQUAL, both, some)] for some in (0, PROT_WRITE, PROT_EXEC)]
    return [[]]


def confine(unit: Path) -> None:
    """Take from this process, for ever, what the unit takes from the daemon."""
    text = unit.read_text()
    said = ConfigParser(strict=False, interpolation=None)
    said.read_string(text)
    service = said["Service"]
    assert service["MemoryDenyWriteExecute"] == "yes"
    families = [getattr(socket, name) for name in service["RestrictAddressFamilies"].split()]
    # The filter stands twice: what is let in, and what is taken out of that again.
    allowed = calls_of("@default")
    for names in re.findall(r"^SystemCallFilter=(.+)$", text, re.M):
        if names.startswith("~"):
            allowed -= calls_of(names[1:])
        else:
            allowed |= calls_of(names)
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(REFUSE)))
    for call in sorted(allowed):
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        for condition in conditions(call, families) if number >= 0 else []:
            array = (Comparison * len(condition))(*condition)
            made = seccomp.seccomp_rule_add_array(
                rules, ctypes.c_uint32(ALLOW), number, len(condition), array
            )
            assert made == 0, call
    ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    assert seccomp.seccomp_load(rules) == 0


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
