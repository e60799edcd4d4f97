"""Each measure against a case whose value is known without it."""

import numpy as np
import pytest

from workbench.sampling import measures as m

X = np.arange(64)


def grey(y_YX: np.ndarray) -> np.ndarray:
    return np.repeat(y_YX[..., None], 3, axis=-1)


def stripes(frequency: float, size: int = 64) -> np.ndarray:
    """Sine along x with `frequency` in cycles per pixel."""
    return grey(np.broadcast_to(0.5 + 0.4 * np.sin(2 * np.pi * frequency * np.arange(size)), (size, size)))


PLAIN = np.full((64, 64, 3), 200, dtype=np.uint8)


def test_high_frequency_share_separates_low_from_high() -> None:
    assert m.high_frequency_share(stripes(0.05)) < 1e-6
    assert m.high_frequency_share(stripes(0.4)) > 1 - 1e-6
    both = (stripes(0.1) + stripes(0.4)) / 2
    assert m.high_frequency_share(both) == pytest.approx(0.5, abs=0.01)
    assert m.high_frequency_share(both, cutoff=0.45) < 0.01
    assert m.high_frequency_share(PLAIN) == 0.0


def test_high_frequency_share_is_isotropic_and_ignores_gain() -> None:
    image = np.random.default_rng(0).random((48, 48, 3))
    assert m.high_frequency_share(image.transpose(1, 0, 2)) == pytest.approx(m.high_frequency_share(image))
    assert m.high_frequency_share(0.2 + image / 2) == pytest.approx(m.high_frequency_share(image))


def test_white_noise_has_its_area_of_the_spectrum() -> None:
    noise = grey(np.random.default_rng(0).standard_normal((256, 256)))
    # Power is flat, so the share is that of the square [−0.5, 0.5]² outside the disc of radius 0.25.
    assert m.high_frequency_share(noise) == pytest.approx(1 - np.pi / 16, abs=0.02)


def test_edge_energy_of_a_ramp_is_its_slope() -> None:
    ramp = grey(np.broadcast_to(X / 128, (64, 64)))
    inner = m.edge_energy(ramp[:, 1:-1])  # two of the 62 columns, at the border, see half the slope
    assert inner == pytest.approx((60 + 2 * 0.5) / 62 / 128)
    assert m.edge_energy(PLAIN) == 0.0
    assert m.edge_energy(stripes(0.2)) > 3 * m.edge_energy(stripes(0.05))


def test_contrast() -> None:
    halves = np.zeros((8, 8, 3))
    halves[:4] = 1.0
    assert m.contrast(halves) == pytest.approx(0.5)
    assert m.contrast(PLAIN) == pytest.approx(0.0, abs=1e-12)


def test_colour() -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert m.saturation(red) == 1.0
    assert m.saturation(PLAIN) == 0.0
    assert m.saturation(np.zeros_like(red)) == 0.0
    assert m.colourfulness(PLAIN) == pytest.approx(0.0, abs=1e-9)
    # Uniform red: no spread, mean rg = 255, mean yb = 127.5.
    assert m.colourfulness(red) == pytest.approx(0.3 * np.hypot(255, 127.5))
    assert m.clipped(red) == 1.0
    assert m.clipped(PLAIN) == 0.0


def test_low_pass_similarity_sees_layout_and_not_detail() -> None:
    rng = np.random.default_rng(0)
    layout = np.zeros((64, 64, 3))
    layout[16:40, 8:40] = (0.9, 0.2, 0.1)
    detailed = np.clip(layout + 0.1 * (rng.random(layout.shape) - 0.5), 0, 1)
    moved = np.roll(layout, 20, axis=1)
    assert m.low_pass_similarity(layout, layout) == pytest.approx(1.0)
    assert m.low_pass_similarity(detailed, layout) > 0.99
    assert m.low_pass_similarity(moved, layout) < 0.6
    assert m.low_pass_similarity(1 - layout, layout) == pytest.approx(-1.0)
    assert m.low_pass_similarity(PLAIN, PLAIN) == 1.0
    assert m.low_pass_similarity(PLAIN, layout) == 0.0
    with pytest.raises(ValueError, match="one size"):
        m.low_pass_similarity(layout, layout[:32])


def test_blur_equals_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((20, 33, 3))
    for sigma in (0.7, 2.0, 6.0):
        expected = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect", radius=int(np.ceil(4 * sigma)))
        np.testing.assert_allclose(m.blur(image, sigma), expected, atol=1e-12)


def test_uint8_and_float_agree_and_shapes_are_checked() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    for measure in m.MEASURES.values():
        assert measure(image) == pytest.approx(measure(image / 255))
    with pytest.raises(ValueError, match=r"\(y, x, 3\)"):
        m.contrast(image[..., 0])
