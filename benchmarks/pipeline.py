"""How fast films are read and prepared for training, by file format: python -m benchmarks.pipeline

Phantom films (synthetic) are written as files of each format, with their findings as polygons and as RLE, and go
through opening, decoding, mask crops, transforms and batching in one thread. Counted is processor time, so that a busy
machine matters less: `per_s` is images per second and core. The parts, in milliseconds an image: `read` (file to
pixels), `masks` (what else `load` does), `rest` (order, resize, augmentation, padding, stacking). Every line is also
appended to benchmarks/results/pipeline.jsonl.
"""
import argparse
import datetime
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pycocotools.mask as rle_tools
import pydicom
from ml_collections import ConfigDict
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

from configs import base
from relnet_jax.data import pipeline
from relnet_jax.data.images import read_image
from relnet_jax.data.phantom.scene import render
from relnet_jax.data.phantom.source import coco_dict
from relnet_jax.data.read_options import read_options

RESULTS = Path(__file__).resolve().parent / 'results' / 'pipeline.jsonl'
PACKAGES = ('grain', 'imagecodecs', 'numpy', 'opencv-python-headless', 'pydicom', 'simplejpeg')


def write_png(path: Path, film: np.ndarray) -> None:
    cv2.imwrite(str(path), film)


def write_jpeg(path: Path, film: np.ndarray) -> None:
    cv2.imwrite(str(path), film, [cv2.IMWRITE_JPEG_QUALITY, 92])


def write_dicom(path: Path, film: np.ndarray, syntax: uid.UID, encode: Callable | None) -> None:
    """12 bits with a window, as computed radiography comes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = '1.2.3'
    ds = FileDataset('', {}, file_meta=meta, preamble=b'\0' * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = uid.ComputedRadiographyImageStorage, '1.2.3'
    ds.Rows, ds.Columns = film.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, 'MONOCHROME1', 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    noise = np.random.default_rng(0).integers(0, 16, film.shape)
    codes = (4095 - film.astype(np.int64) * 16 - noise).astype(np.uint16)
    ds.PixelData = encapsulate([bytes(encode(codes))]) if encode else codes.tobytes()
    ds['PixelData'].VR = 'OB' if encode else 'OW'
    pydicom.dcmwrite(path, ds)


def run_lengths(codes: np.ndarray) -> bytes:
    """DICOM's RLE: the high bytes, then the low ones, as PackBits by rows."""
    parts = [b''.join(imagecodecs.packbits_encode(row.tobytes()) for row in byte)
             for byte in ((codes >> 8).astype(np.uint8), codes.astype(np.uint8))]
    parts = [part + bytes(len(part) % 2) for part in parts]
    return np.array([2, 64, 64 + len(parts[0])] + [0] * 13, '<u4').tobytes() + b''.join(parts)


