"""Each measure against a case whose value is known without it."""

import json

import numpy as np
import pytest

from workbench.errors import WorkbenchError
from workbench.sampling import measures as m
from workbench.sampling import spectrum as sp

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


def pictures(size: int = 64) -> list[np.ndarray]:
    """Discs and bars of several sizes and colours on white, with soft edges: like the embedded data set, but made here."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size]
    made = []
    for _ in range(6):
        image = np.ones((size, size, 3))
        for _ in range(4):
            cy, cx, r = rng.uniform(16, 48), rng.uniform(16, 48), rng.uniform(4, 14)
            inside = 1 / (1 + np.exp(np.hypot(y - cy, (x - cx) * rng.uniform(0.5, 2)) - r))
            image = image * (1 - inside[..., None]) + inside[..., None] * rng.random(3)
        made.append(image)
    return made


# Whole half periods over 64 px (k / 128 cycles a pixel) in the middle of each band.
TONES = {0: 3, 1: 6, 2: 12, 3: 24, 4: 48}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("band", "half_periods"), TONES.items())
def test_a_pure_tone_has_its_power_in_its_band_alone(band: int, half_periods: int, axis: int) -> None:
    tone = grey(np.broadcast_to(0.5 + 0.3 * np.cos(np.pi * half_periods * (X + 0.5) / 64), (64, 64)))
    power = sp.power_by_band(m.luma(tone if axis else tone.transpose(1, 0, 2)))
    assert power[band] == pytest.approx(0.3**2 / 2)
    assert np.delete(power, band).max() < 1e-20
    assert m.band_power(tone)[band] == pytest.approx(np.log(0.045))


@pytest.mark.parametrize("phase", [0.0, 0.9, 2.1])
@pytest.mark.parametrize(("band", "frequency"), [(1, 0.045), (2, 0.09), (3, 0.18), (4, 0.35)])
def test_a_tone_that_does_not_fit_the_picture_leaks_little(band: int, frequency: float, phase: float) -> None:
    power = sp.power_by_band(0.5 + 0.4 * np.sin(2 * np.pi * frequency * np.add.outer(X, 0 * X) + phase))
    assert power[band] > 0.85 * power.sum()
    assert power[np.abs(np.arange(5) - band) > 1].sum() < 0.05 * power.sum()


def test_bands_add_up_to_the_variance() -> None:
    for shape in ((64, 64), (48, 80), (33, 50)):
        y_YX = np.random.default_rng(0).random(shape)
        assert sp.power_by_band(y_YX).sum() == pytest.approx(y_YX.var())


def test_white_noise_fills_bands_by_their_area() -> None:
    power = sp.power_by_band(np.random.default_rng(0).standard_normal((256, 256)))
    discs = [np.pi * edge**2 for edge in sp.BAND_EDGES[:-1]] + [1.0]
    np.testing.assert_allclose(power[1:], np.diff(discs)[1:], rtol=0.08)


def test_an_edge_of_the_picture_is_no_edge_of_the_signal() -> None:
    ramp = np.broadcast_to(X / 64, (64, 64))
    power = sp.power_by_band(ramp)
    assert power[3:].sum() < 1e-4 * power.sum()
    wrapped = np.abs(np.fft.fft2(ramp - ramp.mean())) ** 2
    high = np.abs(np.fft.fftfreq(64)) > 1 / 8
    assert wrapped[:, high].sum() > 0.04 * wrapped.sum()  # what a plain Fourier transform makes of the same picture


def test_band_power_is_floored_where_eight_bits_end() -> None:
    np.testing.assert_allclose(m.band_power(PLAIN), np.log(sp.POWER_FLOOR))
    rounded = np.random.default_rng(0).uniform(100, 150, (128, 128, 3))
    added = m.luma(np.round(rounded).astype(np.uint8)) - m.luma(rounded / 255)
    assert added.var() == pytest.approx(sp.POWER_FLOOR, rel=0.05)


def test_blur_takes_high_bands_and_noise_adds_to_them() -> None:
    rng = np.random.default_rng(0)
    for image in pictures():
        plain, soft = m.band_power(image), m.band_power(m.blur(image, 1.0))
        noisy = m.band_power(image + 0.03 * rng.standard_normal((64, 64, 1)))
        # A Gaussian of sigma 1 px passes exp(−4π²f²) of the power: 0.085 at 1/4, at most 0.54 between 1/8 and 1/4.
        assert soft[4] < plain[4] + np.log(0.2)
        assert soft[3] < plain[3] + np.log(0.8)
        assert soft[0] == pytest.approx(plain[0], abs=0.05)
        assert noisy[4] > plain[4] + 1
        assert noisy[0] == pytest.approx(plain[0], abs=0.05)


def test_moving_a_picture_changes_its_band_power_little() -> None:
    for image in pictures():
        moved = np.pad(image, ((3, 0), (0, 2), (0, 0)), mode="edge")[:64, 2:]
        assert np.abs(m.band_power(moved) - m.band_power(image)).max() < 0.8
        assert np.abs(m.band_power(moved) - m.band_power(image))[3:].max() < 0.15


def test_spectral_distance_by_hand() -> None:
    mean, spread = np.array([-3.0, -4, -5, -6, -7]), np.array([1.0, 1, 2, 1, 0.5])
    tone = grey(np.broadcast_to(0.5 + 0.3 * np.cos(np.pi * 12 * (X + 0.5) / 64), (64, 64)))
    bands = m.band_power(tone)
    reference = m.Reference(mean, spread, 64, 2, {"tone": bands, "other": bands + 3 * (np.arange(5) == 0)}, "made here")
    assert m.spectral_distance(tone, reference) == pytest.approx(np.sqrt(np.mean(((bands - mean) / spread) ** 2)))
    assert m.own_spectral_distance(tone, "tone", reference) == 0.0
    assert m.own_spectral_distance(tone, "other", reference) == pytest.approx(3 / np.sqrt(5))
    assert np.isnan(m.own_spectral_distance(tone, "none of them", reference))
    assert np.isnan(m.spectral_distance(tone[:32], reference))


def test_spectral_distance_of_real_pictures_is_about_one_and_grows_with_blur_and_noise() -> None:
    images = np.stack(pictures())
    reference = m.Reference.of(images, list("abcdef"), "made here")
    assert np.sqrt(np.mean([m.spectral_distance(i, reference) ** 2 for i in images])) == pytest.approx(np.sqrt(5 / 6))
    noise = np.random.default_rng(0).standard_normal((64, 64, 1))
    for change in (lambda i: m.blur(i, 2.0), lambda i: i + 0.1 * noise):
        own = [m.own_spectral_distance(change(i), c, reference) for i, c in zip(images, "abcdef", strict=True)]
        assert min(own) > 0.5
        assert np.mean([m.spectral_distance(change(i), reference) for i in images]) > 1.5


def test_a_reference_is_read_as_it_was_written(tmp_path) -> None:
    made = m.Reference.of(np.stack(pictures()), list("abcdef"), "made here")
    made.save(tmp_path / "reference.json")
    read = m.Reference.read(tmp_path / "reference.json")
    np.testing.assert_allclose(read.mean, made.mean, atol=6e-5)
    assert (read.size, read.pictures, read.source) == (64, 6, "made here")
    assert list(read.by_caption) == list("abcdef")
    for bad in ("no json", "[]", '{"size": 64}', (tmp_path / "reference.json").read_text().replace("0.25", "0.26")):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(WorkbenchError, match="bad.json"):
            m.Reference.read(tmp_path / "bad.json")
    with pytest.raises(WorkbenchError, match="none.json"):
        m.Reference.read(tmp_path / "none.json")


class Fixed:
    """A judge that knows the prompts 'a' and 'b'."""

    def judge(self, images_SYX3, prompts):
        known = np.array([p in ("a", "b") for p in prompts])
        return np.where(known, 2.0, np.nan), np.where(known, 1.0, np.nan)


def test_image_measures_are_those_of_each_image() -> None:
    images = np.stack(pictures())
    reference = m.Reference.of(images, list("abcdef"), "made here")
    found = m.image_measures(images, list("abcdef"), plain_SYX3=images[::-1], judge=Fixed(), reference=reference)
    assert list(found) == [name for name in m.TABLE if name != "clip_score"]
    for name, measure in m.MEASURES.items():
        assert found[name].tolist() == [measure(image) for image in images]
    assert found["band_power_3"][2] == m.band_power(images[2])[3]
    assert found["low_pass_similarity"][0] == m.low_pass_similarity(images[0], images[-1])
    assert found["own_spectral_distance"].tolist() == [0.0] * 6
    np.testing.assert_array_equal(np.isnan(found["semantic"]), [False, False, True, True, True, True])


def test_what_is_not_given_is_left_out_by_name() -> None:
    images = np.stack(pictures())[:2]
    found = m.image_measures(images, ["a", "b"])
    left_out = m.omitted()
    assert set(found) | set(left_out) == set(m.TABLE)
    assert set(left_out) == {
        "spectral_distance", "own_spectral_distance", "low_pass_similarity", "semantic", "recognised", "clip_score"
    }  # fmt: skip
    assert "judge" in left_out["semantic"]


def test_an_image_that_is_not_finite_has_no_measures_and_spares_the_others() -> None:
    images = np.stack(pictures())[:3]
    images[1, 5, 5, 0] = np.nan
    found = m.image_measures(images, ["a", "b", "a"], plain_SYX3=images, judge=Fixed())
    for name, values in found.items():
        assert np.isnan(values).tolist() == [False, True, False], name


def test_image_measures_refuses_what_does_not_fit() -> None:
    images = np.stack(pictures())[:2]
    with pytest.raises(ValueError, match="one prompt each"):
        m.image_measures(images, ["a"])
    with pytest.raises(ValueError, match="same shape"):
        m.image_measures(images, ["a", "b"], plain_SYX3=images[:1])


def test_the_table_covers_every_measure_with_a_known_kind() -> None:
    assert set(m.MEASURES) <= set(m.TABLE)
    assert set(m.KINDS.values()) == {"detail", "content", "distance", "other"}
    assert [m.KINDS[f"band_power_{k}"] for k in range(5)] == ["other"] * 3 + ["detail"] * 2
    assert len({row.label for row in m.TABLE.values()}) == len(m.TABLE)


def test_the_page_of_measures_is_the_one_its_script_writes() -> None:
    from benchmarks import measures as script

    numbers = json.loads(script.NUMBERS.read_text(encoding="utf-8"))
    assert script.page(numbers) == script.PAGE.read_text(encoding="utf-8")
