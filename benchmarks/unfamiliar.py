"""How well films of another kind are told (data/familiarity.py): python -m benchmarks.unfamiliar --data=FOLDER

FOLDER holds the sets of real images named in `SETS`, each with images in a folder. Of every second film of a set (or of
several) the statistic is made, as training makes it; the table says what share of the other films, of changed copies of
these, and of pictures of another kind are called unfamiliar. Prints Markdown.
"""
import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from configs import phantom
from relnet_jax.data import familiarity, pipeline
from relnet_jax.data.images import UnreadableImage, read_image

SIDE = 512      # the longer one of what is looked at
SETS = dict(jsrt='jsrt/images', gb100='cxr_gb100/images', nih='cxr_nih_mass50/images', coco='coco_ccby/images',
            nuclei='dsb2018_nuclei/images', dicom='dicom_samples')
NO_CHEST = ('RG3_J2KI.dcm', 'mlut_18.dcm', 'vlut_04.dcm')       # a leg, and two test patterns
TRAINED = (('jsrt',), ('gb100',), ('nih',), ('jsrt', 'gb100', 'nih'), ('phantom',))
CHANGES: dict[str, Callable] = {
    'the other films of its sets': lambda film: film, 'the same, mirrored': lambda film: film[:, ::-1],
    'inverted': lambda film: 255 - film, 'upside down': lambda film: film[::-1],
    'turned by 90 degrees': np.rot90, 'left half alone': lambda film: film[:, :film.shape[1] // 2]}


def small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    factor = SIDE / max(height, width)
    return cv2.resize(image, (round(width * factor), round(height * factor)),
                      interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def read_set(folder: Path) -> list[np.ndarray]:
    images = []
    for path in sorted(folder.iterdir()):
        try:
            images.append((path.name, small(read_image(path))))
        except UnreadableImage:     # a licence text beside the films
            continue
    return images


def read_phantom(count: int = 200) -> list[np.ndarray]:
    source, _ = pipeline.open_sources(phantom.get_config())
    return [('', source.load(i).image) for i in range(count)]


def table(sets: dict[str, list]) -> list[str]:
    """Rows of Markdown: for each kind of picture the share that is unfamiliar, by what was trained on."""
    halves = {name: [film for _, film in sets[name]] for names in TRAINED for name in names}
    known = {names: familiarity.measure(np.array([familiarity.look(film) for name in names
                                                  for film in halves[name][::2]])) for names in TRAINED}
    others = {'COCO photographs': [image for _, image in sets['coco']],
              'microscopy of nuclei': [image for _, image in sets['nuclei']],
              'a leg and two test patterns (DICOM)': [image for name, image in sets['dicom'] if name in NO_CHEST],
              'two chest films of other archives (DICOM)': [i for name, i in sets['dicom'] if name not in NO_CHEST]}

    def share(images: list, names: tuple) -> str:
        odd = [familiarity.distance(np.ascontiguousarray(image), known[names]) > 1 for image in images]
        return f'{sum(odd)} of {len(odd)}'

    rows = [['', *(' + '.join(names) for names in TRAINED)],
            ['films that it was made of', *(str(sum(len(halves[n][::2]) for n in names)) for names in TRAINED)]]
    for title, change in CHANGES.items():
        rows.append([title, *(share([change(film) for name in names for film in halves[name][1::2]], names)
                              for names in TRAINED)])
    for name in ('jsrt', 'gb100', 'nih'):
        rows.append([f'all films of {name}', *('' if name in names else share(halves[name], names)
                                               for names in TRAINED)])
    rows += [[title, *(share(images, names) for names in TRAINED)] for title, images in others.items()]
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    return [lines[0], '|' + '---|' * len(rows[0]), *lines[1:]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', required=True, type=Path, help='folder of the real images')
    options = parser.parse_args(argv)
    sets = {name: read_set(options.data / folder) for name, folder in SETS.items()} | dict(phantom=read_phantom())
    print('\n'.join(table(sets)))


if __name__ == '__main__':
    main()
