"""Maps that are derived from the hits: boundaries, saliency, human parts, and how all maps agree."""

from __future__ import annotations

import numpy as np
import pytest

from mtvision.data.synthetic import make_scene, render
from mtvision.data.synthetic.labels import JUMP, SALIENT_CLASSES, boundaries, human_parts, salient
from mtvision.data.synthetic.scene import CLASS_ID, SKY

SIZE = (48, 64)


@pytest.fixture(scope="module")
def pictures():
    return [render(make_scene(3, "train", index), SIZE) for index in range(24)]


def test_boundaries_equal_a_loop_over_neighbours():
    rng = np.random.default_rng(0)
    shape = (9, 11)
    semseg = rng.integers(0, 3, shape).astype(np.uint8)
    instance = rng.integers(0, 2, shape).astype(np.int32)
    owner = rng.integers(0, 3, shape)
    depth = rng.choice([1.0, 1.02, 1.051, 1.2, np.inf], shape)
    expected = np.zeros(shape, dtype=np.float32)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k, m in ((i, j + 1), (i + 1, j)):
                if k == shape[0] or m == shape[1]:
                    continue
                a, b = depth[i, j], depth[k, m]
                step = owner[i, j] != owner[k, m] and a != b and abs(a - b) > JUMP * min(a, b)
                if semseg[i, j] != semseg[k, m] or instance[i, j] != instance[k, m] or step:
                    expected[(i, j) if a <= b else (k, m)] = 1
    np.testing.assert_array_equal(boundaries(semseg, instance, owner, depth), expected)


def test_every_change_of_instance_is_marked_and_every_mark_is_near_a_change_of_depth_or_instance(pictures):
    for picture in pictures:
        for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            changes = picture.instances[first] != picture.instances[second]
            assert ((picture.edge[first] + picture.edge[second])[changes] >= 1).all()
        apart = np.zeros(SIZE, dtype=bool)
        depth = np.nan_to_num(picture.depth, nan=1e9)
        for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            jump = np.abs(depth[first] - depth[second]) > JUMP * np.minimum(depth[first], depth[second])
            either = (picture.instances[first] != picture.instances[second]) | jump
            apart[first] |= either
            apart[second] |= either
        assert not (picture.edge.astype(bool) & ~apart).any()
        assert set(np.unique(picture.edge)) <= {0.0, 1.0}
        assert 0.005 < picture.edge.mean() < 0.5


def _salient_by_definition(picture):
    """The documented rule, one instance at a time."""
    height, width = SIZE
    centre = np.array([height / 2, width / 2])
    scores = {}
    for one in np.unique(picture.instances):
        mask = picture.instances == one
        names = {name for name, index in CLASS_ID.items() if index in picture.semseg[mask]}
        if not names <= set(SALIENT_CLASSES) or not 0.01 <= mask.mean() <= 0.6:
            continue
        where = np.argwhere(mask).mean(0) + 0.5
        central = 1 / (1 + ((where - centre) ** 2).sum() / (0.25 * np.hypot(height, width)) ** 2)
        contrast = np.linalg.norm(picture.image[mask].mean(0) - picture.image[~mask].mean(0)) / 255
        scores[one] = np.sqrt(mask.mean()) * central * (0.4 + contrast) * (1.5 if names == {"person"} else 1)
    best = sorted(scores, key=lambda one: -scores[one])[:2]
    chosen = [one for one in best if scores[one] >= 0.75 * scores[best[0]]]
    return np.isin(picture.instances, chosen)


def test_saliency_follows_the_rule(pictures):
    for picture in pictures:
        np.testing.assert_array_equal(picture.saliency == 1, _salient_by_definition(picture))


def test_most_pictures_have_something_salient_and_it_is_a_thing(pictures):
    assert np.mean([picture.saliency.any() for picture in pictures]) > 0.95
    things = [CLASS_ID[name] for name in SALIENT_CLASSES]
    for picture in pictures:
        assert np.isin(picture.semseg[picture.saliency == 1], things).all()
        assert set(np.unique(picture.saliency)) <= {0, 1}


def test_without_candidates_nothing_is_salient():
    walls = np.zeros(SIZE, dtype=np.uint8)
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    assert not salient(image, walls, np.ones(SIZE, dtype=np.int32)).any()
    speck, instance = walls.copy(), np.ones(SIZE, dtype=np.int32)
    speck[0, 0], instance[0, 0] = CLASS_ID["ball"], 2  # less than 1 % of the image
    assert not salient(image, speck, instance).any()


def test_human_parts_lie_exactly_on_people(pictures):
    with_people = 0
    for picture in pictures:
        person = picture.semseg == CLASS_ID["person"]
        if person.any():
            with_people += 1
            np.testing.assert_array_equal(picture.human_parts > 0, person)
            assert picture.human_parts.max() <= 6
        else:
            assert (picture.human_parts == 255).all()
    assert 0 < with_people < len(pictures)


def test_human_parts_without_people_are_all_unlabelled():
    assert (human_parts(np.zeros((3, 4), dtype=np.uint8)) == 255).all()


def test_sky_is_where_depth_and_normals_are_missing(pictures):
    for picture in pictures:
        sky = picture.semseg == SKY
        np.testing.assert_array_equal(sky, np.isnan(picture.depth))
        np.testing.assert_array_equal(sky, np.isnan(picture.normals).all(-1))
        np.testing.assert_array_equal(sky, picture.instances == 0)
        assert (picture.depth[~sky] > 0.05).all()


def test_an_instance_has_one_class(pictures):
    for picture in pictures:
        for one in np.unique(picture.instances):
            assert len(np.unique(picture.semseg[picture.instances == one])) == 1


def test_rooms_have_no_sky_and_streets_no_ceiling():
    for index in range(8):
        room = render(make_scene(0, "test", index, ("room",)), SIZE).semseg
        street = render(make_scene(0, "test", index, ("street",)), SIZE).semseg
        assert not np.isin(room, [CLASS_ID[name] for name in ("sky", "road", "building", "vehicle")]).any()
        assert not np.isin(street, [CLASS_ID[name] for name in ("ceiling", "floor", "wall", "bed")]).any()


@pytest.mark.slow
def test_every_class_occurs_and_colour_alone_does_not_tell_it():
    """Counts over 300 images; and a lookup table from colour to class, fitted on 200, fails on the others."""
    num_classes = len(CLASS_ID)
    pixels, images = np.zeros(num_classes), np.zeros(num_classes)
    table = np.zeros((16**3, num_classes))
    confusion = np.zeros((num_classes, num_classes))
    for index in range(300):
        picture = render(make_scene(0, "train", index), (48, 64))
        classes = picture.semseg.ravel().astype(int)
        counts = np.bincount(classes, minlength=num_classes)
        pixels += counts
        images += counts > 0
        red, green, blue = (picture.image.reshape(-1, 3) >> 4).astype(int).T
        colour = (red * 16 + green) * 16 + blue
        if index < 200:
            np.add.at(table, (colour, classes), 1)
        else:
            np.add.at(confusion, (classes, table[colour].argmax(1)), 1)
    assert (pixels / pixels.sum() > 0.002).all()
    assert (images / 300 > 0.05).all()
    assert (pixels / pixels.sum()).max() < 0.3
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    assert iou.mean() < 0.08
