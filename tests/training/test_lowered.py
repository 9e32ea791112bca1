"""What an accelerator is given, read from the programs lowered for CUDA; no such machine is needed.

Eleven images a batch, so that an axis that is a multiple of eleven counts images, RoIs or cells, and is none of a
kernel.
"""
import functools
from collections import Counter
from math import prod

import jax
import numpy as np
import pytest

from relnet_jax import config as config_lib
from relnet_jax.models.mask_rcnn import build
from relnet_jax.ops import nms
from relnet_jax.runs import state
from relnet_jax.training import optimizer, parallel
from relnet_jax.training.step import make_train_step
from tests.stablehlo import donated, read_ops

BATCH, CANVAS, CLASSES, PARTS = 11, (256, 192), 14, 6
RELATIONS = ('class', 'region', 'class_region', 'gaussian_mixture', 'part', 'context', 'lung_feature',
             'object_attention', 'object_position')
DETECTORS = {
    'resnet50': {},
    'c4': dict(backbone='tiny', norm='group_norm', frozen_stages=0, neck='c4',
               anchor_sizes=((16, 32, 64, 128, 256, 512),)),
    'convnext': dict(backbone='convnext_tiny', norm='layer_norm', frozen_stages=0),
    'relations': dict(backbone='tiny', relations=RELATIONS, anatomy_head=True)}


class Programs:
    """The training step and inference of a detector in bfloat16, traced once, lowered for a platform or several."""

    def __init__(self, changes):
        c = config_lib.load('configs/base.py')
        with c.unlocked():
            c.model.update(dict(dtype='bfloat16') | changes)
            c.data.canvas = CANVAS
            c.train.batch_size, c.train.ema, c.train.clip_norm = BATCH, 0.99, 1.0
            if c.model.backbone != 'resnet50':
                c.train.pre_nms = c.test.pre_nms = c.train.proposals = c.test.boxes = 300    # two blocks of NMS
        shapes = state.batch_shapes(c, BATCH, PARTS)
        model = build(c, CLASSES, adjacency=np.ones((CLASSES, CLASSES)))
        params = state.abstract_params(model, shapes)
        tx = optimizer.make_optimizer(c, params)
        self.state = jax.eval_shape(lambda params: state.start(params, tx, seed=0, ema=True), params)
        step = parallel.parallel_step(make_train_step(model, tx, c), parallel.make_mesh(jax.devices()[:1]),
                                      parallel='shard_map')
        detect = jax.jit(lambda params, *inputs: model.apply({'params': params}, *inputs))
        self.traced = dict(train=step.trace(self.state, shapes),
                           detect=detect.trace(params, shapes.image, shapes.image_size, shapes.part_boxes,
                                               shapes.part_valid))
        self.lowered = {}

    def lower(self, kind, *platforms):
        key = kind, platforms or ('cuda',)
        if key not in self.lowered:
            self.lowered[key] = self.traced[kind].lower(lowering_platforms=key[1])
        return self.lowered[key]


@pytest.fixture(scope='module')
def programs():
    return functools.cache(lambda name: Programs(DETECTORS[name]))


each = pytest.mark.parametrize('name', DETECTORS)
kinds = pytest.mark.parametrize('kind', ['train', 'detect'])


def counts_images(axis):
    return axis % BATCH == 0


@each
@kinds
def test_products_are_of_bfloat16_but_those_of_boxes_and_class_tables(programs, name, kind):
    products = read_ops(programs(name).lower(kind), 'dot_general', 'convolution')
    wide = [op for op in products if any(t.dtype != 'bf16' for t in op.operands)]

    def of_mask_targets(op):    # a ground truth's 112 rows, as the rows of a RoI's grid see them
        return all(112 in t.shape for t in op.operands)

    def of_a_class_table(op):   # its relations to the others, or the image's wish for each
        return any(axis in t.shape for t in op.operands for axis in (CLASSES, CLASSES - 1))

    def of_geometry(op):        # two offsets of a pair of boxes, or their embedding in 64
        return any(t.shape[-1] in (2, 64) and len(t.shape) == 4 for t in op.operands)

    excused = (of_mask_targets, of_a_class_table, of_geometry) if name == 'relations' else (of_mask_targets,)
    assert len(products) > 20 and not [op for op in wide if not any(excuse(op) for excuse in excused)]
    assert not [op for op in wide if op.name == 'stablehlo.convolution']
    assert sum(map(of_mask_targets, wide)) == (2 if kind == 'train' else 0)


