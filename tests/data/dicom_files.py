"""DICOM files made for tests."""
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate


def _lossless(pixels: np.ndarray, predictor: int) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor,
                                    bitspersample=8 * pixels.dtype.itemsize)


ENCODERS = {
    uid.JPEGBaseline8Bit: lambda a: imagecodecs.jpeg8_encode(a, level=95),
    uid.JPEGExtended12Bit: lambda a: imagecodecs.jpeg8_encode(a, level=95, bitspersample=12),
    uid.JPEGLossless: lambda a: _lossless(a, 4),
    uid.JPEGLosslessSV1: lambda a: _lossless(a, 1),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(a, codecformat='j2k', reversible=True, level=0),
    uid.HTJ2KLossless: lambda a: imagecodecs.htj2k_encode(a, reversible=True)}


def dicom(pixels: np.ndarray | None, *, syntax: uid.UID = uid.ExplicitVRLittleEndian, stream: bytes = b'',
          **elements) -> FileDataset:
    """A secondary capture of `pixels` [h, w], 8 or 16 bits. `elements` by keyword replace its own; None leaves one out.

    With `stream` these bytes are the compressed picture, whatever the pixels are.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = '1.2.3'
    ds = FileDataset('', {}, file_meta=meta, preamble=b'\0' * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = uid.SecondaryCaptureImageStorage, '1.2.3'
    if pixels is not None:
        bits = 8 * pixels.dtype.itemsize
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 'MONOCHROME2'
        ds.BitsAllocated = ds.BitsStored = bits
        ds.HighBit, ds.PixelRepresentation = bits - 1, int(pixels.dtype.kind == 'i')
    for keyword, value in elements.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    if 'BitsStored' in elements and 'HighBit' not in elements:
        ds.HighBit = ds.BitsStored - 1
    if pixels is None or 'PixelData' in elements:
        return ds
    if stream or syntax in ENCODERS:
        ds.PixelData = encapsulate([stream or bytes(ENCODERS[syntax](pixels))])
    elif syntax == uid.RLELossless:
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        ds.PixelData = pixels.tobytes()
        ds['PixelData'].VR = 'OW'
        ds.compress(uid.RLELossless, encoding_plugin='pydicom', generate_instance_uid=False)
    else:
        ds.PixelData = pixels.astype(pixels.dtype.newbyteorder('<' if syntax.is_little_endian else '>')).tobytes()
    ds['PixelData'].VR = 'OB' if ds.BitsAllocated == 8 or syntax.is_encapsulated else 'OW'
    return ds


def write_dicom(path: Path, pixels: np.ndarray | None, **elements) -> Path:
    """`dicom` as a file."""
    ds = dicom(pixels, **elements)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def lut(entries: np.ndarray, first: int, bits: int) -> Dataset:
    """An item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new('LUTDescriptor', 'SS' if first < 0 else 'US', [len(entries) % 65536, first, bits])
    item.add_new('LUTData', 'OW', entries.astype('<u2').tobytes())
    return item
