"""The page in a headless Chromium: it works by mouse and keyboard, loads nothing, and fits its window."""

import io
import itertools

import numpy as np
import pytest
from board_browser import IMAGES, VIEWS, build_site, open_browser, screenshot
from board_records import hostile_record
from PIL import Image

from mtvision.report.leaderboard import build_page, write_page

pytestmark = pytest.mark.slow
playwright = pytest.importorskip(
    "playwright.sync_api", reason="`pip install playwright` for the page's tests"
)


@pytest.fixture(scope="module")
def browser():
    try:
        with open_browser() as opened:
            yield opened
    except playwright.Error as error:
        pytest.skip(
            f"no Chromium: install the package `chromium`, or set CHROMIUM ({str(error).splitlines()[0]})"
        )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return build_site(tmp_path_factory.mktemp("board"))


@pytest.fixture(params=["desktop", "phone"])
def page(browser, file, request):
    """The page; at its end: no message on the console, nothing requested but the file."""
    yield from opened(browser, file, request.param)


@pytest.fixture
def desktop(browser, file):
    yield from opened(browser, file, "desktop")


def opened(browser, file, view):
    page = browser.new_page(**VIEWS[view])
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert messages == []
    assert {url for url in requests if not url.startswith("data:")} == {file.as_uri()}


def board(page, protocol="nyud-invpt"):
    return page.locator(f".board[data-protocol='{protocol}']")


def column(page, key):
    """Printed values of a column, the rows that are shown, top to bottom, without spreads."""
    script = """([protocol, key]) => {
      const board = document.querySelector(`.board[data-protocol="${protocol}"]`);
      const index = [...board.querySelectorAll('thead th')].findIndex((head) => head.dataset.key === key);
      return [...board.querySelectorAll('tr[data-row]:not([hidden])')]
        .map((row) => row.children[index].firstElementChild.textContent.trim());
    }"""
    return page.evaluate(script, ["nyud-invpt", key])


def groups(page, key):
    """`column` cut where the group of comparable rows changes; every group stands in one piece."""
    script = """(protocol) => [...document.querySelectorAll(
      `.board[data-protocol="${protocol}"] tr[data-row]:not([hidden])`)].map((row) => row.dataset.group)"""
    labels = page.evaluate(script, "nyud-invpt")
    pairs = zip(labels, column(page, key), strict=True)
    found = [
        (label, [text for _, text in rows]) for label, rows in itertools.groupby(pairs, lambda pair: pair[0])
    ]
    assert len({label for label, _ in found}) == len(found) > 1
    return [texts for _, texts in found]


def assert_sorted(page, key, *, reverse=False):
    """Within each group of rows that compare, never across."""
    for texts in groups(page, key):
        assert numbers(texts) == sorted(numbers(texts), reverse=reverse)
        given = [bool(text) for text in texts]
        assert given == sorted(given, reverse=True), "rows without a value stay last, in both directions"


def numbers(texts):
    return [float(text) for text in texts if text]


def shown_rows(page):
    return page.locator("tr[data-row]:visible").count()


def test_sorting(desktop):
    heading = board(desktop).locator("th[data-key='depth/rmse']")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"  # an error: the best first
    assert_sorted(desktop, "depth/rmse")
    assert len(numbers(column(desktop, "depth/rmse"))) > 30
    heading.locator("button").focus()
    desktop.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert_sorted(desktop, "depth/rmse", reverse=True)
    gain = board(desktop).locator("th[data-key='gain']")
    gain.locator("button").click()
    assert (gain.get_attribute("aria-sort"), heading.get_attribute("aria-sort")) == ("descending", "none")
    assert len(numbers(column(desktop, "gain"))) == 8
    assert_sorted(desktop, "gain", reverse=True)
    gain.locator("button").click()
    assert_sorted(desktop, "gain")


def test_sorting_where_there_are_no_headings_to_click(browser, file):
    for page in opened(browser, file, "phone"):
        assert not board(page).locator("th[data-key='semseg/miou'] button").is_visible()
        before = column(page, "semseg/miou")
        board(page).locator("[data-sorter]").select_option(label="semseg mIoU ↑")
        assert_sorted(page, "semseg/miou", reverse=True)
        board(page).locator("[data-sorter]").select_option("")
        assert column(page, "semseg/miou") == before


