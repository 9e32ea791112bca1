"""Functional Mask R-CNN with FPN and relation modules for chest radiographs, in JAX/Flax.

The way of an image: file -> `Example` (original pixels) -> transforms -> `Batch` (fixed shapes) -> detector -> losses,
or padded `Detections` -> original-image coordinates -> evaluation or prediction files.

Contracts, written once and used everywhere:

* Shape letters: B images, N RoIs, R proposals, S sampled RoIs, D detections, G padded ground truths, A anchors, L
  pyramid levels, K classes with background 0, P anatomical parts, M side of a mask crop, H x W canvas, h x w true
  image.
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

__version__ = "0.1.0"
