import pytest

from configs import phantom
from relnet_jax.data import pipeline


@pytest.fixture(scope='module')
def data():
    """(source, config) of two phantom films of 64 pixels."""
    c = phantom.get_config()
    with c.unlocked():
        c.data.canvas, c.data.scale, c.data.max_size, c.data.threads = (64, 64), 64, 64, 0
        c.data.phantom.update(size=64, train_images=1, val_images=2)
    return pipeline.open_sources(c)[1], c