def test_filtering(page):
    everything = shown_rows(page)
    page.fill("#filter-text", "mtmamba swin")
    assert set(column(page, "method")) == {"MTMamba"}
    assert page.locator("#count").inner_text().startswith("1 of ")
    page.fill("#filter-text", "no such method")
    assert shown_rows(page) == 0
    assert board(page).locator(".none").is_visible()
    page.fill("#filter-text", "")
    page.select_option("#filter-protocol", "my-data")
    assert shown_rows(page) == 2
    page.select_option("#filter-protocol", "")
    page.select_option("#filter-backbone", "ViT-L")
    assert set(column(page, "backbone")) == {"ViT-L"}
    page.select_option("#filter-backbone", "")
    page.locator("input[value='paper']").uncheck()
    page.locator("input[value='released']").uncheck()
    assert set(column(page, "provenance")) == {"ours"}
    page.locator("input[value='paper']").check()
    page.locator("input[value='released']").check()
    assert shown_rows(page) == everything


def test_unverified_numbers_are_hidden_until_asked_for(page):
    assert page.locator("tr[data-verified=''] >> visible=true").count() == 0
    page.locator("#filter-unverified").check()
    unsure = page.locator("tr[data-verified='']:visible")
    assert unsure.count() > 0
    assert unsure.count() == unsure.locator(".badge.doubt").count()


def test_the_drawer_opens_and_closes_by_keyboard(page):
    row = board(page).locator("tr[data-kind='result']", has_text="InvPT")
    button = row.locator(".open")
    button.focus()
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    assert drawer.is_visible()
    assert drawer.locator("h2").inner_text() == "InvPT"
    assert page.evaluate("document.activeElement.textContent") == "Close"
    for _ in range(12):  # the focus never reaches the page behind
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('#drawer')"
        )
    text = drawer.inner_text()
    for words in (
        "python tools/train.py configs/made_up_0.py",
        "Published and reproduced",
        "seed noise",
        "40000",
    ):
        assert words in text
    assert drawer.locator(".curves svg.chart").count() == 3
    assert drawer.locator(".curves .line").count() >= 6
    assert drawer.locator(".panel img").count() == 2
    drawer.get_by_text("demo", exact=True).click()
    assert "name = 'nyud 0'" in drawer.locator("details pre").inner_text()
    drawer.get_by_role("button", name="Log scale").click()
    page.keyboard.press("Escape")
    assert not drawer.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "InvPT"


def test_points_of_the_scatter_open_the_drawer(page):
    figure = board(page).locator(".scatter")
    assert figure.locator(".point").count() == 8
    point = figure.locator(".point", has=page.locator("circle")).first
    assert "Δm" in point.get_attribute("aria-label")
    point.focus()
    assert figure.locator("figcaption").inner_text() == point.get_attribute("aria-label")
    page.keyboard.press("Enter")
    assert page.locator("#drawer").is_visible()
    page.keyboard.press("Escape")
    for axis, value in (("x", "latency"), ("x", "parameters"), ("y", "edge/odsF")):
        figure.locator(f"[data-axis='{axis}']").select_option(value)
        assert figure.locator(".point").count() >= 8
    page.fill("#filter-text", "padnet-is-not-there")
    assert figure.locator(".point").count() == 0
    assert board(page, "my-data").locator(".scatter").is_hidden()  # all cost the same: nothing to draw


def test_only_comparable_rows_are_on_the_frontier(desktop):
    figure = board(desktop).locator(".scatter")
    figure.locator("[data-axis='y']").select_option("edge/odsF")
    figure.locator("[data-axis='x']").select_option("macs")
    script = """(board) => {
      const keys = [...board.querySelectorAll('thead th')].map((head) => head.dataset.key);
      const [column, cost] = [keys.indexOf('edge/odsF'), keys.indexOf('macs')];
      const rows = [...board.querySelectorAll('tr[data-row]:not([hidden])')];
      return rows.map((row) => [row.children[cost].dataset.value, row.children[column].dataset.value,
        row.children[column].querySelector('sup') !== null, row.dataset.group]).filter(([x, y]) => x && y);
    }"""
    points = [(float(x), float(y), marked, group) for x, y, marked, group in board(desktop).evaluate(script)]
    assert any(marked for _, _, marked, _ in points)
    fronts = figure.locator(".front").evaluate_all("(paths) => paths.map((p) => p.getAttribute('d'))")
    found = []
    for name in dict.fromkeys(group for *_, group in points):
        kept = [(x, y) for x, y, marked, group in points if not marked and group == name]
        found.append([p for p in kept if not any(a <= p[0] and b >= p[1] and (a, b) != p for a, b in kept)])
    assert len(found) > 1  # published and own rows do not share a front
    assert sorted(path.count("L") for path in fronts) == sorted(max(len(best) - 1, 0) for best in found)


