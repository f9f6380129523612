import base64
import io
import itertools
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from frugal.errors import InputError
from frugal.lab import explore, show
from frugal.lab.pages import figures
from frugal.lab.pages.figures import COLOURS, INK, PAPER, RULE, THUMBNAIL_WIDTH, figure_output

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def lines(count=2):
    figure, axes = plt.subplots()
    for slope in range(count):
        axes.plot([0, 1], [0, slope])
    return figure


def draw(leak=0.3, units=200, kind="sparse", noisy=False):
    return lines(), f"Leak {leak}, {units} units, {kind}, noisy: {noisy}.", "Two lines."


@pytest.fixture
def shown(monkeypatch):
    """The outputs that have been displayed, as pairs of data and metadata."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: outputs.append((data, metadata)))
    return outputs


def svg_of(data):
    return base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', data["text/html"])[1]).decode()


def linear(colour):
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2 contrast ratio."""
    dark, light = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def perceived(rgb):
    """CIE L*a*b* of linear RGB, white D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ rgb.clip(0, 1) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira and Fernandes (2009), severity 1.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("paper", PAPER)
@pytest.mark.parametrize("name", COLOURS)
def test_every_family_stands_out_from_both_papers(name, paper):
    assert contrast(COLOURS[name], paper) >= 3  # WCAG's limit for graphics


@pytest.mark.parametrize(("ink", "paper"), list(zip(INK, PAPER, strict=True)))
def test_ink_can_be_read_on_its_paper(ink, paper):
    assert contrast(ink, paper) >= 7


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_families_differ_for_colour_blind_readers(blindness):
    matrix = np.array(BLINDNESS[blindness])
    seen = {name: perceived(matrix @ linear(colour)) for name, colour in COLOURS.items() if name != "baseline"}
    closest = min(np.linalg.norm(seen[one] - seen[other]) for one, other in itertools.combinations(seen, 2))
    assert closest > 15  # 2.3 is a just noticeable difference


def test_a_figure_is_shown_with_caption_and_alt_text_and_closed(shown):
    figure = lines()
    show(figure, "Caption <1>", 'Words with "quotes"')
    html = shown[0][0]["text/html"]
    assert "<figcaption>Caption &lt;1&gt;</figcaption>" in html
    assert 'alt="Words with &quot;quotes&quot;"' in html
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize(("caption", "alt"), [("", "alt"), ("caption", " "), (None, "alt")])
def test_a_figure_without_caption_or_alt_text_is_refused(caption, alt):
    with pytest.raises(InputError, match=r"caption|alt"):
        show(lines(), caption, alt)


def test_the_same_figure_gives_the_same_bytes():
    assert figure_output(lines(), "c", "a") == figure_output(lines(), "c", "a")


def test_ink_paper_and_grid_follow_the_readers_colour_scheme():
    svg = svg_of(figure_output(lines(), "c", "a")[0])
    drawing = re.sub(r"<style>:root.*?</style>", "", svg)
    assert not any(colour in drawing for pair in (INK, PAPER, RULE) for colour in pair)
    assert all(f"var(--{name})" in drawing for name in ("ink", "paper", "rule"))


def test_a_control_character_in_a_text_leaves_the_figure_valid():
    figure = lines()
    figure.text(0.5, 0.5, "\x01")
    ElementTree.fromstring(svg_of(figure_output(figure, "A caption.", "Lines.")[0]))


def saying(text):
    figure, axes = plt.subplots()
    axes.set_yticks([0, 1], [text, "b"])
    axes.text(0.5, 0.5, text, family="monospace")
    return figure


def test_characters_that_the_font_lacks_are_drawn_with_another_that_is_installed(recwarn):
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    symbols, own = (FT2Font(findfont(name)).get_charmap().keys() for name in ("STIXGeneral", "DejaVu Sans"))
    html = figure_output(saying(chr(max(symbols - own))), "Symbols.", "a")[0]["text/html"]
    assert "<figcaption>Symbols.</figcaption>" in html
    assert not recwarn.list


def test_a_caption_says_how_many_characters_no_installed_font_has(monkeypatch, recwarn):
    from matplotlib.font_manager import fontManager

    few = [font for font in fontManager.ttflist if font.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(fontManager, "ttflist", few)
    figures._fonts_with.cache_clear()
    html = figure_output(saying("猫が猫を見た\x01"), "A cat.", "a")[0]["text/html"]
    figures._fonts_with.cache_clear()
    assert "A cat. No installed font has 5 of its characters, drawn as boxes" in html
    assert not recwarn.list


def test_a_figure_with_many_points_is_shown_as_png():
    figure, axes = plt.subplots()
    axes.scatter(*np.random.default_rng(0).normal(size=(2, 5000)))
    assert 'src="data:image/png;base64,' in figure_output(figure, "c", "a")[0]["text/html"]


def test_a_figure_carries_a_small_thumbnail():
    _, metadata = figure_output(lines(), "c", "a")
    content = base64.b64decode(metadata["frugal"]["thumbnail"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).width == THUMBNAIL_WIDTH
    assert len(content) < 15_000


def test_the_lab_loads_matplotlib_only_for_figures():
    program = (
        "import sys, frugal.lab; assert 'matplotlib' not in sys.modules; frugal.lab.show; sys.modules['matplotlib']"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_a_front_end_controls_become_a_sentence_in_the_caption(shown):
    explore(draw, leak=(0.1, 1.0), units=(50, 500, 50), kind=["sparse", "dense"], noisy=bool)
    (data, _metadata) = shown[0]
    assert "Leak 0.3, 200 units, sparse, noisy: False." in data["text/html"]
    assert (
        "leak from 0.1 to 1 (here 0.3); units from 50 to 500 (here 200); "
        "kind one of sparse, dense (here sparse); noisy on or off (here False)."
    ) in data["text/html"]
    assert set(data) == {"text/html", "text/plain"}


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"leek": (0, 1)}, "no such argument"),
        ({"leak": (0.5, 1.0)}, r"does not contain the default, 0\.3"),
        ({"leak": (0.1,)}, "expected"),
        ({"leak": ("a", "b")}, "expected"),
        ({"leak": 0.3}, "expected"),
        ({"kind": ["dense"]}, "does not contain the default, 'sparse'"),
        ({"units": bool}, "does not contain the default, 200"),
    ],
)
def test_a_control_that_cannot_work_is_refused(controls, message):
    with pytest.raises(InputError, match=message):
        explore(draw, **controls)


def test_a_control_needs_a_default_to_start_from():
    with pytest.raises(InputError, match="no default"):
        explore(lambda leak: None, leak=(0, 1))


def test_a_headless_client_gets_a_figure_and_no_widget():
    from nbclient import NotebookClient
    from nbformat import v4

    source = """
import matplotlib.pyplot as plt
from frugal.lab import explore

def draw(slope=1):
    figure, axes = plt.subplots()
    axes.plot([0, slope])
    return figure, f"Slope {slope}.", "A line."

explore(draw, slope=(0, 5))
"""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/html", "text/plain"}
    assert "Slope 1. In JupyterLab this figure has controls" in output.data["text/html"]


def test_a_slider_moved_back_shows_what_was_drawn_before(shown, monkeypatch):
    import ipywidgets

    drawn, sliders = [], []

    def make_slider(make=ipywidgets.IntSlider, **options):
        sliders.append(make(**options))
        return sliders[-1]

    def draw(slope=1):
        drawn.append(slope)
        return lines(), f"Slope {slope}.", "Two lines."

    monkeypatch.setattr("frugal.lab.live.widgets.is_interactive", lambda: True)
    monkeypatch.setattr(ipywidgets, "IntSlider", make_slider)
    explore(draw, slope=(1, 3))
    for value in (2, 3, 2):
        sliders[0].value = value
    assert drawn == [1, 2, 3]
