"""Parameters of the real model, every dimension of 64 or more divided by 16."""
import jax
import numpy as np

from configs import base
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import state as train_state
from relnet_jax.trees import path_name

K = 5


def config(**model):
    c = base.get_config()
    with c.unlocked():
        c.data.update(canvas=(64, 64), max_objects=2, mask_size=8)
        c.model.update(model)
    return c.lock()


def small_tree(backbone):
    c = config(backbone=backbone)
    shapes = train_state.abstract_params(mask_rcnn.build(c, num_classes=K), train_state.batch_shapes(c, 1, 0))
    return jax.tree.map(lambda x: tuple(d // 16 if d >= 64 else d for d in x.shape), shapes)


def is_shape(x):
    return isinstance(x, tuple)


def random(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: rng.uniform(0.5, 1.5, shape).astype(np.float32), tree, is_leaf=is_shape)


def with_classes(tree, classes):
    sizes = {K: classes, 4 * K: 4 * classes}
    out = dict(tree)
    for key, modules in (('box_predictor', ('cls_score', 'bbox_pred')), ('mask_predictor', ('mask_fcn_logits',))):
        out[key] = tree[key] | {m: {leaf: (*s[:-1], sizes[s[-1]]) for leaf, s in tree[key][m].items()} for m in modules}
    return out


def flat(tree):
    return {path_name(p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}


def same(found, expected):
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
