"""Every key of a run with its meaning. Families (phantom, coco, cxr, lab) start from here and change what they must."""
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.name = 'base'
    c.seed = 0
    c.scale_schedule = 1.0               # factor on the length of every phase of training and on the warm-up

    # ---- input ----
    d = c.data = ConfigDict()
    d.format = 'coco'                    # 'phantom' | 'coco' | 'chestx_det' | 'lab' | 'vindr' | 'rsna' | 'siim' |
                                         # 'tfds'
    d.train = ConfigDict(dict(annotations='', images='', max_images=0))  # max_images: the first so many; 0 = all
    d.val = ConfigDict(dict(annotations='', images='', max_images=0))    # annotations '': hold out from train
    d.split = ConfigDict(dict(by='id', folds=5, hold_out=0))  # `by`: key of an image record; equal values stay together
    d.phantom = ConfigDict(dict(seed=0, ambiguity=0.5, size=256, train_images=2000, val_images=200))
    d.subset = ''                        # 'key=value': train on the images whose record says so
    d.graph = ''                         # .npy or .csv file of the class graph [K, K]; '' = co-occurrence in training
    d.graph_classes = ()                 # names among which that co-occurrence has edges; () = all classes
    d.meta = ''                          # CSV with a row per image: size, patient, ...; see data/formats/meta.py
    d.parts_file = ''                    # JSON with boxes of parts, see data/formats/parts_file.py; 'none': all unknown
    d.rename = ()                        # (name, new name) pairs of categories; equal new names merge, '' leaves out
    d.min_box = 0                        # pixels; shorter sides of boxes are grown to it around their middle
    d.fusion = 'none'                    # of several readers' boxes (vindr): 'none' | 'majority' | 'wbf'
    d.fusion_iou = 0.5                   # overlap above which boxes of several readers mean the same finding
    d.classes = ()                       # names to detect, in label order; () = every category that is not a part
    d.parts = ()                         # categories that are anatomical parts; named in `classes` too = both
    d.flip_pairs = ()                    # pairs of class or part names that a left-right flip exchanges
    d.repeat_threshold = 0.0             # classes in a smaller share of images come more often (data/sampling.py)
    d.canvas = (1024, 1024)              # H, W; multiples of the coarsest stride
    d.scale = 800                        # shorter side after resizing
    d.max_size = 1024                    # longer side at most
    d.max_objects = 100                  # G; of more, the largest are kept
    d.mask_size = 112                    # M of the ground-truth mask crops
    d.flip = 0.5                         # probability of a left-right flip
    d.scale_jitter = (1.0, 1.0)          # factor range on `scale`, inside the canvas
    d.brightness = 0.0                   # +- share of the full range
    d.contrast = 0.0                     # factor in 1 +- this
    d.gamma = 0.0                        # exponent in exp(+- this)
    d.rotation = 0.0                     # degrees, +- this, about the middle of the image (data/rotation.py)
    d.window = (0.5, 99.5)               # percentiles that window a 16-bit image, and DICOM without VOI LUT and window
    d.max_pixels = 100_000_000           # larger pictures are not decoded
    d.exif = 'auto'                      # 'auto' | 'apply' | 'ignore' an orientation tag, see data/fit.py
    d.dicom_overrides = ''               # JSON file: what stands in place of wrong DICOM elements, see read_options.py
    d.crowds = True                      # False: `iscrowd` is not looked at, every object is one instance
    d.allow_outside = False              # read image files outside of their folder ('..', absolute names, links)
    d.check_geometry = True              # stop if boxes look like corners, shares of the image or the like
    d.max_unreadable = 0.05              # share of missing or unreadable images above which a run stops
    d.max_dropped = 0.2                  # share of unusable annotations above which a file is refused
    d.cache = False                      # keep decoded, resized images in memory (small data sets)
    d.threads = 4                        # reader threads
    d.prefetch = 8                       # batches read ahead

    # ---- model ----
    m = c.model = ConfigDict()
    m.backbone = 'resnet50'              # 'tiny' | 'resnet18', 34, 50, 101 | 'convnext_tiny', _small, _base, _large
    m.norm = 'frozen_bn'                 # 'frozen_bn' (pre-trained) | 'group_norm' (from scratch; neck and heads too)
                                         # ConvNeXt has its own: 'layer_norm' (neck and heads bare) | 'group_norm'
    m.stride_in_1x1 = False              # True: the older layout, stride in the first 1x1 convolution
    m.frozen_stages = 2                  # 0: none, 1: stem, 2: stem and first stage, ... 5: whole body
    m.remat = False                      # blocks of the body compute their values again in the backward pass: less
                                         # memory, more time
    m.pixel_mean = (123.675, 116.28, 103.53)
    m.pixel_std = (58.395, 57.12, 57.375)
    m.dtype = 'float32'                  # compute type, 'float32' | 'bfloat16'; parameters are float32
    m.fpn_channels = 256
    m.anchor_sizes = (32, 64, 128, 256, 512)    # one per level P2..P6
    m.anchor_ratios = (0.5, 1.0, 2.0)
    m.box_head_dim = 1024
    m.box_dropout = 0.0
    m.mask_head = True
    m.mask_channels = 256
    m.mask_convs = 4
    m.mask_pool = 14                     # cells a side that RoIs for masks are pooled to; masks have twice as many
    m.roi_aligned = False                # half-pixel shift of RoIAlign (Detectron2's form)
    m.rpn_beta = 1 / 9                   # smooth L1 knee of the RPN
    m.box_beta = 1 / 9                   # smooth L1 knee of the box head
    m.background_weight = 1.0            # weight of background RoIs in the classification loss
    m.class_weights = ()                 # of RoIs of each class there, in label order; () = all 1
    m.focal_gamma = 0.0                  # focal loss: cross entropy times (1 - p)^this there; 0 = off
    m.neck = 'fpn'                       # 'fpn' | 'c4': one map of stride 16, conv5 as the RoI head; anchor_sizes then
                                         # ((16, 32, 64, 128, 256, 512),); fpn_channels, box_head_dim, mask_convs and
                                         # mask_pool idle
    m.deformable = ''                    # '' | 'v1' | 'v2': the last 3x3 of every block from layer2 on (conv3-5)
    m.cascade = ()                       # IoU of each box stage, such as (0.5, 0.6, 0.7); () = one stage at 0.5
    m.cascade_weights = (1.0, 1.0, 1.0)  # of the losses of each stage

    # relations, all off; a second pass on what the (last) box head found, see models/relation_head.py
    m.relations = ()                     # names in models/relations, in order; object_attention acts in the box head
    m.fusion = 'cat'                     # with the RoI features: 'cat' | 'add' (relations then as wide as these)
    m.fusion_order = ()                  # order of 'cat': names and 'roi'; () = 'roi', then the relations
    m.relation_loss = 'published'        # 'published': both passes are trained | 'second_only'
    m.boxes_from = 'second'              # 'second' | 'first': whose box deltas are the detections'
    m.scores_from = 'second'             # 'second' | 'mean': whose class probabilities; the mean of all box heads and
                                         # of the second pass
    m.relation_gt_boxes = False          # ground truth boxes take part in the relation pass in training
    m.relation_stop_gradient = False     # relations read the backbone's maps, parts' features included, as constants
    m.relation_detached = False          # the second pass reads all that it is given as constants: the detector under
                                         # it trains as it would without relations
    m.relation = ConfigDict(dict(        # options of each; 0 stands for None where a comment says so
        class_=dict(form='published', graph=True, attention=True, background=True, norm=False,
                    reduction=0),        # conv channels of the attention = those of the map / this; 0: the form's own
        region=dict(kernel='relu', similarity=True),
        gaussian_mixture=dict(neighbours=32),
        class_region=dict(kernel='relu', graph=True, attention=True, background=True, reduction=0),
        part=dict(parts=(), norm=True),  # parts: rows of data.parts; () = all
        context=dict(parts=(2, 3), grid=(0, 0), window=True, norm=True, scale='published',  # grid: rows, columns of
                     features=1024),     # cells that each part is cut into; features 0: as the RoI features
        lung_feature=dict(parts=(2, 3), norm=True),
        object_attention=dict(keys=0, scale='published'),           # keys: best RoIs looked at; 0 = all
        object_position=dict(keys=64, em_dim=64, features=512),     # features 0: the embedding itself
        presence=dict(features=64, iou=0.3, keys=128, graph=True,   # iou: RoIs that overlap less are elsewhere; above
                      gradient=False,       # 1: a RoI itself counts too; gradient: into the first pass's logits
                      gt_boxes=False)))     # in training, ground truths count as found (with relation_gt_boxes)
    m.parts = 'given'                    # 'given' | 'predicted' | 'given_or_predicted': parts that the relations see
    m.anatomy_head = False               # predict boxes and presence of data.parts

    # ---- training ----
    t = c.train = ConfigDict()
    t.steps = 90_000
    t.phases = ()                        # see training/phases.py; () = one, all the same
    t.batch_size = 16                    # global, over all devices
    t.accumulate = 1                     # parts that a device takes its images in, one after the other, to save memory
    t.optimizer = 'sgd'                  # 'sgd' | 'adamw'
    t.learning_rate = 0.02               # at `base_batch_size`; scaled linearly with batch_size, and printed
    t.base_batch_size = 16
    t.momentum = 0.9
    t.weight_decay = 1e-4                # not on biases and norms
    t.bias_lr_factor = 1.0
    t.lr_factors = ()                    # (regular expression on parameter paths, factor on their learning rate) pairs
    t.warmup_steps = 500
    t.warmup_factor = 1 / 3
    t.schedule = 'step'                  # 'step' | 'cosine'
    t.decay_at = (2 / 3, 8 / 9)          # shares of `steps`
    t.decay_factor = 0.1
    t.clip_norm = 0.0                    # global gradient norm; 0 = off
    t.ema = 0.0                          # decay of the parameter average used for evaluation; 0 = off
    t.freeze = ()                        # regular expressions on parameter paths such as 'backbone/layer1'
    t.init_from = ''                     # what to fine-tune from: a run's folder, or a weights file (docs);
                                         # {fold}: the number of the fold, with ablate --folds
    t.plain_from = ''                    # run that stands for the plain phases, then left out; {seed}: its seed
    t.init_strict = False                # stop if init_from leaves anything new or unused
    t.pre_nms = 2000                     # RPN candidates per level before NMS
    t.proposals = 2000                   # RPN boxes per image after NMS
    t.rpn_samples = 256
    t.rpn_positive = 0.5                 # share at most
    t.rois = 512                         # RoIs per image sampled for the heads (the lab's "train box")
    t.roi_positive = 0.25
    t.log_every = 20
    t.eval_every = 10_000                # 0 = at the end only
    t.checkpoint_every = 2500
    t.keep = 2                           # latest checkpoints kept, besides the best
    t.best = 'box_AP50'                  # metric of the best checkpoint
    t.allow_changed_data = False         # resume although annotations, images or split are not those of the last start
    t.parallel = 'shard_map'             # what JAX recommends, or 'pmap'; the results are the same

    # ---- evaluation and prediction ----
    e = c.test = ConfigDict()
    e.batch_size = 8                     # images on each device at once
    e.pre_nms = 1000
    e.boxes = 1000                       # proposals per image (the lab's "test box")
    e.score_threshold = 0.05
    e.nms = 0.5
    e.detections = 100                   # per image
    e.mask_threshold = 0.5
    return c.lock()
