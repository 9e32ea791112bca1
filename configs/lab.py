"""Every run of the lab's log by its name: configs/lab.py:RUN[,data=DATA]; DATA as in the table below.

    python train.py --config=configs/lab.py:fpn3 --config.scale_schedule=0.01
    python train.py --config=configs/lab.py:one,data=chestx_det_coco --config.train.init_from=RESNET50 \
        --config.data.train.annotations=FILE --config.data.train.images=FOLDER

A run is a base (C4 or FPN), a few changed keys, and the lab's schedule; the data set is independent of it. RUNS also
holds what the log says each run is and reached on the lab's own films. What the log leaves open and what is taken here
instead is said in docs/lab_runs.md.
"""
from ml_collections import ConfigDict

from configs import base, coco, phantom
from configs._runs import BEST, DETACHED, LABS, OURS, PREDICTED, Run, apply, nearest, relations
from relnet_jax.data.formats.chestx_det import CLASSES as CHESTX_DET
from relnet_jax.models.relations import chosen, needs

PARTS = ('Left Scapula', 'Right Scapula', 'Left Lung', 'Right Lung', 'Heart')
FLIP_PAIRS = (('Left Scapula', 'Right Scapula'), ('Left Lung', 'Right Lung'))
GRAPH_OF_ONE = ('Multiple Nodules', 'Diffuse Nodule', 'Cavity', 'Fibrosis', 'Nodule', 'Atelectasis', 'Consolidation',
                'Tuberculosis', 'Mass', 'Effusion')

# ---- bases ----
LAB = {'train.batch_size': 8, 'train.base_batch_size': 8, 'train.learning_rate': 0.01, 'test.score_threshold': 0.02}
C4 = LAB | {'model.neck': 'c4', 'train.steps': 96_000}
FPN = LAB | {'train.steps': 192_000}

# ---- phases ----
KEEP_BOX = ('backbone/layer4', 'box_predictor/')    # C4: conv5 is the box head; the mask head shares it
FINE_TUNE = 0.05                                    # of the learning rate: `seven` logs 0.0005, FPN from scratch 0.01


def phase(name: str, steps: int, *, keep: bool = False, rois: int = 512) -> dict:
    return dict(name=name, steps=steps, rois=rois, freeze=KEEP_BOX if keep else ())


def tuned(*phases: dict) -> dict:
    """`original`, and from there on these phases at a lower learning rate."""
    original = dict(name='original', steps=96_000, plain=True)
    return {'train.steps': sum(p['steps'] for p in phases),
            'train.phases': (original, *(p | dict(lr_factor=FINE_TUNE) for p in phases))}


RETRAIN, KEEP = tuned(phase('retrain', 95_999)), tuned(phase('keep', 95_999, keep=True))
BOXES = {n: {'test.boxes': n} for n in (64, 128, 512)}


# ---- relations ----
# The lab's own way: class weights with gradient, only the second pass trained. Later runs follow the published way.
EARLY = {'model.relation_loss': 'second_only', 'model.relation.class_.form': 'early'}
SPATIAL = EARLY | {'model.boxes_from': 'first', 'train.steps': 95_999} | BOXES[128]


def spatial(kernel: str) -> dict:
    return SPATIAL | relations('region', region=dict(kernel=kernel, similarity=True))


def class_region(**options) -> dict:
    return EARLY | relations('class_region', class_region=dict(kernel='relu', **options)) | BOXES[512]


SOFT_MAPPING = EARLY | relations('class', class_=dict(graph=False, attention=False)) | BOXES[512]
SC = relations('class', class_=dict(reduction=16))
SC_CONTEXT = dict(parts=(), scale='lab')            # the relation network between boxes and all parts
FPN1 = LABS | {'model.background_weight': 0.2}
FPN3 = LABS | {'model.background_weight': 0.5}
CASCADE = {'model.cascade': (0.5, 0.6, 0.7)}


