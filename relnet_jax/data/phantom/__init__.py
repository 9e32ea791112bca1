"""The phantom: synthetic chest radiographs with known truth, the default data set. Not patients: every image says so.

`render(seed, index, ambiguity=..., size=...)` is a pure function and needs no file but the statistics table. It draws
* a thorax (`anatomy`) with the boxes of its five parts,
* a label set, numbers, sides, places and sizes that follow ChestX-Det (`labels`, `places`),
* one polygon for each finding, drawn as it is annotated (`drawing`).

The knob `ambiguity` in [0, 1] is the share of findings whose look does not tell their class (`looks`): these
have the look that all classes of a look-alike group share, the others their class's own. Labels, polygons and anatomy
do not depend on it. A class whose look says nothing is told by what this table names, which is what a relation module
may exploit:

    group     class                cue             rule
    opacity   Effusion             position        fills the costophrenic angle of a lung
    opacity   Consolidation        position        against mediastinum or heart, away from the costophrenic angle
    opacity   Atelectasis          co-occurrence   free in the lung, in an image that holds an effusion
    opacity   Mass                 co-occurrence   free in the lung, places and sizes alike, in an image without one
    spot      Nodule               position        lateral 44 % of the lung's width
    spot      Calcification        position        medial 44 % of the lung's width
    line      Pleural Thickening   position        on the lateral lung wall
    line      Fibrosis             position        inside the lung, off the wall
    lucency   Emphysema            position        the whole lung
    lucency   Pneumothorax         position        a crescent at the apex or the lateral wall
    heart     Cardiomegaly         position        heart wider than half of the thorax (it looks like any heart)
    miliary   Diffuse Nodule       texture         fine dots over a lung
    bone      Fracture             texture         cleft and callus across a rib

The real co-occurrence (fibrosis with emphysema, effusion with consolidation) is a soft cue beside these rules, and so
are outline and size where the rule is one of position.

What differs from the table: places obey the rules above; atelectasis and mass share their pooled places and sizes, and
the two as one class are as frequent and as often together with the others, but an effusion makes that one an
atelectasis (in ChestX-Det 48 % of the images with an atelectasis and 37 % of those with a mass hold one), which then
lies higher, as the effusion has the base of the lung: a soft cue of place; nothing is smaller than 3.6 % of the frame,
bands along the lung wall are thicker, and emphysema and diffuse nodules occur once a lung at most.

    python -m relnet_jax.data.phantom --out=phantom --count=20      # PNG files and instances.json (COCO)
"""
from relnet_jax.data.phantom.scene import Annotations, annotate, class_cues, render
from relnet_jax.data.phantom.source import coco_dict, phantom_source

__all__ = ['Annotations', 'annotate', 'class_cues', 'coco_dict', 'phantom_source', 'render']
