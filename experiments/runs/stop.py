"""Being asked to stop: SIGUSR1, a scheduler's warning, and SIGTERM. No torch: it has to listen before slow imports."""

import signal
from types import FrameType

EXIT_STOPPED = 75  # sysexits' EX_TEMPFAIL: nothing is wrong, start it again and it goes on
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopRequest:
    """Notes the signals, and ends the process at once unless it has something to save first.

    Lightning's own handlers save from inside the signal, between any two instructions, and a rank that is signalled
    alone then waits in a collective call that the others never make. SIGTERM would even end as success.

    Attributes:
        made: whether a signal came.
        deferred: True while whoever asks for `made` promises to stop soon by itself.
    """

    def __init__(self) -> None:
        self.made = False
        self.deferred = False

    def listen(self) -> None:
        """Take the signals (again: Lightning puts its own handlers in their place whenever it starts)."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.made = True
        if not self.deferred:
            raise SystemExit(EXIT_STOPPED)
