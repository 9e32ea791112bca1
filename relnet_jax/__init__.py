"""Functional Mask R-CNN with FPN and relation modules for chest radiographs, in JAX/Flax.

The way of an image: file -> `Example` (original pixels) -> transforms -> `Batch` (fixed shapes) -> detector -> losses,
or padded `Detections` -> original-image coordinates -> evaluation or prediction files.

Contracts, written once and used everywhere:

* Shape letters. Of an image: B images, H x W rows and columns of a canvas or a map (H_l x W_l of level l), h x w of the
  true image, C channels of a map. Of its boxes: N boxes, RoIs as a rule, of which R are proposals, S sampled RoIs and D
  detections; Q boxes that the N are compared with or look at; G padded ground truths, n objects of one example; A
  anchors (A_l of level l), L pyramid levels, P anatomical parts. Of their contents: K classes with background 0, J
  those that take part in a class graph, F width of RoI features, E width of a relation's result, T cells a side of a
  pooled RoI, M of a ground truth's mask crop, m of a predicted one. `in` and `out` are the widths of a layer. Formulas
  keep the symbols of their papers.
* Boxes are `xyxy`, float32, continuous pixel coordinates of the array at hand (width = x2 - x1).
* `valid` masks are explicit booleans; -1 or zero rows are never a signal. What an invalid row holds is finite and
  unspecified, and changes no valid output.
* Images are NHWC; RGB; uint8 until the model normalises them. `image_size` is (height, width), float32, of the true
  image, which lies top-left on the canvas.
* Labels are int32, 0 = background, classes from 1 in the order of the data set's class table.
* Masks travel as box-aligned crops [M, M]: cell (i, j) covers the share (i..i+1)/M, (j..j+1)/M of its box; uint8 ground
  truth holds coverage 0..255, predictions are probabilities.
* Traced code has static shapes and no Python loop over images. Random choices are a function of per-image PRNG keys
  [B], so that the same key gives the same sample on any number of devices.
"""
import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ['Detector', '__version__']


def __getattr__(name: str) -> Any:
    """`Detector`, which brings JAX along, once it is asked for: `import relnet_jax` alone is quick."""
    if name == 'Detector':
        return importlib.import_module('relnet_jax.detector.detector').Detector
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
