"""What stands where on a sheet."""

import numpy as np
import pytest
import torch

from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD, Meta, Sample
from mtvision.protocols import SYNTHETIC
from mtvision.protocols.tasks import depth, edge, normals, semseg
from mtvision.visualize import colourise, denormalise, legend, panel, sheet
from mtvision.visualize.colours import NO_LABEL, depth_colours, generate_palette
from mtvision.visualize.drawing import hatch, resized, shorten, text_width
from mtvision.visualize.legends import MAX_LINES, disc_mask, flow, log_ticks, sphere_normals, swatches, ticks
from mtvision.visualize.panels import map_tile, tile, tile_size

CLASSES = semseg(("wall", "floor", "ceiling"))
H, W = 24, 32


def colours_of(picture):
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def scene(seed=0):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (H, W, 3), dtype=np.uint8)
    maps = {
        "semseg": random.integers(0, 2, (H, W)),
        "depth": random.random((1, H, W), dtype=np.float32) + 1,
        "normals": np.tile(np.array([0, 0, 1.0], dtype=np.float32)[:, None, None], (1, H, W)),
        "edge": random.random((1, H, W), dtype=np.float32),
    }
    return pixels, maps


def normalise(pixels):
    values = (pixels / 255 - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD)
    return torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))


def sample(seed, labels, identity="x"):
    pixels, maps = scene(seed)
    kept = {name: torch.from_numpy(np.asarray(maps[name])) for name in labels}
    return Sample(image=normalise(pixels), labels=kept, meta=Meta(identity, (H, W), (H, W)))


TASKS = (CLASSES, depth(), normals(), edge())


def test_denormalise_undoes_the_normalisation_exactly():
    pixels, _ = scene()
    np.testing.assert_array_equal(denormalise(normalise(pixels)), pixels)
    assert denormalise(pixels) is pixels


@pytest.mark.parametrize("bad", [np.zeros((3, 4, 4), dtype=np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4))])
def test_denormalise_refuses_other_layouts(bad):
    with pytest.raises(ValueError, match="normalised float image"):
        denormalise(bad)


@pytest.mark.parametrize(
    ("image", "shown"),
    [((96, 128), (192, 256)), ((24, 32), (192, 256)), ((300, 400), (300, 400)), ((1024, 2048), (224, 448))],
)
def test_small_images_grow_by_a_whole_factor(image, shown):
    assert tile_size(image) == shown


def test_a_map_keeps_its_exact_colours_when_enlarged():
    ids = np.array([[0, 1], [2, 255]])
    drawn = map_tile(CLASSES, ids, (40, 40), None)
    expected = np.repeat(np.repeat(colourise(CLASSES, ids), 20, axis=0), 20, axis=1)
    assert (drawn[1:20, 1:39] == expected[1:20, 1:39]).all()
    assert (drawn[20:39, 1:20] == expected[20:39, 1:20]).all()
    corner = colours_of(drawn[21:39, 21:39])
    assert NO_LABEL in corner  # hatched: two greys, no class colour
    assert len(corner) == 2


def test_reducing_never_mixes_class_colours():
    ids = np.random.default_rng(0).integers(0, 3, (90, 120))
    inside = map_tile(CLASSES, ids, (30, 40), None)[1:-1, 1:-1]
    assert colours_of(inside) <= set(generate_palette(3))


def test_aspect_ratio_is_kept():
    wide = np.zeros((10, 40, 3), dtype=np.uint8)
    inside = tile(wide, (40, 40))[1:-1, 1:-1]
    assert (inside.sum(axis=2) == 0).any(axis=1).sum() in (10, 11)


def test_prediction_and_label_share_the_depth_range():
    pixels, _ = scene()
    near, far = np.full((1, H, W), 1.0), np.full((1, H, W), 2.0)
    both = panel(pixels, {"depth": near}, [depth()], {"depth": far})
    low, high = (tuple(depth_colours(np.array([[level]]))[0, 0].tolist()) for level in (0.0, 1.0))
    assert {low, high} <= colours_of(both)


def test_panel_with_labels_has_a_row_more_than_without():
    pixels, maps = scene()
    one = panel(pixels, maps, TASKS[:3])
    two = panel(pixels, maps, TASKS[:3], maps)
    assert two.shape[0] - one.shape[0] == 192 + 4  # a tile and the gap above it
    assert one.dtype == np.uint8
    assert one.shape[2] == 3


def test_panel_takes_tensors_and_normalised_images_alike():
    pixels, maps = scene()
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in maps.items()}
    np.testing.assert_array_equal(panel(pixels, maps, TASKS), panel(normalise(pixels), tensors, TASKS))


def test_tiles_flow_over_rows_without_labels():
    pixels, maps = scene()

    five = panel(pixels, maps, TASKS)  # image and four tasks: 3 + 2
    assert five.shape[1] == 2 * 14 + 3 * 256 + 2 * 10


