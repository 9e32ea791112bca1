"""train.py or eval.py with the stand-in model, as one process of several: python -m tests.training.worker train ...

With COUNTED=FILE it writes there how many images of each data set it decoded.
"""
import atexit
import dataclasses
import json
import os
import sys
from collections import Counter

from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from tests.training import standin
from tests.training.conftest import loop_config


def get_config():
    """What --config=tests/training/worker.py gives; nothing is read ahead, so that what is decoded can be counted."""
    config = loop_config()
    config.data.threads, config.data.phantom.val_images = 0, 5
    return config


def count_decoded(counts: Counter) -> None:
    real = pipeline.open_sources

    def counting(source, name):
        def load(i):
            counts[name] += 1
            return source.load(i)
        return dataclasses.replace(source, load=load)
    pipeline.open_sources = lambda config: tuple(map(counting, real(config), ('train', 'val')))


if __name__ == '__main__':
    mask_rcnn.build = standin.build
    if path := os.environ.get('COUNTED'):
        counts = Counter()
        count_decoded(counts)
        atexit.register(lambda: open(path, 'w').write(json.dumps(counts)))
    command = sys.argv.pop(1)
    module = __import__(f'relnet_jax.{command}', fromlist=['main'])
    sys.exit(module.main())
