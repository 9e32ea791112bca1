"""How the phantom's findings look and what tells their classes apart: `RULES`, `OWN` and `SHARED`."""
from typing import NamedTuple

import numpy as np


class Rule(NamedTuple):
    """What tells a class where the look does not."""
    group: str              # classes of a group share a look
    cue: str                # 'texture' | 'position' | 'co-occurrence'
    text: str


RULES = {
    'Atelectasis': Rule('opacity', 'co-occurrence', 'free in the lung, in an image with an effusion'),
    'Mass': Rule('opacity', 'co-occurrence', 'free in the lung, in an image without an effusion'),
    'Consolidation': Rule('opacity', 'position', 'against mediastinum or heart, never at the costophrenic angle'),
    'Effusion': Rule('opacity', 'position', 'fills the costophrenic angle'),
    'Nodule': Rule('spot', 'position', 'lateral part of the lung'),
    'Calcification': Rule('spot', 'position', 'medial part of the lung'),
    'Fibrosis': Rule('line', 'position', 'inside the lung, off its wall'),
    'Pleural Thickening': Rule('line', 'position', 'along the lateral lung wall'),
    'Emphysema': Rule('lucency', 'position', 'the whole lung'),
    'Pneumothorax': Rule('lucency', 'position', 'a crescent at the upper or lateral lung wall'),
    'Cardiomegaly': Rule('heart', 'position', 'the heart is wider than half of the thorax'),
    'Diffuse Nodule': Rule('miliary', 'texture', 'fine dots all over a lung'),
    'Fracture': Rule('bone', 'texture', 'a cleft with callus across a rib'),
}


class Appearance(NamedTuple):
    """How a region looks: pixels are pulled by `opacity` towards `level` plus textures, in units of full white."""
    level: float
    opacity: float
    soft: float     # blur of the outline, share of the frame
    cloud: float    # patchy texture
    bands: float    # horizontal stripes
    dome: float     # bright centre (+) or bright rim (-)
    mesh: float     # crossing lines


OWN = {        # these alone tell the class
    'Atelectasis': Appearance(.62, .88, .004, .00, .14, .00, .00),
    'Mass': Appearance(.64, .90, .004, .00, .00, .26, .00),
    'Consolidation': Appearance(.58, .85, .006, .12, .00, .00, .00),
    'Effusion': Appearance(.76, .92, .004, .00, .00, .00, .00),
    'Nodule': Appearance(.66, .90, .004, .00, .00, .00, .00),
    'Calcification': Appearance(1.0, 1.0, .001, .00, .00, .00, .00),
    'Fibrosis': Appearance(.46, .80, .004, .00, .00, .00, .28),
    'Pleural Thickening': Appearance(.88, .95, .003, .00, .00, .00, .00),
    'Emphysema': Appearance(.07, .72, .004, .00, .00, .00, .00),
    'Pneumothorax': Appearance(.02, .97, .001, .00, .00, -.25, .00),
}
SHARED = {     # any member of the group may have this one; nothing in it tells the class
    'opacity': Appearance(.62, .90, .004, .03, .00, .00, .00),
    'spot': Appearance(.86, .95, .002, .00, .00, .00, .00),
    'line': Appearance(.68, .90, .003, .00, .00, .00, .16),
    'lucency': Appearance(.05, .85, .003, .00, .00, -.10, .00),
}
JITTER = Appearance(.03, .02, .0, .01, .01, .03, .01)    # standard deviation from instance to instance


def sample_appearance(rng: np.random.Generator, name: str, *, ambiguity: float) -> Appearance:
    """A finding's appearance: with probability `ambiguity` its group's shared look, else its class's own.

    A share of findings, not a blend of looks: a blend at 0.7 would leave 90 to 100 % of all classes told by the look.
    The same number of random draws for every class and ambiguity: a finding that has the shared look at one ambiguity
    has it at every larger one.
    """
    mean = SHARED[RULES[name].group] if rng.random() < ambiguity else OWN[name]
    return Appearance(*(np.array(mean) + rng.standard_normal(len(Appearance._fields)) * JITTER))
