"""A 12-bit film, and the grey levels that DICOM files should have by pydicom's own pipeline."""
import numpy as np
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder

from configs import base
from relnet_jax.data.images import image_size, read_image
from relnet_jax.data.read_options import ReadOptions, read_options

RNG = np.random.default_rng(0)
FILM = (np.add.outer(np.arange(48), np.arange(64)) * 30 + RNG.integers(0, 300, (48, 64))).astype(np.uint16)  # 12 bits


def grey(path, **options) -> np.ndarray:
    image = read_image(path, ReadOptions(**options))
    assert image.dtype == np.uint8 and image.shape == (*image_size(path), 3)
    np.testing.assert_array_equal(image, image[:, :, :1].repeat(3, axis=2))
    return image[:, :, 0]


def assert_rounded(found: np.ndarray, exact: np.ndarray):
    """Every level is a nearest whole number: halves may go either way."""
    assert found.shape == exact.shape and np.abs(found - exact).max() <= 0.5 + 1e-6


def by_pydicom(ds, *, plugin: str = '') -> np.ndarray:
    """float [h, w] in 0..255 by pydicom's decoders and look-ups, for files with a window or VOI LUT."""
    stored, _ = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, decoding_plugin=plugin)
    shown = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(float)
    bits, signed = ds.BitsStored, ds.PixelRepresentation
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if 'ModalityLUTSequence' in ds:
        low, high = 0, (1 << ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    if 'VOILUTSequence' in ds:
        low, high = 0, (1 << ds.VOILUTSequence[0].LUTDescriptor[2]) - 1
    else:
        slope, intercept = float(ds.get('RescaleSlope', 1)), float(ds.get('RescaleIntercept', 0))
        low, high = low * slope + intercept, high * slope + intercept
    shown = (shown - low) / (high - low) * 255
    return 255 - shown if ds.PhotometricInterpretation == 'MONOCHROME1' else shown


def options_with(file) -> ReadOptions:
    config = base.get_config()
    config.data.dicom_overrides = str(file)
    return read_options(config.data)