def lossless_jpeg(codes: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(codes, lossless=True, predictor=1, bitspersample=16)


def jpeg_2000(codes: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(codes, codecformat='j2k', reversible=True, level=0)


FORMATS = {
    'png': ('png', write_png),
    'png_16': ('png', lambda path, film: write_png(path, film.astype(np.uint16) * 16)),
    'jpeg': ('jpg', write_jpeg),
    'dicom': ('dcm', lambda path, film: write_dicom(path, film, uid.ExplicitVRLittleEndian, None)),
    'dicom_rle': ('dcm', lambda path, film: write_dicom(path, film, uid.RLELossless, run_lengths)),
    'dicom_jpeg_lossless': ('dcm', lambda path, film: write_dicom(path, film, uid.JPEGLosslessSV1, lossless_jpeg)),
    'dicom_jpeg_ls': ('dcm', lambda path, film: write_dicom(path, film, uid.JPEGLSLossless, imagecodecs.jpegls_encode)),
    'dicom_jpeg_2000': ('dcm', lambda path, film: write_dicom(path, film, uid.JPEG2000Lossless, jpeg_2000))}


def write_films(folder: Path, name: str, films: list[np.ndarray]) -> None:
    """The first phantom films in one format, and their annotations as polygons.json and rle.json."""
    suffix, write = FORMATS[name]
    size = len(films[0])
    document = coco_dict(0, list(range(len(films))), size=size)
    for record, film in zip(document['images'], films, strict=True):
        record['file_name'] = f'{record["id"]}.{suffix}'
        write(folder / record['file_name'], film)
    (folder / 'polygons.json').write_text(json.dumps(document))
    for annotation in document['annotations']:
        rle = rle_tools.merge(rle_tools.frPyObjects(annotation['segmentation'], size, size))
        annotation['segmentation'] = rle | dict(counts=rle['counts'].decode())
    (folder / 'rle.json').write_text(json.dumps(document))


def make_config(folder: Path, masks: str, size: int) -> ConfigDict:
    """Training at `size` px with every augmentation on, in the thread that asks."""
    config = base.get_config()
    with config.unlocked():
        d = config.data
        for files in (d.train, d.val):
            files.annotations, files.images = str(folder / f'{masks}.json'), str(folder)
        d.canvas, d.scale, d.max_size, d.threads = (size, size), size, size, 0
        d.scale_jitter, d.brightness, d.contrast, d.gamma = (0.8, 1.0), 0.1, 0.1, 0.1
    return config


def cpu_ms(work: Callable[[int], object], count: int, rounds: int) -> float:
    """Shortest processor milliseconds of `work(i)` per i in range(count), of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for i in range(count):
            work(i)
        times.append(time.process_time() - start)
    return min(times) / count * 1000


def measure(name: str, masks: str, films: list[np.ndarray], *, rounds: int) -> dict:
    count, size = len(films), len(films[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_films(folder, name, films)
        config = make_config(folder, masks, size)
        start = time.process_time()
        source, _ = pipeline.open_sources(config)
        opened = (time.process_time() - start) / 2 / count * 1000
        batches = pipeline.train_batches(source, config, batch_size=2, seed=0)
        options = read_options(config.data)
        next(batches)
        whole = cpu_ms(lambda _: next(batches), count // 2, rounds) / 2
        load = cpu_ms(source.load, count, rounds)
        read = cpu_ms(lambda i: read_image(source.image_path(i), options), count, rounds)
        objects = len(source.ground_truth()['annotations']) / count
        kilobytes = sum(source.image_path(i).stat().st_size for i in range(count)) / count / 1024
    return dict(format=name, masks=masks, size=size, per_s=round(1000 / whole, 1), whole_ms=round(whole, 2),
                read_ms=round(read, 2), masks_ms=round(load - read, 2), rest_ms=round(whole - load, 2),
                open_ms=round(opened, 2), kilobytes=round(kilobytes), objects=round(objects, 1), images=count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--formats', default=','.join(FORMATS), help='some of the default: %(default)s')
    parser.add_argument('--size', type=int, default=1024, help='side of the films and of the canvas, in pixels')
    parser.add_argument('--images', type=int, default=40)
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    about = dict(machine=f'{platform.machine()}, {cv2.getNumberOfCPUs()} cores', python=platform.python_version(),
                 versions={name: importlib.metadata.version(name) for name in PACKAGES},
                 date=datetime.date.today().isoformat(),
                 command=' '.join(['python -m benchmarks.pipeline', *sys.argv[1:]]))
    RESULTS.parent.mkdir(exist_ok=True)
    films = [render(0, index, ambiguity=0.5, size=options.size)[0] for index in range(options.images)]
    for name in options.formats.split(','):
        for masks in ('polygons', 'rle'):
            found = measure(name, masks, films, rounds=options.rounds)
            print(json.dumps(found), flush=True)
            with RESULTS.open('a') as file:
                file.write(json.dumps(found | about) + '\n')


if __name__ == '__main__':
    main()