def test_two_rows_image_by_image(page):
    rows = board(page).locator("tr[data-kind='result']")
    rows.filter(has_text="InvPT").locator(".compare").check()
    assert page.locator("#tray-open").is_disabled()
    rows.filter(has_text="MTMamba").locator(".compare").check()
    page.locator("#tray-open").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#comparison")
    assert dialog.is_visible()
    assert dialog.locator("tbody tr").count() == 4
    first = dialog.locator("tbody tr").first.inner_text().split("\t")
    values = [float(text.split()[0].replace("−", "-").replace("+", "")) for text in first[1:]]
    assert values[2] == pytest.approx(values[1] - values[0], abs=0.011)
    assert ("better" in first[3]) == (values[2] > 0)
    slider = dialog.locator("input[type='range']")
    size = dialog.locator(".above img").evaluate("(node) => [node.naturalWidth, node.clientWidth > 300]")
    assert size == [960, True]
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "40"
    clip = dialog.locator(".above").evaluate("(node) => node.style.clipPath")
    assert clip.startswith("inset(0") and "60%" in clip  # noqa: PT018
    names = [dialog.locator("[role='status']").inner_text()]
    sources = [dialog.locator(".above img").get_attribute("src")]
    dialog.get_by_role("button", name="Next").click()
    names.append(dialog.locator("[role='status']").inner_text())
    sources.append(dialog.locator(".above img").get_attribute("src"))
    assert names == ["image-0, 1 of 2", "image-1, 2 of 2"]
    assert len(set(sources)) == 2
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "tray-open"


def test_rows_of_two_protocols_are_not_compared(desktop):
    board(desktop).locator(".compare:visible").first.check()
    board(desktop, "my-data").locator(".compare").first.check()
    assert desktop.locator("#tray-open").is_disabled()
    assert "different protocols" in desktop.locator("#tray-text").inner_text()
    desktop.locator("#tray-clear").click()
    assert not desktop.locator("#tray").is_visible()


def test_theme(browser, file):
    papers = {}
    for view, other in (("desktop", "dark"), ("dark", "light")):
        for page in opened(browser, file, view):
            button = page.locator("#theme")
            papers[view] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert button.inner_text() == f"Use {other} theme"
            button.click()
            assert page.evaluate("document.documentElement.dataset.theme") == other
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != papers[view]
            assert button.inner_text() == f"Use {'light' if other == 'dark' else 'dark'} theme"
            button.click()
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == papers[view]
    assert papers["desktop"] != papers["dark"]


AFTER_LAYOUT = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits for the page's answer to a new size, which comes with its next frame."""


@pytest.mark.parametrize("width", [390, 761, 1024, 1280, 1920])
def test_no_column_is_cut_and_no_label_is_lost(browser, file, width):
    for page in opened(browser, file, "desktop"):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(AFTER_LAYOUT)
        cut = page.evaluate(
            """[...document.querySelectorAll('.scroll')]
               .filter((node) => node.scrollWidth > node.clientWidth).length"""
        )
        assert cut == 0
        short = page.evaluate(
            """[...document.querySelectorAll('tr[data-row]:not([hidden]) td:not(.pick)')]
               .filter((node) => node.getClientRects().length)
               .filter((node) => node.scrollWidth > node.clientWidth + 1).length"""
        )
        assert short == 0
        row = board(page).locator("tr[data-kind='result']").first
        label = row.locator("[data-label='depth RMSE m ↓']")
        shown = label.evaluate("(node) => getComputedStyle(node, '::before').content")
        cards = "cards" in board(page).get_attribute("class")
        assert shown == ('"depth RMSE m ↓"' if cards else "none")
        assert cards == (width < 1280)


def test_points_have_error_bars_and_the_colour_of_their_backbone(page):
    figure = board(page).locator(".scatter")
    assert figure.locator(".error").count() == 8  # three seeds each
    assert figure.locator(".key.backbones li").all_inner_texts() == ["Swin-L", "Swin-T", "ViT-L"]
    fills = figure.locator(".point").evaluate_all(
        """(points) => points.map((point) => [document.querySelector(
             `tr[data-row="${point.dataset.point}"]`).dataset.family,
             getComputedStyle(point.querySelector('.dot')).fill])"""
    )
    assert len({fill for _, fill in fills}) == len({family for family, _ in fills}) == 3
    assert len({tuple(pair) for pair in fills}) == 3
    bar = figure.locator(".error").first.bounding_box()
    values = board(page).locator("td[data-label='Δm % ↑'][data-std]")
    std = [float(values.nth(index).get_attribute("data-std")) for index in range(8)]
    heights = figure.locator(".error").evaluate_all("(bars) => bars.map((bar) => bar.getBBox().height)")
    ratios = sorted(height / size for height, size in zip(sorted(heights), sorted(std), strict=True))
    assert ratios[-1] == pytest.approx(ratios[0], rel=0.01)  # all of one scale
    assert bar["height"] > 0


