"""How figures look, and how they are shown with a caption and with words for those who cannot see them.

Importing this module sets the look. The data's colours can be read on light and on dark paper; only ink and paper
change with the reader's colour scheme, which the SVG itself follows wherever it is shown.

The palette is Okabe and Ito's, "Color Universal Design" (2008), with a grey of our own.
"""

import base64
import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from cycler import cycler
from matplotlib import style

from frugal.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A family has the same colour in every notebook. Draw baselines dashed as well.
COLOURS = {
    "foundation": "#777c85",
    "echo": "#0072b2",
    "memory": "#d55e00",
    "piecewise": "#009e73",
    "baseline": "#cc79a7",
}

# Light and dark, as in the style sheet of the reports. The light values are odd on purpose: in an SVG they mark
# what is to follow the colour scheme, and no data happens to have them.
INK = ("#1f2329", "#e4e7eb")
PAPER = ("#fefefe", "#15181c")
RULE = ("#d9dde3", "#353b44")

STYLE: dict[str, Any] = {
    "figure.figsize": (7.0, 4.0),
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER[0],
    "savefig.facecolor": PAPER[0],
    "axes.facecolor": PAPER[0],
    "text.color": INK[0],
    "axes.labelcolor": INK[0],
    "axes.titlecolor": INK[0],
    "axes.edgecolor": INK[0],
    "xtick.color": INK[0],
    "ytick.color": INK[0],
    "font.size": 12,  # 8.5 pixels on a phone 390 pixels wide
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE[0],
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "axes.prop_cycle": cycler(color=[*list(COLOURS.values())[1:], "#e69f00", "#56b4e9", "#777c85"]),
    "image.cmap": "viridis",
    "image.interpolation": "none",  # an SVG then holds the pixels as they are: small, and sharp at any size
    "svg.hashsalt": "frugal",  # the same figure gives the same bytes
}

SVG_AT_MOST = 150_000  # bytes; a figure with more in it is shown as PNG
PNG_RESOLUTION = 200  # dots per inch
THUMBNAIL_WIDTH = 400  # pixels


def use_style() -> None:
    """Set the look again, after something else has changed matplotlib's settings."""
    style.use(STYLE)


def show(figure: "Figure", caption: str, alt: str) -> None:
    """Show a figure once, with its caption, and close it.

    Args:
        figure: drawn with matplotlib; shown as SVG, or as PNG where the SVG would be large.
        caption: what to see in the figure, in a sentence or two; plain text.
        alt: the same for those who cannot see it: what is drawn, and what it shows.

    Raises:
        InputError: the caption or the alt text is empty.

    Example:
        >>> from matplotlib import pyplot
        >>> figure, axis = pyplot.subplots()
        >>> show(figure, caption="", alt="Empty axes.")
        Traceback (most recent call last):
        frugal.errors.InputError: caption='': a figure needs one; say in a sentence what there is to see
        >>> show(figure, caption="Nothing is drawn yet.", alt="Empty axes.")
        {'text/html': '<figure class="frugal-figure"...
    """
    from IPython.display import display

    data, metadata = figure_output(figure, caption, alt)
    display(data, metadata=metadata, raw=True)


def draw_differences(
    axis: "Axes", rows: Sequence[Mapping[str, Any]], names: Sequence[str], colours: Sequence[str]
) -> None:
    """A point with its interval for each row with "bits per byte", "low" and "high"; the first at the bottom.

    Example:
        >>> from matplotlib import pyplot
        >>> axis = pyplot.figure().subplots()
        >>> draw_differences(axis, [{"bits per byte": -0.1, "low": -0.2, "high": 0.0}], ["memory"], ["C0"])
        >>> [label.get_text() for label in axis.get_yticklabels()]
        ['memory']
    """
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        axis.plot([row["low"], row["high"]], [place, place], color=colour)
        axis.plot(row["bits per byte"], place, "o", color=colour)
    axis.set_yticks(range(len(rows)), names, fontsize=9)
    axis.axvline(0, color=COLOURS["foundation"], linewidth=1)
    axis.set_xlabel("difference in bits per byte")


def bars(values: Mapping[str, float], label: str, colours: Sequence[str]) -> "tuple[Figure, Axes]":
    """A figure of horizontal bars by name, the first at the top; `label` says what the values are.

    Example:
        >>> figure, axis = bars({"5-gram": 2.2, "transformer": 3.1}, "bits per byte", ["C0", "C1"])
        >>> [float(bar.get_width()) for bar in axis.patches]
        [2.2, 3.1]
    """
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 0.24 * len(values) + 1))
    axis.barh(list(values), list(values.values()), color=colours, height=0.7)
    axis.set_xlabel(label)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    return figure, axis


