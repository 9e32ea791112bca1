"""What benchmarks/first_pass.py leaves of a detector with relations."""
import jax

from benchmarks.first_pass import by_class, without_relations
from configs import lab
from relnet_jax.models import mask_rcnn
from relnet_jax.runs import state


def test_the_first_pass_is_a_plain_detector_with_the_parameters_that_it_had():
    config = lab.get_config('ours,data=phantom')

    def shapes(config):
        model = mask_rcnn.build(config, num_classes=14, adjacency=((0.0,) * 14,) * 14)
        return state.abstract_params(model, state.batch_shapes(config, 1, 5))
    whole = shapes(config)
    plain, own = without_relations(config, whole)
    assert plain.model.relations == () and config.model.relations
    assert {'relation_head'} <= whole.keys() - own.keys()
    expected = shapes(plain)
    assert jax.tree.structure(expected) == jax.tree.structure({k: v for k, v in own.items() if 'mask' not in k})


def test_numbers_are_the_mean_and_each_class():
    assert by_class({'AP50': 0.5, 'per_class': {'Mass': {'AP50': 0.4}, 'Nodule': {'AP50': 0.6}}}, 'AP50') == {
        'mean': 0.5, 'Mass': 0.4, 'Nodule': 0.6}