def test_a_name_without_room_in_the_chart_stands_below_it(page):
    figure = board(page).locator(".scatter")
    figure.locator("[data-axis='x']").select_option("parameters")
    figure.locator("[data-axis='y']").select_option("semseg/miou")
    shown = {text for text in figure.locator(".chart .name").all_text_contents() if not text.isdigit()}
    numbers = [int(text) for text in figure.locator(".chart .name").all_text_contents() if text.isdigit()]
    listed = figure.locator(".numbered li")
    assert sorted(numbers) == list(range(1, listed.count() + 1))
    assert len(shown) + len(numbers) <= figure.locator(".point").count()
    if page.viewport_size["width"] < 700:
        assert numbers  # the made-up records have points that lie close together
        name = listed.first.inner_text()
        listed.first.locator("button").click()
        assert page.locator("#drawer h2").inner_text() == name
        page.keyboard.press("Escape")


LUMINANCE = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const silent = ['SCRIPT', 'STYLE', 'OPTION'].includes(node.tagName);
    if (!own || silent || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const ink = node.closest('svg') ? style.fill : style.color;
    found[node.tagName + '.' + (node.getAttribute('class') || '')] = [parse(ink).slice(0, 3), ground(node)];
  }
  return found;
}"""


def contrast(ink, paper):
    def luminance(colour):
        values = [value / 255 for value in colour]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("view", ["desktop", "dark", "phone"])
def test_contrast_is_at_least_aa(browser, file, view):
    for page in opened(browser, file, view):
        page.locator("#filter-unverified").check()
        page.locator(".compare:visible").first.check()
        pairs = page.evaluate(LUMINANCE)
        board(page).locator("tr[data-kind='result'] .open").first.click()
        pairs.update(page.evaluate(LUMINANCE))
        assert len(pairs) > 25
        low = {name: pair for name, pair in pairs.items() if contrast(*pair) < 4.5 and "primary" not in name}
        assert low == {}


def test_nothing_is_wider_than_the_window(page):
    width = page.viewport_size["width"]
    for action in ("", "#filter-unverified"):
        if action:
            page.locator(action).check()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        names = "header, form, main, .board, .scatter, .scroll, .notes, footer"
        wide = page.evaluate(
            """(names) => [...document.querySelectorAll(names)].filter((node) => node.getClientRects().length)
               .map((node) => node.getBoundingClientRect())
               .filter((box) => box.left < 0 || box.right > innerWidth).length""",
            names,
        )
        assert wide == 0


def test_layout(page):
    """Boxes lie where a reader expects them."""
    phone = page.viewport_size["width"] < 700
    boxes = [page.locator(name).first.bounding_box() for name in ("h1", "#filters", "#count", ".board h2")]
    tops = [box["y"] for box in boxes]
    assert tops == sorted(tops)
    figure, table = (
        board(page).locator(".scatter").bounding_box(),
        board(page).locator("table").bounding_box(),
    )
    assert figure["y"] + figure["height"] <= table["y"]
    cells = board(page).locator("tr[data-row]:visible").first.locator("th, td:visible:not(.pick)")
    positions = [cells.nth(index).bounding_box() for index in range(4)]
    if phone:  # a card: the name above, values side by side below it
        assert positions[0]["y"] + positions[0]["height"] <= positions[1]["y"]
        assert positions[0]["width"] > 250
    else:  # a row
        assert max(abs(box["y"] - positions[0]["y"]) for box in positions) < 2
        assert [box["x"] for box in positions] == sorted(box["x"] for box in positions)
    targets = page.locator("main button:visible, form select:visible, .compare:visible")
    smallest = min(targets.nth(index).bounding_box()["height"] for index in range(min(targets.count(), 20)))
    assert smallest >= 16


@pytest.mark.parametrize("view", list(VIEWS))
def test_it_looks_like_the_pictures_of_the_documentation(browser, file, view):
    """Coarsely, so that another font passes and another layout or theme does not."""

    def coarse(image):
        return np.asarray(image.convert("L").resize((24, 24), Image.Resampling.BOX), dtype=float)

    shown = coarse(Image.open(io.BytesIO(screenshot(browser, file, view))))
    kept = IMAGES / f"leaderboard-{view}.png"
    assert kept.stat().st_size < 200_000
    assert np.abs(shown - coarse(Image.open(kept))).mean() < 6


def test_hostile_records_run_nothing(browser, tmp_path):
    file = write_page(tmp_path, build_page([hostile_record()]))
    for page in opened(browser, file, "desktop"):
        page.on("dialog", lambda dialog: pytest.fail(f"a script of a record ran: {dialog.message}"))
        page.locator(".open").first.click()
        assert "<script>alert(1)</script>" in page.locator("#drawer").inner_text()
        assert page.locator("#drawer img, #drawer script").count() == 0