@pytest.mark.parametrize('name', [name for name in DETECTORS if name != 'relations'])
@kinds
def test_no_feature_map_is_transposed(programs, name, kind):
    """Of what counts images or RoIs only the picture's three channels, boxes and mask logits change their order."""
    moved = [op.operands[0] for op in read_ops(programs(name).lower(kind), 'transpose')]
    assert not [t for t in moved if len(t.shape) > 3 and counts_images(t.shape[0]) and t.shape[-1] > 4]


@pytest.mark.parametrize('kind, boxes, masks', [('train', 512, 128), ('detect', 1000, 100)])
def test_roi_align_gathers_once_from_the_whole_pyramid(programs, kind, boxes, masks):
    cells = BATCH * sum(CANVAS[0] // stride * (CANVAS[1] // stride) for stride in (4, 8, 16, 32))
    gathers = read_ops(programs('resnet50').lower(kind), 'gather')
    of_rois = Counter((op.operands[0].shape, op.results[0].shape) for op in gathers if len(op.results[0].shape) == 5)
    assert of_rois == {((cells, 256), (BATCH, boxes, 7, 7, 256)): 16, ((cells, 256), (BATCH, masks, 14, 14, 256)): 16}


@each
@kinds
def test_loops_are_those_of_nms_blocks_alone(programs, name, kind):
    """They carry what of a block is kept and what strikes out what, and end after as many rounds as it has boxes."""
    loops = read_ops(programs(name).lower(kind), 'while')
    assert len(loops) >= 2
    for loop in loops:
        assert {t.dtype for t in loop.operands} == {'i1'}
        assert max(t.shape[-1] for t in loop.operands if t.shape) <= nms.BLOCK
    assert len(read_ops(programs(name).lower(kind, 'cpu'), 'while')) > len(loops)


@each
@kinds
def test_no_convolution_is_a_matrix_product(programs, name, kind):
    """As they are on CPU: there products have a row for each cell of a map."""
    def of_maps(*platforms):
        smallest = CANVAS[0] // 32 * (CANVAS[1] // 32)      # cells of the coarsest map that layers of 1x1 work on
        maps = {BATCH * smallest * 4 ** i for i in range(4)}
        return [t for op in read_ops(programs(name).lower(kind, *platforms), 'dot_general') for t in op.operands
                if len(t.shape) == 2 and t.shape[0] in maps]

    assert of_maps('cpu') and not of_maps('cuda')


@kinds
def test_masks_are_made_in_chunks_on_cpu_and_at_once_elsewhere(programs, kind):
    rows = BATCH * (128 if kind == 'train' else 100)

    def crops(*platforms):
        return {op.operands[0].shape[0] for op in read_ops(programs('resnet50').lower(kind, *platforms), 'convolution')
                if op.results[0].shape[1:] == (14, 14, 256)}

    assert crops('cuda') == {rows} and crops('cpu') == {16}
    assert crops('cpu', 'cuda', 'tpu') == {16, rows}        # as an exported file has it


@each
def test_the_state_is_donated(programs, name):
    """Every array of it is written where it was: parameters, momentum and average exist once."""
    lowered = programs(name).lower('train')
    arrays = len(jax.tree.leaves(programs(name).state))
    assert arrays > 40 and all(donated(lowered)[:arrays])


def test_the_helper_reads_operations_in_loops_and_branches():
    def run(x, y, on):
        x = jax.lax.fori_loop(0, 3, lambda i, x: x @ x, x)
        return jax.lax.cond(on, lambda: x.T @ y, lambda: y), x

    arrays = jax.ShapeDtypeStruct((4, 4), 'float32'), jax.ShapeDtypeStruct((4, 4), 'float32')
    lowered = jax.jit(run, donate_argnums=1).lower(*arrays, True)
    products = read_ops(lowered, 'dot_general')
    assert [(op.name, [t.dtype for t in op.operands], op.results[0].shape) for op in products] == 2 * [
        ('stablehlo.dot_general', ['f32', 'f32'], (4, 4))]
    assert [op.operands[0].shape for op in read_ops(lowered, 'transpose')] == [(4, 4)]
    assert len(read_ops(lowered)) > 8 and donated(lowered) == [False, True, False]
    assert sum(prod(op.results[0].shape) for op in products) == 32
