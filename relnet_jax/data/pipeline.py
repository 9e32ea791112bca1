"""Opened data sets as streams of batches. The training batch of step s is a pure function of (seed, s).

So resuming needs the step alone. Grain gives the order (a new shuffle per epoch), the random numbers of every sample
and the reader threads; everything else is plain functions on numpy arrays.
"""
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import grain
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.data import batching, transforms
from relnet_jax.data.coco import read_coco
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.phantom import phantom_source
from relnet_jax.data.source import Source, cached, split, subset
from relnet_jax.types import Batch, Example


def _open_phantom(config: ConfigDict) -> tuple[Source, Source]:
    p, mask_size = config.data.phantom, config.data.mask_size
    return tuple(phantom_source(split=split_name, mask_size=mask_size, **p) for split_name in ('train', 'val'))


def _open_coco(config: ConfigDict) -> tuple[Source, Source]:
    """The training file, and the validation file read with its class table, or else held-out training images."""
    d = config.data

    def read(files: ConfigDict, name: str, classes: tuple[str, ...]) -> Source:
        return read_coco(files.annotations, files.images, name=name, classes=classes, parts=tuple(d.parts),
                         max_images=files.max_images, mask_size=d.mask_size, window=tuple(d.window))

    train = read(d.train, Path(d.train.annotations).stem, tuple(d.classes))
    if d.val.annotations:
        return train, read(d.val, Path(d.val.annotations).stem, train.classes)
    train, val = split(train, by=d.split.by, folds=d.split.folds, hold_out=d.split.hold_out)
    if d.val.max_images:
        val = subset(val, range(min(d.val.max_images, len(val))), name=val.name)
    return train, val


FORMATS = {'phantom': _open_phantom, 'coco': _open_coco}     # a new format: one file in this folder and one line here


def open_sources(config: ConfigDict) -> tuple[Source, Source]:
    """(training, validation) data of a config. Raises FileNotFoundError or ValueError, naming the file or the key."""
    if config.data.format not in FORMATS:
        raise ValueError(f"data.format: expected one of {sorted(FORMATS)}, got '{config.data.format}'")
    train, val = FORMATS[config.data.format](config)
    if config.data.cache:
        train, val = cached(train), cached(val)
    return train, val


class _Reader:
    """Loads examples for training and stands in for unreadable ones: the next readable position, the same every time.

    The stand-in depends on the files alone, not on what other threads met before, so batches stay pure functions.
    """

    def __init__(self, source: Source, max_share: float):
        self.source, self.max_share = source, max_share
        self.unreadable = set()
        self.lock = threading.Lock()

    def __call__(self, index: int) -> Example:
        count = len(self.source)
        for i in range(index, index + count):
            try:
                return self.source.load(i % count)
            except UnreadableImage as e:
                self._count(i % count, e)
        raise ValueError(f'{self.source.name}: none of the {count} images can be read')

    def _count(self, index: int, error: UnreadableImage):
        with self.lock:
            if index in self.unreadable:
                return
            self.unreadable.add(index)
            bad, count = len(self.unreadable), len(self.source)
        logging.warning('unreadable image %d (of %d), the next one takes its place: %s', bad, count, error)
        if bad > self.max_share * count:
            raise ValueError(f'{self.source.name}: {bad} of {count} images are unreadable, more than '
                             f'data.max_unreadable = {self.max_share} allows; the last one: {error}') from error


def train_batches(source: Source, config: ConfigDict, *, batch_size: int, start_step: int = 0,
                  seed: int) -> Iterator[Batch]:
    """Endless batches of `batch_size` from step `start_step` on, read ahead by `config.data.threads` threads.

    Every epoch has its own order; a batch may span two epochs. Raises ValueError for an empty source, and when more
    than `config.data.max_unreadable` of the images turn out unreadable.
    """
    if not len(source):
        raise ValueError(f'{source.name}: no images to train on')
    d = config.data
    canvas = tuple(d.canvas)
    read = _Reader(source, d.max_unreadable)
    tables = transforms.flip_tables(source.classes, source.parts, d.flip_pairs)

    def row(index: int, rng: np.random.Generator) -> Batch:
        example = read(index)
        view = transforms.augment(
            example, rng, tables=tables, canvas=canvas, scale=d.scale, max_size=d.max_size, flip_probability=d.flip,
            scale_jitter=d.scale_jitter, brightness=d.brightness, contrast=d.contrast, gamma=d.gamma)
        size = example.image.shape[:2]
        return batching.pad_example(view, canvas=canvas, max_objects=d.max_objects, original_size=size)

    order, noise = np.random.SeedSequence(seed).generate_state(2)
    batches = (grain.MapDataset.range(len(source)).shuffle(seed=int(order)).repeat()
               .random_map(row, seed=int(noise)).batch(batch_size, batch_fn=batching.stack))
    return iter(batches[start_step:].to_iter_dataset(_read_options(config)))


def eval_batches(source: Source, config: ConfigDict, batch_size: int) -> Iterator[Batch]:
    """Every image once and in order; the last batch is filled up with rows whose `image_valid` is False.

    An unreadable image keeps its row and its `image_index`, with `image_valid` False, and is logged by name.
    """
    d = config.data
    canvas, count = tuple(d.canvas), len(source)

    def row(index: int) -> Batch:
        blank = dict(canvas=canvas, max_objects=d.max_objects, mask_size=d.mask_size, parts=len(source.parts))
        if index >= count:
            return batching.empty_row(0, **blank)
        try:
            example = source.load(index)
        except UnreadableImage as e:
            logging.warning('image %s is left out of the evaluation: %s', source.records[index]['id'], e)
            return batching.empty_row(index, **blank)
        size = example.image.shape[:2]
        target = transforms.resized_size(*size, scale=d.scale, max_size=d.max_size, canvas=canvas)
        view = transforms.resize(example, target)
        return batching.pad_example(view, canvas=canvas, max_objects=d.max_objects, original_size=size)

    rows = -(-count // batch_size) * batch_size
    return iter(grain.MapDataset.range(rows).map(row).batch(batch_size, batch_fn=batching.stack)
                .to_iter_dataset(_read_options(config)))


def _read_options(config: ConfigDict) -> grain.ReadOptions:
    cv2.setNumThreads(1)    # the reader threads work side by side; OpenCV's own would only get in their way
    threads = config.data.threads
    buffered = max(threads, config.data.prefetch) if threads else 0
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffered)
