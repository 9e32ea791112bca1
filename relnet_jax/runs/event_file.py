"""TensorBoard's event files, written at once and by the thread that asks for it.

tensorboardX's SummaryWriter hands events to a thread of its own. When that thread has died, of a full disk or of a
clock that was set back by weeks, it waits for ever for somebody to take the eleventh.
"""
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class EventFile:
    """A new file in `folder`, which is made if needed. Points of earlier files from `step` + 1 on are not shown."""

    def __init__(self, folder: Path, *, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / 'events'))
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def write(self, step: int, values: dict[str, float]) -> None:
        """A point for each name at this step, on the disk when it returns."""
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
