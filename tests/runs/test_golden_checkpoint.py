"""tests/golden/checkpoint, written when manifests came (format 1): later versions must read it, as all of their format.

Written by `python -c "from tests.runs.test_golden_checkpoint import write; write()"`. A new one is written beside it,
not in its place, when the format changes.
"""
import shutil
import tempfile
import zlib

import jax
import numpy as np
import pytest

from relnet_jax.data import pipeline
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import checkpoint, resume, state, step_folder
from relnet_jax.runs.fingerprint import fingerprint
from relnet_jax.runs.state import TrainState
from relnet_jax.training import optimizer
from relnet_jax.trees import path_name
from tests.conftest import GOLDEN
from tests.tiny_run import tiny_config

RUN = GOLDEN / 'checkpoint'
TABLE = dict(classes=('mass', 'nodule'), category_ids=(3, 7), parts=('Left Lung', 'Right Lung'))
WINDOW = [dict(loss=0.75, lr=0.125)]
SCORES = dict(box_AP50=0.25, mask_AP50=float('nan'))


def numbers(tree, salt):
    """A tree of that structure whose every number follows from its path, so that none need be stored a second time."""
    def leaf(path, x):
        start = zlib.crc32(f'{salt}/{path_name(path)}'.encode())
        return (((start + np.arange(x.size)) % 7 - 3) / 64).reshape(x.shape).astype(x.dtype)
    return jax.tree_util.tree_map_with_path(leaf, tree)


def template_of(config):
    model = mask_rcnn.build(config, num_classes=len(TABLE['classes']) + 1)
    shapes = state.batch_shapes(config, 1, len(TABLE['parts']))
    tx = optimizer.make_optimizer(config, state.abstract_params(model, shapes))
    return state.abstract_state(model, tx, config, shapes)


def expected(template):
    return TrainState(np.int32(7), np.uint32(5), numbers(template.params, 'params'),
                      numbers(template.opt_state, 'optimizer'), numbers(template.ema, 'ema'))


def write():
    config = tiny_config()
    with config.unlocked():
        config.model.update(fpn_channels=8, box_head_dim=8, mask_channels=4)
        config.test.boxes, config.name = 11, 'golden'
    shutil.rmtree(RUN, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:       # Orbax notes down where it wrote
        with checkpoint.make_manager(folder, keep=1, best='box_AP50') as manager:
            checkpoint.save(manager, expected(template_of(config)), config=config, class_table=TABLE, metrics=SCORES,
                            loss=0.5, data=fingerprint(config, *pipeline.open_sources(config)), window=WINDOW)
        shutil.copytree(folder, RUN)


@pytest.fixture
def run(tmp_path):
    """A copy: reading must not need the original's place."""
    shutil.copytree(RUN, tmp_path / 'run')
    return tmp_path / 'run'


def test_it_is_small():
    assert sum(path.stat().st_size for path in RUN.rglob('*') if path.is_file()) < 200_000


def test_the_detector_is_read_number_for_number(run):
    config = checkpoint.read_config(run)
    assert (config.name, config.test.boxes, config.model.fpn_channels) == ('golden', 11, 8)
    assert checkpoint.read_class_table(run) == TABLE
    template = template_of(config)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load_params(run, template.params),
                 numbers(template.params, 'ema'))
    assert checkpoint.find(run / 'best') == run / 'checkpoints' / '7' and step_folder.sealed(run / 'checkpoints' / '7')


def test_a_run_goes_on_from_it(run):
    template = template_of(checkpoint.read_config(run))
    step_folder.set_aside_damaged(run)
    restored, want = checkpoint.restore_latest(run, template), expected(template)
    assert jax.tree.structure(restored) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, restored, want)
    assert step_folder.read_json(run / 'checkpoints' / '7', 'metrics') == dict(
        box_AP50=0.25, mask_AP50=None, train_loss=0.5, lowest_loss=0.5)
    config = checkpoint.read_config(run)
    assert resume.check(run, config, TABLE, fingerprint(config, *pipeline.open_sources(config))) == WINDOW
    with checkpoint.make_manager(run, keep=1, best='box_AP50') as manager:
        checkpoint.save(manager, want._replace(step=np.int32(8)), config=config, class_table=TABLE)
    assert checkpoint.steps(run) == [7, 8]      # the best, and the last
