import xml.etree.ElementTree as ET

import numpy as np

from common.reporting import charts
from common.tables import Estimate

NOTHING = np.array([np.nan])


def elements(svg, name):
    return [element for element in ET.fromstring(svg).iter() if element.get("class", "").split(" ")[0] == name]


def chart(values, found=None, **options):
    return charts.distribution("Title", ".2f", [("run", np.array(values, float), found)], **options)


def test_a_picture_says_in_words_what_it_shows():
    svg = charts.distribution(
        "OS", ".2f", [("a", np.array([0.5, 0.7]), Estimate(0.6, 0.5, 0.7, 2)), ("b", NOTHING, None)]
    )
    assert ET.fromstring(svg).get("aria-label") == (
        "OS, distribution over clips. a: 0.60, 95 % interval 0.50 to 0.70, 2 clips; b: not defined"
    )


def test_markup_in_names_is_text():
    svg = charts.distribution("<script>", ".2f", [('"><script>', np.array([1.0]), None)])
    assert "<script" not in svg
    assert elements(svg, "name")[0].text == '"><script>'


def test_bars_are_counts():
    bars = elements(chart([0.0, 0.02, 0.5, 1.0]), "bar")  # 24 bins: two values in the first.
    assert [float(bar.get("height")) for bar in bars] == [30, 15, 15]


def test_whole_numbers_have_a_bar_each_that_do_not_overlap():
    bars = elements(chart([1, 1, 2, 5]), "bar")
    places = [(float(bar.get("x")), float(bar.get("width"))) for bar in bars]
    assert len(places) == 3
    assert all(x + width < following for (x, width), (following, _) in zip(places, places[1:], strict=False))


def test_few_values_far_off_do_not_set_the_axis():
    ticks = [tick.text for tick in elements(chart([1.5] * 99 + [1000.0]), "tick")]
    assert ticks == ["0", "0.75", "≥ 1.5"]


def test_ratios_have_a_logarithmic_axis():
    ticks = [tick.text for tick in elements(chart([0.0] + [0.01] * 50 + [100.0] * 50, logarithmic=True), "tick")]
    assert ticks == ["≤ 0.01", "1", "100"]


def test_the_mean_stands_at_its_value():
    svg = chart([0.0, 1.0], Estimate(0.5, 0.25, 0.75, 2))
    (mean,), (interval,) = elements(svg, "mean"), elements(svg, "interval")
    ends = [float(interval.get(name)) for name in ("x1", "x2")]
    assert float(mean.get("cx")) == sum(ends) / 2
    bars = elements(svg, "base")[0]
    assert ends[1] - ends[0] == 0.5 * (float(bars.get("x2")) - float(bars.get("x1")))


def test_values_that_are_all_undefined_give_an_empty_picture():
    for logarithmic in (False, True):
        svg = chart([np.nan], Estimate(np.nan, np.nan, np.nan, 1), logarithmic=logarithmic)
        assert not elements(svg, "bar") and not elements(svg, "mean") and "nan" not in svg
