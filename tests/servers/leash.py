"""Runs a program that dies with the process that started it: `python leash.py PARENT PROGRAM ARGUMENTS...`.

Linux only; elsewhere the program runs just as well, and outlives a parent that is killed with -9. A program of its own,
since Python code between fork and exec is not safe in a process that has threads.
"""

import os
import signal
import sys

if sys.platform == "linux":
    import ctypes

    SET_PARENT_DEATH_SIGNAL = 1
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):  # it died before the signal was asked for
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
