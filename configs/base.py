"""Every key of a run with its meaning. Families (phantom, coco, cxr, lab) start from here and change what they must."""
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.name = 'base'
    c.seed = 0

    # ---- input ----
    d = c.data = ConfigDict()
    d.format = 'coco'                    # 'phantom' | 'coco'
    d.train = ConfigDict(dict(annotations='', images='', max_images=0))  # max_images: the first so many; 0 = all
    d.val = ConfigDict(dict(annotations='', images='', max_images=0))    # annotations '': hold out from train, see split
    d.split = ConfigDict(dict(by='id', folds=5, hold_out=0))  # `by`: key of an image record; equal values stay together
    d.phantom = ConfigDict(dict(seed=0, ambiguity=0.5, size=256, train_images=2000, val_images=200))
    d.classes = ()                       # names to detect, in label order; () = every category that is not a part
    d.parts = ()                         # categories that are anatomical parts; named in `classes` too = both
    d.flip_pairs = ()                    # pairs of class or part names that a left-right flip exchanges
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
    d.window = (0.5, 99.5)               # percentiles that window a 16-bit image
    d.max_unreadable = 0.05              # share of unreadable images above which a run stops
    d.cache = False                      # keep decoded, resized images in memory (small data sets)
    d.threads = 4                        # reader threads
    d.prefetch = 8                       # batches read ahead

    # ---- model ----
    m = c.model = ConfigDict()
    m.backbone = 'resnet50'              # 'tiny' | 'resnet18' | 'resnet34' | 'resnet50' | 'resnet101'
    m.norm = 'frozen_bn'                 # 'frozen_bn' (pre-trained) | 'group_norm' (from scratch); neck and heads follow
    m.stride_in_1x1 = False              # True: the older layout, stride in the first 1x1 convolution
    m.frozen_stages = 2                  # 0: none, 1: stem, 2: stem and first stage, ... 5: whole body
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
    m.roi_aligned = False                # half-pixel shift of RoIAlign (Detectron2's form)
    m.rpn_beta = 1 / 9                   # smooth L1 knee of the RPN
    m.box_beta = 1 / 9                   # smooth L1 knee of the box head
    m.background_weight = 1.0            # weight of background RoIs in the classification loss

    # ---- training ----
    t = c.train = ConfigDict()
    t.steps = 90_000
    t.batch_size = 16                    # global, over all devices
    t.optimizer = 'sgd'                  # 'sgd' | 'adamw'
    t.learning_rate = 0.02               # at `base_batch_size`; scaled linearly with batch_size, and printed
    t.base_batch_size = 16
    t.momentum = 0.9
    t.weight_decay = 1e-4                # not on biases and norms
    t.bias_lr_factor = 1.0
    t.warmup_steps = 500
    t.warmup_factor = 1 / 3
    t.schedule = 'step'                  # 'step' | 'cosine'
    t.decay_at = (2 / 3, 8 / 9)          # shares of `steps`
    t.decay_factor = 0.1
    t.clip_norm = 0.0                    # global gradient norm; 0 = off
    t.ema = 0.0                          # decay of the parameter average used for evaluation; 0 = off
    t.freeze = ()                        # regular expressions on parameter paths such as 'backbone/layer1'
    t.init_from = ''                     # what to fine-tune from: a run's folder, or a weights file (docs)
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
    t.parallel = 'pmap'                  # 'pmap' | 'shard_map'

    # ---- evaluation and prediction ----
    e = c.test = ConfigDict()
    e.batch_size = 8
    e.pre_nms = 1000
    e.boxes = 1000                       # proposals per image (the lab's "test box")
    e.score_threshold = 0.05
    e.nms = 0.5
    e.detections = 100                   # per image
    e.mask_threshold = 0.5
    return c.lock()
