"""`Detector`: a checkpoint with which to look at films.

    from relnet_jax import Detector
    detector = Detector.load('runs/mine')
    found = detector('film.dcm')
    found.boxes, found.scores, found.names, found.masks
    found.plot()
"""
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from relnet_jax.data import familiarity
from relnet_jax.data.images import SUFFIXES, UnreadableImage
from relnet_jax.data.read_options import read_options
from relnet_jax.detector.found import Found
from relnet_jax.detector.inputs import KINDS, files_in, image_source, read_item
from relnet_jax.detector.relation_weights import Observation, make_observer
from relnet_jax.detector.run import build_model, detect_batches, load_detector, rows_of
from relnet_jax.errors import UserError
from relnet_jax.models.relations import chosen, needs
from relnet_jax.runs import checkpoint, operating_points, startup
from relnet_jax.runs.operating_points import OperatingPoints
from relnet_jax.types import Batch

SCORE = 0.3     # weaker findings are not shown, where neither the caller nor the checkpoint says otherwise
PHANTOM_CAPTION = 'Trained on PHANTOM images (synthetic): says nothing about a patient'


class Detector:
    """A detector's parameters, classes and config; called with images it says what it finds in them."""

    def __init__(self, detect: Callable, params: Any, class_table: Mapping, config: ConfigDict, *,
                 films: Mapping | None = None, points: OperatingPoints | None = None, name: str = ''):
        """`detect`, `params` as of `run.load_detector`; `class_table`, `films` as of `checkpoint.read_class_table` and
        `read_films`; `points` as of `operating_points.read`; `name`: of the checkpoint. See `load`."""
        self.class_table, self.config, self.params, self.points, self.name = class_table, config, params, points, name
        self.names, self.category_ids = tuple(class_table['classes']), tuple(class_table['category_ids'])
        self.synthetic = config.data.format == 'phantom'
        self.caption = PHANTOM_CAPTION if self.synthetic else ''
        self._detect, self._films, self._options = detect, films, read_options(config.data)
        self._shapes = set()    # numbers of rows that were compiled

    @classmethod
    def load(cls, ckpt: str | Path, *, config: ConfigDict | None = None) -> 'Detector':
        """The detector of a checkpoint: a run's folder, its checkpoints folder, a step folder, or RUN/best.

        config: in place of the checkpoint's own (`checkpoint.read_config`, `config.with_overrides`). Raises
        CheckpointError, saying what is there instead.
        """
        startup.quiet_libraries()
        startup.use_compilation_cache()
        folder = checkpoint.find(ckpt)
        config = checkpoint.read_config(folder) if config is None else config
        class_table = checkpoint.read_class_table(folder)
        if config.model.parts == 'given' and 'parts' in needs(chosen(config.model)):
            logging.warning('%s: its relations look at given anatomical parts, and say nothing of a film without (with '
                            'model.anatomy_head and model.parts a detector finds its own)', folder)
        detect, params = load_detector(folder, config, class_table)
        return cls(detect, params, class_table, config, films=checkpoint.read_films(folder),
                   points=operating_points.read(folder), name=f'{folder.parent.parent.name}, step {folder.name}')

    def __repr__(self) -> str:
        return f'Detector({self.name}: {", ".join(self.names)})'

    def __call__(self, images: Any, *, score: float | None = None, parts: Any = None
                 ) -> Found | list[Found] | Iterator[Found]:
        """`Found` of one image, a list of them for a list, an iterator over them for a folder with its subfolders.

        An image is a file (any that docs/images.md names) or an array as `inputs.KINDS` says. In a folder or a list one
        that cannot be read has a `problem` and no findings, and is logged. score: the lowest score of a finding;
        without it the checkpoint's operating points count, if it has any, else SCORE. parts: where anatomical parts are
        known, {name: (x1, y1, x2, y2)} for an image, a list of these for a list.

        Raises UnreadableImage for a single file, UserError for an array of another kind and a folder without images.
        """
        if isinstance(images, (str, os.PathLike)):
            path = Path(images).expanduser()
            if not path.is_dir():
                return self._one(path, score, parts)
            if not (files := files_in(path)):
                raise UserError(f'{path}: no images ({", ".join(SUFFIXES)}) in this folder')
            return self.stream(files, score=score)
        if hasattr(images, '__array__') or hasattr(images, '__array_interface__'):
            return self._one(images, score, parts)
        if not isinstance(images, Iterable):
            raise UserError(f'expected a file, a folder, {KINDS}, or a list of them, got {type(images).__name__}')
        images = list(images)
        if parts is not None and len(parts) != len(images):
            raise UserError(f'parts: expected one for each of {len(images)} images, got {len(parts)}')
        return list(self.stream(images, score=score, parts=parts or ()))

    def _one(self, item: Any, score: float | None, parts: Mapping | None) -> Found:
        found, = self.stream([item], score=score, parts=[parts])
        if found.problem:
            raise UnreadableImage(item, found.problem.removeprefix(f'{item}: '))
        return found

    def stream(self, items: Sequence[Any], *, score: float | None = None, batch_size: int = 0,
               parts: Sequence[Mapping | None] = ()) -> Iterator[Found]:
        """`Found` of each file or array in their order; few are in memory at a time.

        batch_size: images that each device computes at once; 0 = config.test.batch_size, or one by one where there are
        fewer, so that few shapes are ever compiled.
        """
        if not items:
            return
        batch_size = batch_size or self.batch_size(len(items))
        if (rows := rows_of(len(items), batch_size)) not in self._shapes:
            self._shapes.add(rows)
            startup.log_compilation('the detector')
        if score is not None and score < self.config.test.score_threshold:
            logging.warning('score %g: no detection below config.test.score_threshold = %g is kept', score,
                            self.config.test.score_threshold)
        about: dict[int, dict] = {}
        source = image_source(items, self.class_table, self.config, about, parts=parts)
        done = 0
        for batch, results in detect_batches(self._detect, self.params, source, self.config, batch_size=batch_size,
                                             lowest=self.lowest(score)):
            for row in range(min(len(batch.image), len(items) - done)):
                records = [r for r in results if r['image_id'] == done + 1]
                yield self._found(items[done], batch, row, records, about.pop(done), parts[done] if parts else None)
                done += 1

    def batch_size(self, count: int) -> int:
        """How many of `count` images each device computes at once."""
        return self.config.test.batch_size if count >= self.config.test.batch_size else 1

    def lowest(self, score: float | None) -> np.ndarray:
        """float64 [K - 1] the lowest score of a finding for each class, see `__call__`."""
        if score is None and self.points:
            return self._thresholds
        return np.full(len(self.names), SCORE if score is None else score)

    @functools.cached_property
    def _thresholds(self) -> np.ndarray:
        lowest = {name: self.points.thresholds.get(name, SCORE) for name in self.names}
        logging.info("lowest scores, from the checkpoint's operating points (%g false positives of a class per film of "
                     '%s): %s', self.points.fp_per_film, self.points.data_set,
                     ', '.join(f'{name} {score:.2f}' for name, score in lowest.items()))
        return np.array([*lowest.values()])

    def read(self, item: Any) -> np.ndarray:
        """uint8 [h, w, 3] of a file or array, as the detector is shown it, in its own resolution."""
        return read_item(item, self._options)[0]

    @functools.cached_property
    def _observer(self) -> Callable:
        return make_observer(build_model(self.config, self.class_table), self.config)

    def observe(self, item: Any, parts: Mapping | None = None) -> Observation:
        """What the relations were given and what they weighed in a file or array."""
        source = image_source([item], self.class_table, self.config, {}, parts=[parts])
        return self._observer(self.params, source, 0)

    def _found(self, item: Any, batch: Batch, row: int, records: list[dict], about: dict, parts: Mapping | None
               ) -> Found:
        file = os.fspath(item) if isinstance(item, (str, os.PathLike)) else ''
        distance, size, problem = None, (0, 0), about.get('problem', '')
        if not problem:
            height, width = batch.image_size[row].astype(int)
            size = tuple(int(side) for side in batch.original_size[row])
            if self._films:
                distance = familiarity.distance(batch.image[row, :height, :width], self._films)
                if distance > 1:
                    logging.warning('%s: unlike the films that this detector was trained on (%.1f times the limit)',
                                    file or 'an array', distance)
        boxes = np.array([r['bbox'] for r in records], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([self.category_ids.index(r['category_id']) + 1 for r in records], np.int32)
        masks = self.config.model.mask_head
        return Found(file=file, size=size, boxes=boxes.astype(np.float32),
                     scores=np.array([r['score'] for r in records], np.float32), labels=labels,
                     names=tuple(self.names[label - 1] for label in labels),
                     segmentations=tuple(r['segmentation'] for r in records) if masks else None, distance=distance,
                     about=about, problem=problem, detector=self, item=item, parts=parts)
