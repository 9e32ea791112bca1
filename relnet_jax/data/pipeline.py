"""Opened data sets as streams of batches. A row of the training batch of step s is a pure function of (seed, s, row).

So resuming needs the step alone, and each of several processes reads its own rows only. Grain gives the order (a new
shuffle per epoch), the random numbers of every sample and the reader threads; everything else is plain functions on
numpy arrays.
"""
import dataclasses
import functools
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

import cv2
import grain
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.data import batching, transforms
from relnet_jax.data.formats import FORMATS, has_validation
from relnet_jax.data.images import UnreadableImage
from relnet_jax.data.issues import listed, summary, too_many
from relnet_jax.data.sampling import repeated_order
from relnet_jax.data.source import CLASS_TABLE, Source, for_model, select, split, subset
from relnet_jax.errors import UserError
from relnet_jax.types import Batch, Example

EPOCHS = 1 << 30        # endless for all purposes; Grain's own endless repeat cannot be counted in batches of one
SAMPLES = 1 << 62       # the same for samples


def open_sources(config: ConfigDict) -> tuple[Source, Source]:
    """(training, validation) data of a config. Raises FileNotFoundError or UserError, naming the file or the key.

    The validation data are opened as `open_for_model` opens them, with the classes and parts of the training data;
    without data of its own it is a part of the training images. config.data.subset holds for the training images
    alone: all runs are measured on the same images.
    """
    train = _open(config, 'train', None)
    if train.counts and not train.counts['objects']:
        raise UserError(f'{train.name}: nothing to train on, none of its {train.counts["annotations"]} annotations is '
                        f'an object of the classes {listed(train.classes)}'
                        + ''.join(f'; {line}' for line in summary(train.issues)[:1]))
    if has_validation(config.data):
        val = open_for_model(config, 'val', {key: getattr(train, key) for key in CLASS_TABLE})
        if not val.annotated:
            raise UserError(f'{val.name}: no annotations, so that nothing can be measured on it; without '
                            'data.val.annotations a part of the training images is held out')
    else:
        train, val = _hold_out(train, config)
    if config.data.subset:
        train = select(train, config.data.subset)
    if config.data.cache:
        train, val = (dataclasses.replace(source, memory=_memory(config, split_name))
                      for source, split_name in ((train, 'train'), (val, 'val')))
    if train.counts:
        _check_objects(train, val)
    return train, val


def _memory(config: ConfigDict, split_name: str) -> dict:
    """Where prepared images are kept. The phantom has no files that may change, so that the runs of an ablation, which
    follow one another in a process, draw its images once."""
    return _phantom_memory(config.data.to_json(), split_name) if config.data.format == 'phantom' else {}


@functools.lru_cache(maxsize=2)     # training and validation images
def _phantom_memory(data: str, split_name: str) -> dict:
    return {}


def open_undivided(config: ConfigDict) -> Source:
    """The training images before a part of them is held out. Raises as `open_sources`."""
    return _open(config, 'train', None)


def _check_objects(train: Source, val: Source) -> None:
    """Raises UserError for training images that are all without objects, after split and subset; warns of validation
    images that are."""
    if not train.object_count:
        raise UserError(f'{train.name}: nothing to train on, none of its {len(train)} images has an object of the '
                        f'classes {listed(train.classes)}')
    if len(val) and not val.object_count:
        logging.warning('%s: none of its %d images has an object: no precision can be measured', val.name, len(val))


def open_for_model(config: ConfigDict, split_name: str, class_table: Mapping[str, Sequence]) -> Source:
    """The 'train' or 'val' images of a config for the model whose `class_table` (with the keys CLASS_TABLE) this is, by
    the names of classes and parts.

    Validation data of their own are opened without the training data, which need not be on this machine. Raises as
    `open_sources`, and UserError if no class of the model is in the data.
    """
    own = has_validation(config.data)
    source = _open(config, split_name if own else 'train', tuple(class_table['classes']))
    if not own:
        source = _hold_out(source, config)[split_name == 'val']
    if split_name == 'train' and config.data.subset:
        source = select(source, config.data.subset)
    return for_model(source, **{key: class_table[key] for key in CLASS_TABLE})


def _open(config: ConfigDict, split_name: str, wanted: tuple[str, ...] | None) -> Source:
    d = config.data
    if d.format not in FORMATS:
        raise UserError(f"data.format: expected one of {sorted(FORMATS)}, got '{d.format}'")
    return FORMATS[d.format](d, split_name, wanted)


def _hold_out(source: Source, config: ConfigDict) -> tuple[Source, Source]:
    d = config.data
    train, val = split(source, by=d.split.by, folds=d.split.folds, hold_out=d.split.hold_out)
    if d.val.max_images:
        val = subset(val, range(min(d.val.max_images, len(val))), name=val.name)
    return train, val


def prepared(source: Source, index: int, data: ConfigDict, *, jitter: float) -> tuple[Example, tuple[int, int]]:
    """(example at `jitter` times the scale of `data`, (height, width) that its annotations refer to), from memory if
    kept there."""
    limits = dict(scale=data.scale, max_size=data.max_size, canvas=tuple(data.canvas), jitter=jitter)
    key = index, *limits.values()
    if source.memory is not None and key in source.memory:
        return source.memory[key]
    example = source.load(index)
    record, (height, width) = source.records[index], example.image.shape[:2]
    size = record.get('height', height), record.get('width', width)
    found = transforms.resize(example, transforms.resized_size(*size, **limits)), size
    if source.memory is not None:
        source.memory[key] = found      # two threads may both have decoded it: harmless, and no lock to wait for
    return found