def test_tasks_without_any_map_are_left_out():
    pixels, maps = scene()
    only = {"depth": maps["depth"]}
    np.testing.assert_array_equal(panel(pixels, only, TASKS), panel(pixels, only, [depth()]))


def test_sheet_shows_missing_labels_and_every_sample():
    samples = [sample(0, ["semseg", "depth"], "first"), sample(1, ["semseg"], "second")]
    picture = sheet(samples, [CLASSES, depth()])
    alone = sheet(samples[:1], [CLASSES, depth()])
    assert picture.shape[0] - alone.shape[0] == 192 + 4
    assert picture.shape[1] == alone.shape[1]
    with pytest.raises(ValueError, match="no sample"):
        sheet([], [CLASSES])


def test_all_six_tasks_can_be_drawn():
    maps = {
        "semseg": np.zeros((H, W), dtype=np.int64), "human_parts": np.full((H, W), 255),
        "saliency": np.random.default_rng(0).random((1, H, W)), "edge": np.zeros((1, H, W)),
        "depth": np.full((1, H, W), np.nan), "normals": np.full((3, H, W), np.nan),
    }  # fmt: skip
    assert panel(scene()[0], maps, SYNTHETIC.tasks, maps).shape[1] > 7 * 256


def test_legend_lists_present_classes_and_no_others():
    ids = np.array([[0, 0, 2, 255]])
    wall, floor, ceiling = generate_palette(3)
    drawn = colours_of(legend(CLASSES, [ids], 300))
    assert {wall, ceiling, NO_LABEL} <= drawn
    assert floor not in drawn
    assert NO_LABEL not in colours_of(legend(CLASSES, [ids[:, :3]], 300))


def test_long_legends_are_cut_and_counted():
    entries = [(f"a fairly long class name {index}", (index, 0, 0)) for index in range(40)]
    picture = swatches(entries, 200)
    assert picture.shape[0] == MAX_LINES * 19
    shown = colours_of(picture) & {colour for _, colour in entries}
    assert (MAX_LINES - 1, 0, 0) in shown  # one a line
    assert (MAX_LINES, 0, 0) not in shown


def test_flow_breaks_lines_where_the_next_would_not_fit():
    assert flow([40, 40, 40], 100, 10) == [[(0, 50), (50, 100)], [(0, 50)]]
    assert flow([300], 100, 10) == [[(0, 310)]]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.7, 9.6), (-3, 1e-3), (1e-4, 3e-4), (12, 4000)])
def test_ticks_are_few_round_and_inside(low, high):
    values = ticks(low, high)
    assert 2 <= len(values) <= 5
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    steps = np.diff(values)
    np.testing.assert_allclose(steps, steps[0])


def test_log_ticks():
    assert log_ticks(0.9, 22) == [1, 2, 5, 10, 20]
    assert log_ticks(0.03, 0.5) == [0.05, 0.1, 0.2, 0.5]


def test_the_ball_of_normals_is_made_of_unit_vectors():
    vectors = sphere_normals(33)
    inside = disc_mask(33)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0)[inside], 1)
    np.testing.assert_allclose(vectors[:, 16, 16], [0, 0, 1], atol=1e-9)
    assert vectors[0, 16, 32] > 0.95  # right: x
    assert vectors[1, 0, 16] > 0.95  # top: y


def test_text_is_shortened_to_fit():
    assert shorten("wall", 200, 12) == "wall"
    cut = shorten("a very long class name", 60, 12)
    assert cut.endswith("…")
    assert text_width(cut, 12) <= 60


def test_hatch_and_resize_leave_their_input_alone():
    picture = np.full((12, 12, 3), 200, dtype=np.uint8)
    assert (hatch(picture, np.ones((12, 12), dtype=bool)) != picture).any()
    assert (picture == 200).all()
    assert resized(picture, (12, 12), smooth=True) is picture


@pytest.mark.slow
def test_real_frames_can_be_drawn(real_data):
    import cv2

    folder = real_data / "nyud_samples"
    pixels = np.ascontiguousarray(cv2.imread(str(folder / "000464.png"))[..., ::-1])
    ids = cv2.imread(str(folder / "segm_gt_000464.png"), cv2.IMREAD_UNCHANGED)
    metres = cv2.imread(str(folder / "depth_gt_000464.png"), cv2.IMREAD_UNCHANGED) / np.float32(5000)
    metres[metres == 0] = np.nan
    names = semseg(tuple(f"class {index}" for index in range(40)))
    labels = {"semseg": ids, "depth": metres[None]}
    picture = panel(pixels, labels, [names, depth()], labels)
    present = {generate_palette(40)[index] for index in np.unique(ids) if index != 255}
    assert present <= colours_of(picture)


def test_zero_has_no_sign():
    assert f"{ticks(-0.01, 4)[0]:g}" == "0"
