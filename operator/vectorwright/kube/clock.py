"""The clock that leases are measured by: it never jumps, and it goes on while the machine sleeps.

``time.monotonic()`` stands still during a suspend on Linux: a laptop or a paused virtual machine would wake up with a
lease that it believes to be fresh. All processes of one machine read the same clock.
"""

from __future__ import annotations

import time


def now() -> float:
    """Seconds since some fixed moment (the boot of the machine, on Linux)."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