class _Reader:
    """Prepares examples for training; for an unreadable one stands the next readable position, the same every time.

    The stand-in depends on the files alone, not on what other threads met before, so batches stay pure functions.
    Images come at the largest size that the jitter may ask for: what is in memory is small, and the same without one.
    """

    def __init__(self, source: Source, data: ConfigDict):
        self.source, self.data = source, data
        self.unreadable = set()
        self.lock = threading.Lock()

    def __call__(self, index: int) -> tuple[Example, tuple[int, int]]:
        count = len(self.source)
        for i in range(index, index + count):
            try:
                return prepared(self.source, i % count, self.data, jitter=self.data.scale_jitter[1])
            except UnreadableImage as e:
                self._count(i % count, e)
        raise UserError(f'{self.source.name}: none of the {count} images can be read')

    def _count(self, index: int, error: UnreadableImage):
        with self.lock:
            if index in self.unreadable:
                return
            self.unreadable.add(index)
            bad, count = len(self.unreadable), len(self.source)
        logging.warning('unreadable image %d (of %d), the next one takes its place: %s', bad, count, error)
        if too_many(bad, count, self.data.max_unreadable):
            raise UserError(f'{self.source.name}: {bad} of {count} images are unreadable, more than '
                            f'data.max_unreadable = {self.data.max_unreadable} allows; last: {error}') from error


def train_batches(source: Source, config: ConfigDict, *, batch_size: int, rows: range | None = None,
                  start_step: int = 0, seed: int) -> Iterator[Batch]:
    """Endless batches of `batch_size` from step `start_step` on, read ahead by `config.data.threads` threads. Of each
    only `rows` are read and given, all of them by default.

    Every epoch has its own order, in which images with rare classes come again if `config.data.repeat_threshold` says
    so; a batch may span two epochs. Raises UserError for an empty source, and when more
    than `config.data.max_unreadable` of the images turn out unreadable.
    """
    if not len(source):
        raise UserError(f'{source.name}: no images to train on')
    d = config.data
    canvas = tuple(d.canvas)
    read = _Reader(source, d)
    tables = transforms.flip_tables(source.classes, source.parts, d.flip_pairs)

    def row(index: int, rng: np.random.Generator) -> Batch:
        example, size = read(index)
        view = transforms.augment(
            example, rng, original_size=size, tables=tables, canvas=canvas, scale=d.scale, max_size=d.max_size,
            flip_probability=d.flip, scale_jitter=d.scale_jitter, brightness=d.brightness, contrast=d.contrast,
            gamma=d.gamma, rotation=d.rotation)
        return batching.pad_example(view, canvas=canvas, max_objects=d.max_objects, original_size=size)

    order, noise = np.random.SeedSequence(seed).generate_state(2)
    if d.repeat_threshold:
        images = grain.MapDataset.range(sys.maxsize).map(repeated_order(source, d.repeat_threshold, int(order)))
    else:
        images = grain.MapDataset.range(len(source)).shuffle(seed=int(order)).repeat(EPOCHS)
    samples, rows = images.random_map(row, seed=int(noise)), range(batch_size) if rows is None else rows
    own = grain.MapDataset.range(SAMPLES).map(lambda i: samples[i // len(rows) * batch_size + rows[i % len(rows)]])
    batches = own.batch(len(rows), batch_fn=batching.stack)
    return iter(batches[start_step:].to_iter_dataset(_read_options(config)))


def eval_batches(source: Source, config: ConfigDict, batch_size: int, positions: range | None = None
                 ) -> Iterator[Batch]:
    """Every image (of `positions`, if given) once and in order; the last batch is filled up with rows whose
    `image_valid` is False.

    An unreadable image keeps its row and its `image_index`, with `image_valid` False, and is logged by name.
    """
    d = config.data
    canvas, positions = tuple(d.canvas), range(len(source)) if positions is None else positions

    def row(place: int) -> Batch:
        blank = dict(canvas=canvas, max_objects=d.max_objects, mask_size=d.mask_size, parts=len(source.parts))
        if place >= len(positions):
            return batching.empty_row(0, **blank)
        index = positions[place]
        try:
            example, size = prepared(source, index, d, jitter=1.0)
        except UnreadableImage as e:
            logging.warning('image %s cannot be read: %s', source.records[index]['id'], e)
            return batching.empty_row(index, **blank)
        return batching.pad_example(example, canvas=canvas, max_objects=d.max_objects, original_size=size)

    rows = -(-len(positions) // batch_size) * batch_size
    return iter(grain.MapDataset.range(rows).map(row).batch(batch_size, batch_fn=batching.stack)
                .to_iter_dataset(_read_options(config)))


def _read_options(config: ConfigDict) -> grain.ReadOptions:
    cv2.setNumThreads(1)    # the reader threads work side by side; OpenCV's own would only get in their way
    threads = config.data.threads
    buffered = max(threads, config.data.prefetch) if threads else 0
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffered)
