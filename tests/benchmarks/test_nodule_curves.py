import pytest

from benchmarks.nodule_curves import COLOURS, PANELS, draw
from relnet_jax.evaluation.chest_films import RATES


def row(level: float) -> dict:
    return dict(metrics={f'{prefix}_{rate:g}': dict(mean=level + rate / 10, low=level, high=level + rate / 5)
                         for prefix in PANELS for rate in RATES})


def test_each_run_is_a_line_of_its_sensitivities_with_their_intervals():
    panels = draw(dict(base=row(0.1), part=row(0.2))).axes
    assert len(panels) == len(PANELS)
    for axes in panels:
        base, part = axes.containers
        assert [h.get_label() for h in axes.get_legend_handles_labels()[0]] == ['base', 'part']
        assert base.lines[0].get_ydata() == pytest.approx([0.1 + rate / 10 for rate in RATES])
        assert part.lines[0].get_ydata() == pytest.approx([0.2 + rate / 10 for rate in RATES])
        bars = base.lines[2][0].get_segments()
        assert [bar[:, 1].tolist() for bar in bars] == [pytest.approx([0.1, 0.1 + rate / 5]) for rate in RATES]


def test_more_runs_than_colours_are_refused():
    with pytest.raises(ValueError):
        draw({str(i): row(0.1) for i in range(len(COLOURS) + 1)})
