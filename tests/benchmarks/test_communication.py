"""What benchmarks/communication.py reads from a compiled program."""
import jax
import pytest

from benchmarks.communication import collectives, seconds, step_text
from relnet_jax.models import mask_rcnn
from tests.training import standin


def test_collectives_are_read_with_their_bytes():
    text = '''
      %all-reduce.1 = f32[3,4]{1,0} all-reduce(%a), channel_id=1, to_apply=%sum
      ROOT %all-reduce-start = (f32[], bf16[10]{0}) all-reduce-start(%b, %c), to_apply=%sum
      %all-gather = u8[2,5]{1,0} all-gather(%d), dimensions={0}
      %fusion = f32[100] fusion(%all-reduce.1), calls=%all-reduce-like(
    '''
    assert collectives(text) == [('all-reduce', 48), ('all-reduce', 24), ('all-gather', 10)]


def test_a_step_all_reduces_the_gradients_of_what_is_trained_and_little_else(monkeypatch):
    monkeypatch.setattr(mask_rcnn, 'build', standin.build)
    config = standin.small_config()
    found, trained = step_text(config, 3, 0)
    found = collectives(found)
    assert jax.device_count() == 2 and {kind for kind, _ in found} == {'all-reduce'}
    assert 4 * trained <= sum(size for _, size in found) <= 4 * trained + 200      # losses and their counts
    config.train.freeze = ('backbone',)
    fewer, less = step_text(config, 3, 0)
    assert less < trained and sum(size for _, size in collectives(fewer)) <= 4 * less + 200


def test_a_ring_sends_nearly_twice_the_bytes():
    assert seconds(1e9, 2, bandwidth=1e9, latency=0, messages=1) == pytest.approx(1)
    assert seconds(1e9, 8, bandwidth=1e9, latency=1e-3, messages=2) == pytest.approx(1.75 + 0.028)