def fpn3(*names: str, **options: dict) -> dict:
    """`fpn3` with these relations in place of its own."""
    return FPN3 | relations(*names, **options)


def order(*names: str) -> dict:
    return FPN3 | {'model.fusion_order': names}


RUNS = {
    # ---- A. class relation ----
    'original': Run('A', 'Mask R-CNN R-50 C4, no relation', C4, {}, '25.96', '40.19 (41.37 at 1000 boxes)'),
    'zero': Run('A', 'class relation, co-occurrence of all classes without background, from scratch', C4,
                EARLY | relations('class', class_=dict(background=False)) | {'train.steps': 129_000}),
    'one': Run('A', 'class relation, edges among 10 classes, background added; from `original`, box retrained', C4,
               EARLY | relations('class') | {'data.graph_classes': GRAPH_OF_ONE} | RETRAIN,
               '30.01 / 29.64 at 512 boxes', '44.06 / 43.61 at 512 boxes'),
    'one_2': Run('A', '`one`, box kept', C4,
                 EARLY | relations('class') | {'data.graph_classes': GRAPH_OF_ONE} | KEEP | BOXES[512],
                 '29.81', '43.95'),
    'two': Run('A', 'class relation, all classes, background added; from `original`', C4,
               EARLY | relations('class') | RETRAIN),

    # ---- B. spatial relation ----
    'three': Run('B', 'Gaussian of distance and angle, drawn from N(0, 1); box retrained, kept, kept at 128 boxes', C4,
                 spatial('gaussian_random') | {'train.phases': (
                     phase('retrain', 74_913), phase('keep', 10_086, keep=True),
                     phase('keep_128', 11_000, keep=True, rois=128))},
                 '24.08 (21.73 after 74,913 steps, 26.36 after 84,999)', '37.57 (35.72, 39.73)'),
    'four': Run('B', 'ReLU of a learned linear form of distance and angle', C4,
                spatial('relu') | {'train.rois': 128}, '22.51', '36.83'),
    'five': Run('B', 'no spatial weight, similarity of features alone', C4,
                spatial('none') | {'train.rois': 128}, '21.68', '35.08'),
    'six': Run('B', 'Gaussian, started at mean 0 and a constant covariance', C4,
               spatial('gaussian_norm') | {'train.rois': 128}, '20.54', '34.69'),

    # ---- C. spatial and class relation ----
    'seven': Run('C', 'ReLU spatial weight on class-relation features; from `original`, box retrained, then kept', C4,
                 class_region() | tuned(phase('retrain', 54_999), phase('keep', 41_000, keep=True)),
                 '30.24 (28.63 after 54,999 steps)', '44.31 (42.74)'),
    'seven_2': Run('C', '`seven`, box kept from step 0', C4, class_region() | KEEP, '30.00', '43.58'),
    'seven_3': Run('C', '`seven`, box retrained throughout', C4,
                   class_region() | tuned(phase('retrain', 54_999), phase('retrain_on', 41_000)), '30.17', '43.94'),
    'eight': Run('C', '`seven` without the class graph, box kept', C4, class_region(graph=False) | KEEP,
                 '29.89', '44.44'),
    'eight_2': Run('C', '`seven` without the class graph, box retrained', C4, class_region(graph=False) | RETRAIN,
                   '28.93', '43.93'),
    'nine': Run('C', 'soft-mapping alone, all graphs removed; box kept', C4, SOFT_MAPPING | KEEP, '30.64', '43.75'),
    'nine_2': Run('C', 'soft-mapping alone, box retrained', C4, SOFT_MAPPING | RETRAIN, '30.27', '44.16'),
    'ten': Run('C', 'plain fine-tuning of `original`, no relation (control)', C4, RETRAIN | BOXES[512]),

    # ---- D. after the original sources ----
    'sc': Run('D', 'class relation, published form', C4, SC, '28.40', '42.89'),
    'sc_nograph': Run('D', '`sc` without the graph', C4, SC | relations('class', class_=dict(graph=False)),
                      '28.40', '42.89'),
    'sc_noatt': Run('D', '`sc` without the image-wise attention', C4,
                    SC | relations('class', class_=dict(attention=False)), '', '42.89'),
    'sc1': Run('D', 'class and spatial relation', C4, SC | relations('class', 'region'), '28.04', '42.62'),
    'sc2': Run('D', 'class relation and relation network (boxes x all parts)', C4,
               SC | relations('class', 'context', context=SC_CONTEXT), '29.75', '44.31'),
    'sc3_add': Run('D', 'relation network alone, added', C4,
                   relations('context', context=SC_CONTEXT | dict(features=0)) | {'model.fusion': 'add'},
                    '18.64', '32.67'),
    'sc3_cat': Run('D', 'relation network alone, concatenated', C4, relations('context', context=SC_CONTEXT), '27.61',
                   '42.15'),
    'fpn': Run('D', 'FPN, class relation and relation network (place relative to the parts, attention over the lungs)',
               FPN, LABS, '32.70', '47.06'),

    # ---- E. FPN variants ----
    'fpn_drop': Run('E', '`fpn`, no flip, dropout, background weight 0.2', FPN,
                    FPN1 | {'data.flip': 0.0, 'model.box_dropout': 0.5}),
    'fpn1': Run('E', '`fpn`, flip, no dropout, background weight 0.2', FPN, FPN1),
    'fpn2': Run('E', '`fpn1`, background weight 0.5: the same config as `fpn3`, see there', FPN, FPN3),
    'fpn3': Run('E', '`fpn2` with the mask loss right (always so here: the same config)', FPN, FPN3),
    'fpn4': Run('E', '`fpn3`, learning rate dropped from step 75,000 on', FPN,
                FPN3 | {'train.decay_at': (75 / 192, 8 / 9)}),
    'fpn5_obj512x128': Run('E', '`fpn3` with attention between 512 boxes and the best 128', FPN,
                           fpn3(*LABS['model.relations'], 'object_attention', object_attention=dict(keys=128))),
    'fpn5_obj512x512': Run('E', '`fpn3` with attention between 512 boxes and the best 512', FPN,
                           fpn3(*LABS['model.relations'], 'object_attention', object_attention=dict(keys=512))),
    'fpn5_obj64': Run('E', '`fpn3` with places relative to the best 64 boxes, embedding 64, fc to 512', FPN,
                      fpn3(*LABS['model.relations'], 'object_position',
                           object_position=dict(keys=64, em_dim=64, features=512))),
    'fpn5_obj32': Run('E', '`fpn3` with places relative to the best 32 boxes, embedding 32', FPN,
                      fpn3(*LABS['model.relations'], 'object_position',
                           object_position=dict(keys=32, em_dim=32, features=0))),
    'fpn_5': Run('E', '`fpn3` with the class relation alone', FPN, fpn3('class')),
    'fpn_6': Run('E', '`fpn3` with the part relation alone', FPN, fpn3('part')),
    'fpn_7': Run('E', '`fpn3` with the spatial relation before the class relation', FPN,
                 fpn3('region', 'class', 'part', 'context')),
    'fpn_8': Run('E', '`fpn3` and the spatial relation', FPN, fpn3('class', 'part', 'context', 'region')),
    'cat_order_roi_last': Run('E', '`fpn3`, RoI features concatenated last', FPN,
                              order('class', 'part', 'context', 'roi')),
    'cat_order_reverse': Run('E', '`fpn3`, concatenated in reverse', FPN, order('context', 'part', 'class', 'roi')),
    'cat_order_part_first': Run('E', '`fpn3`, parts first', FPN, order('part', 'roi', 'context', 'class')),

    # ---- F. public data set ----
    'base': Run('F', 'FPN, no relation, no cascade', FPN, {}),
    'base_cls': Run('F', 'class relation with cascaded box heads', FPN, relations('class') | CASCADE),
    'base_spa': Run('F', 'spatial relation with cascaded box heads', FPN, relations('region') | CASCADE),
    'base_spa_nocascade': Run('F', 'spatial relation without cascade', FPN, relations('region')),
    'yy_base_cls': Run('F', '`base_cls` on one annotator\'s part of the data', FPN,
                       relations('class') | CASCADE | {'data.subset': 'annotator=yy'}),

    # ---- not in the log: controls, and what it does not use ----
    'no_relation': Run('', '`fpn3` without its relations (control)', FPN, {'model.background_weight': 0.5}),
    'fpn3_gt_boxes': Run('', '`fpn3`, ground-truth boxes in the training of the relation pass', FPN,
                         FPN3 | {'model.relation_gt_boxes': True}),
    # The project's own relation, which the lab did not have; weighed like `base`, which is their control.
    'presence': Run('', 'presence alone: what the first pass found elsewhere in the film (the project\'s own)', FPN,
                    relations('presence')),
    'presence_part': Run('', 'part and presence relation (the project\'s own)', FPN, relations('part', 'presence')),
    'ours': Run('', 'part, context and presence relation on a detector trained as without them: the best set', FPN,
                OURS),
    'ours_second': Run('', '`ours`, boxes and scores those of the second pass alone', FPN, DETACHED),
    'ours_attached': Run('', '`ours_second`, the second pass training the detector under it too', FPN, BEST),
    'context_only': Run('', '`fpn3` with the attention over the lungs alone', FPN, fpn3('context')),
    'all_parts': Run('', '`context_only` with all parts as keys', FPN, fpn3('context', context=dict(parts=()))),
    'inner_context': Run('', '`context_only`, each lung cut into 3 x 2 cells', FPN,
                         fpn3('context', context=dict(grid=(3, 2)))),
    'lung_feature': Run('', '`context_only` without attention: the lungs\' features repeated', FPN,
                        fpn3('lung_feature')),
    'sgrn': Run('', 'region relation as published: Gaussian mixture, two graph convolutions', FPN,
                fpn3('gaussian_mixture')),
    'six_zero': Run('', '`six` as the lab\'s code in fact started it: constant covariance 0', C4,
                    spatial('gaussian_zero') | {'train.rois': 128}),
    'base_cascade': Run('', 'cascaded box heads, no relation (control)', FPN, CASCADE),
    'reasoning_rcnn': Run('', 'class relation with Reasoning-RCNN\'s two stages, weights 1 and 0.5', FPN,
                          relations('class') | {'model.cascade': (0.5, 0.6), 'model.cascade_weights': (1.0, 0.5)}),
    'deformable_v1': Run('', '`fpn3` with deformable convolution in conv3-5', FPN, FPN3 | {'model.deformable': 'v1'}),
    'deformable_v2': Run('', '`fpn3` with modulated deformable convolution in conv3-5', FPN,
                         FPN3 | {'model.deformable': 'v2'}),
    'parts_predicted': Run('', '`fpn3` with the parts predicted by the detector itself', FPN, FPN3 | PREDICTED),
    'parts_given_or_predicted': Run('', '`fpn3` with given parts, predicted ones where they are missing', FPN,
                                    FPN3 | {'model.anatomy_head': True, 'model.parts': 'given_or_predicted'}),
}


