"""The page of an object: what stands in it, and what a browser shows of it."""

import base64
import io
import json
import math
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from made_figure import Figure, front_camera
from unflat.errors import UserError
from unflat.export import Mesh, mesh_of_field, write_mesh_viewer

PAPER = np.array([0.937, 0.933, 0.918]) * 255  # the page's background in the light scheme
AZIMUTH, ELEVATION, RADIUS = 0.3, 0.2, 3.0

# Mean error over the canvas, in grey levels, of which most are paper. Measured are 0.6 to 0.8: the
# mesh's cells and smooth edges. The nearest of the wrong cameras, behind the figure, is at 1.8.
TOLERANCE, WRONG = 1.1, 1.6


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return mesh_of_field(Figure(), 72)


@pytest.fixture(scope="module")
def page_file(mesh, tmp_path_factory):
    frames = [np.full((20, 20, 3), (60 * n, 0, 0), dtype=np.uint8) for n in range(4)]
    return write_mesh_viewer(
        mesh,
        front_camera(AZIMUTH, ELEVATION, RADIUS),
        tmp_path_factory.mktemp("viewer") / "viewer.html",
        title="figure <b>",
        info={"model": "made", "licence": "CC0 <i>"},
        picture=np.full((64, 64, 3), 200, dtype=np.uint8),
        pivot=torch.zeros(3),
        frames=frames,
        describe="a ball on a block",
    )


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def inflated(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(np.int64)


def test_page_holds_the_mesh(mesh, page_file):
    packed = data_of(page_file.read_text())["mesh"]
    count = len(mesh.vertices)
    for axis, text in enumerate(packed["words"]):
        data = inflated(text)
        zigzag = data[:count] * 256 + data[count:]
        words = np.cumsum(np.where(zigzag % 2, -(zigzag + 1) // 2, zigzag // 2)) % 65536
        low, high = packed["low"][axis], packed["high"][axis]
        found = low + (high - low) * words / 65535
        np.testing.assert_allclose(found, mesh.vertices[:, axis], atol=(high - low) / 65535)
    data = inflated(packed["triangles"]).reshape(4, -1)
    zigzag = ((data[0] * 256 + data[1]) * 256 + data[2]) * 256 + data[3]
    steps = np.where(zigzag % 2, -(zigzag + 1) // 2, zigzag // 2)
    np.testing.assert_array_equal(np.cumsum(steps).reshape(-1, 3), mesh.faces)
    colors = np.cumsum(inflated(packed["colors"]).reshape(3, -1), axis=1) % 256
    np.testing.assert_array_equal(colors.T, mesh.colors)


def test_page_is_one_strict_file(page_file):
    page = page_file.read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(?!data:)", page), "a file from elsewhere"
    assert page.count("<script") == 2
    assert '<img id="layer-0" src="data:image/png' in page
    assert 'alt="a ball on a block"' in page
    assert "<title>figure &lt;b&gt;" in page
    assert len(page) < 0.6e6


def test_what_cannot_be_shown_is_refused(mesh, tmp_path):
    about = {"title": "x", "info": {}, "picture": np.zeros((4, 4, 3), np.uint8)}
    empty = Mesh(mesh.vertices, mesh.faces[:0], mesh.colors, world="object")
    with pytest.raises(UserError, match=r"x\.html: the object has no surface to show; look at its"):
        write_mesh_viewer(empty, front_camera(), tmp_path / "x.html", **about)
    scene = Mesh(mesh.vertices, mesh.faces, mesh.colors)
    with pytest.raises(ValueError, match="a mesh of the scene world"):
        write_mesh_viewer(scene, front_camera(), tmp_path / "x.html", **about)
    assert not (tmp_path / "x.html").exists()


def reference(height: int, width: int, yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """Every third pixel of the figure by sphere tracing, in grey levels.

    Written without the package's camera code: the camera stands on a sphere around the origin, at
    an azimuth and an elevation to which the turn is added, and looks at the origin.
    """
    a, e = AZIMUTH + math.radians(yaw_deg), ELEVATION + math.radians(pitch_deg)
    outward = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    right = np.array([math.cos(a), 0, -math.sin(a)])
    down = np.cross(-outward, right)
    side = min(height, width)
    y, x = np.mgrid[:height:3, :width:3] + 0.5
    reach = 2 * math.tan(math.radians(45) / 2) / side
    x, y = (x - width / 2) * reach, (y - height / 2) * reach
    rays = x[..., None] * right + y[..., None] * down - outward
    rays = torch.from_numpy(rays / np.linalg.norm(rays, axis=-1, keepdims=True))
    figure, start = Figure().double(), torch.from_numpy(RADIUS * outward)
    distance = torch.zeros(x.shape, dtype=torch.float64)
    for _ in range(40):
        distance = (distance + figure.distance(start + distance[..., None] * rays)).clamp_max(9)
    points = start + distance[..., None] * rays
    hit = (figure.distance(points) < 2e-3).numpy()
    colors = figure(points).features.numpy() * 255
    return np.where(hit[..., None], colors, PAPER)


def error(seen: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(seen.astype(float) - wanted).mean())


@pytest.fixture(scope="module")
def browser(browser_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, page_file):
    """Opens the page; the end of the test asserts that nothing was complained of or asked for."""
    contexts, complaints, requests = [], [], []

    def heard(text):
        # a driver's remark on its own speed, which a busy machine provokes, is no complaint
        if "GL Driver Message (OpenGL, Performance" not in text:
            complaints.append(text)

    def opened(script: str = "", clock: bool = False, **options):
        context = browser.new_context(
            **({"viewport": {"width": 420, "height": 520}, "color_scheme": "light"} | options)
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        if script:
            page.add_init_script(script)
        if clock:
            page.clock.install()
        page.goto(page_file.as_uri())
        page.evaluate("window.unflat.ready")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [
        page_file.as_uri()
    ] * len(contexts)


def shot(page) -> np.ndarray:
    page.evaluate("document.activeElement.blur()")  # takes the focus ring away
    picture = page.locator("#canvas").screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(float)


@pytest.mark.browser
def test_browser_shows_what_sphere_tracing_shows(open_page):
    page = open_page(reduced_motion="reduce")
    for yaw, pitch in ((0, 0), (130, 0), (-60, 35)):
        page.evaluate(f"window.unflat.setCamera({yaw}, {pitch})")
        seen = shot(page)
        size = seen.shape[:2]
        seen = seen[::3, ::3]
        assert error(seen, reference(*size, yaw, pitch)) < TOLERANCE, (yaw, pitch)
        for wrong in ((yaw + 180, pitch), (yaw + 20, pitch), (yaw, pitch + 15)):
            assert error(seen, reference(*size, *wrong)) > WRONG, (yaw, pitch, wrong)


@pytest.mark.browser
def test_keys_turn_it_all_around_and_say_from_where(open_page):
    page = open_page(reduced_motion="reduce")
    canvas = page.locator("#canvas")
    expect = pytest.importorskip("playwright.sync_api").expect
    label = "a ball on a block, seen from the front, slightly above"
    expect(canvas).to_have_attribute("aria-label", label, timeout=20_000)
    for _ in range(17):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("window.unflat.camera().yawDeg") == pytest.approx(170)
    label = "a ball on a block, seen from behind, slightly above"
    expect(canvas).to_have_attribute("aria-label", label, timeout=20_000)
    for _ in range(12):
        page.keyboard.press("ArrowUp")
    pitch = page.evaluate("window.unflat.camera().pitchDeg")
    assert pitch + math.degrees(ELEVATION) == pytest.approx(89), "not over the pole"
    page.keyboard.press("r")
    page.keyboard.press("l")  # no limit to lift: nothing happens
    assert page.evaluate("window.unflat.camera().pitchDeg") == 0


@pytest.mark.browser
def test_page_offers_no_limit_where_there_is_none(open_page):
    page = open_page(reduced_motion="reduce")
    assert page.locator("#limit").count() == 0
    assert page.locator("#beyond").count() == 0
    assert " L" not in page.locator("#canvas").get_attribute("aria-keyshortcuts")
    page.get_by_label("Turn left").click()
    assert page.evaluate("window.unflat.camera().yawDeg") == pytest.approx(-10)
    page.locator("#help").click()
    assert "limit" not in page.locator("#help-panel").inner_text()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="About this scene").click()
    assert "CC0 <i>" in page.locator("#info-panel").inner_text()


@pytest.mark.browser
def test_mouse_turns_it_and_sets_the_pivot(open_page):
    page = open_page(reduced_motion="reduce")
    box = page.locator("#canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1])
    page.mouse.up()
    assert page.evaluate("window.unflat.camera().yawDeg") < -20, "it follows the hand"
    page.keyboard.press("r")
    before = shot(page)
    page.mouse.dblclick(middle[0], middle[1] + 0.12 * box["width"])
    pivot = page.evaluate("window.unflat.camera().pivot")
    off = Figure().distance(torch.tensor([pivot])).abs()
    assert float(off) < 0.02, "a point of the surface"
    assert error(shot(page), before) < 0.5, "nothing moves when only the pivot does"


@pytest.mark.browser
@pytest.mark.slow
def test_depth_is_bright_where_it_is_near(open_page):
    page = open_page(reduced_motion="reduce")
    page.evaluate("document.getElementById('canvas').focus()")
    page.keyboard.press("d")
    page.evaluate(f"window.unflat.setCamera({-math.degrees(AZIMUTH)}, 0)")
    seen = shot(page).mean(-1)
    inside = np.abs(seen - PAPER.mean()) > 8
    assert inside.mean() > 0.05
    rows, _ = np.nonzero(inside)
    top = seen[rows.min() + 2 : rows.min() + 6, seen.shape[1] // 2]
    nose = seen[:, seen.shape[1] // 2].max()
    assert nose > top.mean() + 15, "the ball's rim is farther than its nose"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("still", [False, True])
def test_opening_is_one_quarter_turn_and_comes_home(open_page, still):
    page = open_page(clock=True, reduced_motion="reduce" if still else "no-preference")
    yaws = []
    page.clock.fast_forward(800)
    for _ in range(12):
        page.clock.fast_forward(900)
        yaws.append(page.evaluate("window.unflat.camera().yawDeg"))
    assert yaws[-1] == pytest.approx(0, abs=1e-6)
    if still:
        assert yaws == pytest.approx([0] * 12)
    else:
        assert max(yaws) > 1
        assert min(yaws) < -1
        assert 20 < np.abs(yaws).max() <= 45


@pytest.mark.browser
def test_without_webgl_the_views_made_beforehand_are_shown(open_page):
    page = open_page(
        """
        const original = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
          return kind === "webgl2" ? null : original.call(this, kind, ...rest);
        };
        """
    )
    assert "no WebGL2" in page.locator("#message").inner_text()
    first = page.locator("#layer-0").get_attribute("src")
    page.locator("#frame").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#layer-0").get_attribute("src") != first