def draw_boxes(
    axis: "Axes", boxes: Mapping[str, tuple[str, float, float]], arrows: Sequence[tuple[str, str, str]], colour: str
) -> None:
    """A diagram: boxes by name, each a text and its centre, and arrows from one name to another with a label.

    Example:
        >>> from matplotlib import pyplot
        >>> axis = pyplot.figure().subplots()
        >>> draw_boxes(axis, {"a": ("text", 0.2, 0.5), "b": ("tokens", 0.8, 0.5)}, [("a", "b", "encode")], "C0")
        >>> [text.get_text() for text in axis.texts]
        ['text', 'tokens', '', 'encode']
    """
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    frame = {"boxstyle": "round", "facecolor": "none"}
    behind = {"facecolor": axis.get_facecolor(), "edgecolor": "none", "pad": 1}
    frames = {
        name: axis.text(x, y, text, fontsize=11, bbox=frame, **centred).get_bbox_patch()
        for name, (text, x, y) in boxes.items()
    }
    for start, end, label in arrows:
        (x, y), (u, v) = boxes[start][1:], boxes[end][1:]
        patches = {"patchA": frames[start], "patchB": frames[end], "shrinkA": 2, "shrinkB": 2}
        axis.annotate("", (u, v), (x, y), arrowprops={"arrowstyle": "->", "color": colour, **patches})
        axis.text((x + u) / 2, (y + v) / 2, label, fontsize=10, color=colour, bbox=behind, **centred)
    axis.axis("off")


def figure_output(figure: "Figure", caption: str, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Draw and close the figure: the data of a notebook output by MIME type, and its metadata with a thumbnail."""
    import matplotlib.pyplot as plt

    data = {"text/html": figure_html(figure, caption, alt), "text/plain": f"Figure: {caption}"}
    thumbnail = _thumbnail(figure)
    plt.close(figure)
    return data, {"frugal": {"thumbnail": thumbnail, "alt": alt}}


def figure_html(figure: "Figure", caption: str, alt: str) -> str:
    """Draw the figure as HTML, so that image, alt text and caption stay together wherever it is shown."""
    for name, text in (("caption", caption), ("alt", alt)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{name}={text!r}: a figure needs one; say in a sentence what there is to see")
    source, lacking = _image(figure)
    if lacking:
        caption += (
            f" No installed font has {lacking} of its characters, drawn as boxes: install one, such as Noto Sans CJK."
        )
    image = (
        f'<img src="{source}" alt="{html.escape(alt)}" '
        f'width="{figure.get_figwidth() * 96:.0f}" style="max-width: 100%; height: auto">'
    )
    return (
        f'<figure class="frugal-figure" style="margin: 0.5em 0">{image}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _image(figure: "Figure") -> tuple[str, int]:
    """The figure as a data URI, and how many different characters no installed font has."""
    svg, lacking = _saved(figure, "svg", metadata={"Date": None})
    if len(svg) <= SVG_AT_MOST:
        # Comments repeat each text as it is: a control character in one would make the file invalid.
        bare = re.sub(r"<!--.*?-->", "", svg.decode(), flags=re.DOTALL)
        return _data_uri("image/svg+xml", _in_both_colour_schemes(bare).encode()), lacking
    return _data_uri("image/png", _saved(figure, "png", dpi=PNG_RESOLUTION)[0]), lacking


def _thumbnail(figure: "Figure") -> str:
    from PIL import Image

    drawn = Image.open(io.BytesIO(_saved(figure, "png", dpi=THUMBNAIL_WIDTH / figure.get_figwidth())[0]))
    small = io.BytesIO()
    drawn.convert("RGB").quantize(64).save(small, "png", optimize=True)  # a palette takes a fifth of the room
    return _data_uri("image/png", small.getvalue())


def _saved(figure: "Figure", kind: str, **options: Any) -> tuple[bytes, int]:
    """The file, other installed fonts serving where the text's own lacks characters; and how many none has."""
    from matplotlib.text import Text

    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        figure.savefig(buffer, format=kind, **options)
    glyphs = [re.match(r"Glyph (\d+) .*missing", str(each.message)) for each in told]
    lacking = frozenset(int(glyph[1]) for glyph in glyphs if glyph and chr(int(glyph[1])).isprintable())
    if fonts := _fonts_with(lacking):
        for text in (part for part in figure.findobj() if isinstance(part, Text)):
            text.set_fontfamily([*text.get_fontfamily(), *fonts])
        return _saved(figure, kind, **options)
    for each, glyph in zip(told, glyphs, strict=True):
        if not glyph:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return buffer.getvalue(), len(lacking)


@cache
def _fonts_with(characters: frozenset[int]) -> list[str]:
    """Installed fonts that together have as many of the code points as there are fonts for."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    names: list[str] = []
    for font in fontManager.ttflist if characters else ():
        known = characters & FT2Font(font.fname).get_charmap().keys()
        if known and not font.name.startswith("Last Resort"):  # it has a box for each
            names.append(font.name)
            characters -= known
    return names


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _in_both_colour_schemes(svg: str) -> str:
    """Let ink, paper and grid follow the colour scheme of the page that shows the figure."""
    names = {"ink": INK, "paper": PAPER, "rule": RULE}
    light = "".join(f"--{name}:{colours[0]};" for name, colours in names.items())
    dark = "".join(f"--{name}:{colours[1]};" for name, colours in names.items())
    for name, colours in names.items():
        svg = svg.replace(colours[0], f"var(--{name})")
    sheet = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    return svg.replace("<defs>", f"{sheet}\n <defs>", 1)


use_style()