# ---- data sets ----
SMALL = 8       # the phantom's small images and few findings: numbers of boxes are divided by this


def use_phantom(c: ConfigDict) -> None:
    """The default phantom with the tiny detector and optimiser of configs/phantom.py, but the lab's schedule."""
    small = phantom.get_config()
    c.data.update(small.data)
    for key in ('backbone', 'norm', 'frozen_stages', 'fpn_channels', 'anchor_sizes', 'box_head_dim', 'mask_channels',
                'mask_convs'):
        c.model[key] = small.model[key]
    for key in ('batch_size', 'base_batch_size', 'optimizer', 'learning_rate', 'weight_decay', 'clip_norm', 'ema',
                'pre_nms', 'proposals', 'rpn_samples', 'eval_every'):
        c.train[key] = small.train[key]
    for key in ('batch_size', 'pre_nms', 'detections'):
        c.test[key] = small.test[key]
    # As WIDE in configs/_runs.py; here the box heads are wide too.
    c.train.lr_factors = (('box_|relation_head|part_window', 0.25),)


def finish_phantom(c: ConfigDict) -> None:
    """Fewer boxes, a milder fine-tuning rate (Adam's), and the phantom's readers, after the run's own keys are set."""
    c.train.rois //= SMALL
    c.test.boxes //= SMALL
    for options in (c.model.relation.object_attention, c.model.relation.object_position):
        options['keys'] //= SMALL       # not .keys, which is the method
    c.train.phases = tuple(p | ({} if p.get('plain') else dict(rois=p['rois'] // SMALL))
                           | (dict(lr_factor=0.5) if 'lr_factor' in p else {}) for p in c.train.phases)
    if c.data.subset:
        c.data.subset = 'annotator=reader0'


def use_coco(c: ConfigDict) -> None:
    """Any COCO-format file at the size of configs/coco.py; the parts, where a relation needs them, as categories."""
    c.data.update(coco.get_config().data)


def use_chestx_det(c: ConfigDict) -> None:
    """ChestX-Det (1024 x 1024 films, 13 classes) as a COCO file; the parts, where needed, as categories of it."""
    c.data.canvas, c.data.scale, c.data.max_size = (832, 832), 800, 832
    c.data.classes = CHESTX_DET


def use_chestx_det_files(c: ConfigDict) -> None:
    """ChestX-Det as it is downloaded; the parts, where a relation needs them, from data.parts_file."""
    use_chestx_det(c)
    c.data.format = 'chestx_det'


def use_lab_files(c: ConfigDict) -> None:
    """The lab's own JSON: boxes of at least 20 pixels, parts in the file."""
    use_coco(c)
    c.data.format, c.data.min_box = 'lab', 20


def name_parts(c: ConfigDict) -> None:
    """Names the part categories of a COCO file for runs that look at parts."""
    if c.model.anatomy_head or 'parts' in needs(chosen(c.model)):
        c.data.parts, c.data.flip_pairs = PARTS, FLIP_PAIRS


# name -> what it sets before the run's own keys, and after them
DATA = {'phantom': (use_phantom, finish_phantom), 'chestx_det_coco': (use_chestx_det, name_parts),
        'chestx_det': (use_chestx_det_files, name_parts), 'lab': (use_lab_files, name_parts),
        'coco': (use_coco, name_parts)}


def get_config(argument: str = 'base') -> ConfigDict:
    """`argument`: RUN or RUN,data=DATA. Raises ValueError with the nearest right name."""
    run, *options = argument.split(',')
    data = 'phantom'
    for option in options:
        key, _, value = option.partition('=')
        if key != 'data':
            raise ValueError(f"expected RUN,data=DATA, got '{argument}'")
        data = value
    if run not in RUNS:
        raise ValueError(nearest('run', run, RUNS))
    if data not in DATA:
        raise ValueError(nearest('data set', data, DATA))
    before, after = DATA[data]
    c = base.get_config()
    with c.unlocked():
        c.name = run
        apply(c, RUNS[run].base)
        before(c)
        if c.model.neck == 'c4':        # one level that does all sizes, and a smaller one than P2's
            sizes = c.model.anchor_sizes
            c.model.anchor_sizes = ((sizes[0] // 2, *sizes),)
        apply(c, RUNS[run].delta)
        after(c)
    return c
