"""TensorBoard's event files: what TensorBoard reads of them, and that writing one never waits for another thread."""
import errno
import struct
import threading
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from relnet_jax.runs.event_file import EventFile


def events(folder):
    """Of all files, oldest name first; records as TFRecord has them: length, its checksum, bytes, their checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            size = struct.unpack('<Q', data[:8])[0]
            found.append(Event.FromString(data[12:12 + size]))
            data = data[16 + size:]
    return found


def test_points_and_the_step_from_which_earlier_ones_are_void_are_read_back(tmp_path):
    file = EventFile(tmp_path / 'tensorboard', step=4)
    file.write(5, {'train/loss': 1.5, 'train/lr': 0.25})
    head, start, *points = events(tmp_path / 'tensorboard')     # on the disk before it is closed
    file.close()
    assert head.file_version == 'brain.Event:2'
    assert start.step == 5 and start.session_log.status == SessionLog.START
    assert [(p.step, p.summary.value[0].tag, p.summary.value[0].simple_value) for p in points] == [
        (5, 'train/loss', 1.5), (5, 'train/lr', 0.25)]
    assert all(abs(p.wall_time - time.time()) < 3600 for p in points)


def test_it_has_no_thread_of_its_own_and_takes_any_number_of_points_whatever_the_clock_says(tmp_path, monkeypatch):
    before = threading.active_count()
    file = EventFile(tmp_path, step=0)
    for step in range(100):
        monkeypatch.setattr(time, 'time', lambda step=step: 1.7e9 - 1e8 * step % 3)
        file.write(step, {'a': 1.0})
    assert threading.active_count() == before and len(events(tmp_path)) == 102
    file.close()


def test_a_disk_that_takes_no_more_is_an_error_where_it_is_written(tmp_path, monkeypatch):
    file = EventFile(tmp_path, step=0)

    def full(data):
        raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
        patch.setattr(file._writer._py_recordio_writer, 'write', full)
        file.write(1, {'a': 1.0})
    file.close()
