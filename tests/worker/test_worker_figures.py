"""A figure is drawn once and trimmed: what is shown are the pixels that `savefig` draws, and nothing is cut off."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from PIL import ImageChops

from tests.worker.worker_process import WorkerProcess

SETUP = """
import matplotlib, numpy as np, matplotlib.pyplot as plt
matplotlib.rcdefaults()
np.random.seed(0)
"""

REFERENCES = """
figure = plt.gcf()
figure.savefig('whole.png')
figure.savefig('tight.png', bbox_inches='tight')
plt.close('all')
"""

WITHIN = {
    "a line": "plt.plot([1, 2, 3])",
    "labels and title": "plt.plot([1, 2])\nplt.title('A title')\nplt.xlabel('$x^2$')\nplt.legend(['l'])",
    "subplots": "f, axes = plt.subplots(2, 3, figsize=(9, 5))\nfor a in axes.flat: a.plot([1, 2])\nf.suptitle('All')",
    "tight layout": "f, axes = plt.subplots(2, 2)\nfor a in axes.flat: a.set_xlabel('x')\nplt.tight_layout()",
    "an image": "plt.imshow(np.random.rand(20, 30))\nplt.colorbar()",
    "polar": "plt.figure(figsize=(6, 6))\nplt.polar([0, 1, 2], [1, 2, 3])",
    "three dimensions": "plt.figure().add_subplot(projection='3d').plot([1, 2], [3, 4], [5, 6])",
    "dots per inch": "plt.figure(dpi=133)\nplt.scatter([1, 2], [3, 4])",
    "a face colour": "plt.figure(facecolor='lightblue')\nplt.plot([1, 2])",
    "no face": "f, a = plt.subplots()\nf.patch.set_alpha(0)\na.plot([1, 2])",
    "half a face": "plt.figure(facecolor=(1, 0, 0, 0.5))\nplt.plot([1, 2])",
    "animated artists": "f, a = plt.subplots()\na.plot([1, 2], animated=True)",
    "no axes": "plt.figure().text(0.5, 0.5, 'alone')",
}

MARGIN_TO_THE_EDGE = {
    "constrained layout": "f, axes = plt.subplots(2, 2, layout='constrained')\nf.suptitle('All')",
    "close to the edge": "plt.figure().add_axes((0.1, 0.1, 0.88, 0.88)).plot([1, 2])",
}

IN_TWO_PASSES = {
    "a legend outside": "plt.plot([1, 2], label='l')\nplt.legend(bbox_to_anchor=(1.05, 1), loc='upper left')",
    "wholly outside": "plt.plot([1, 2])\nplt.gcf().text(1.2, 1.3, 'far away')",
    "a label cut off": "plt.figure(figsize=(3, 1))\nplt.plot([1, 2])\nplt.xlabel('x', labelpad=30)",
    "another colour when saved": "plt.rcParams['savefig.facecolor'] = 'green'\nplt.plot([1, 2])",
    "saved transparent": "plt.rcParams['savefig.transparent'] = True\nplt.plot([1, 2])",
}  # fmt: skip


@pytest.fixture(scope="module")
def plotting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkerProcess, Path]]:
    directory = tmp_path_factory.mktemp("figures")
    with WorkerProcess("matplotlib.pyplot", cwd=str(directory)) as process:
        yield process, directory


def drawn(plotting: tuple[WorkerProcess, Path], code: str) -> tuple[PIL.Image.Image, PIL.Image.Image, PIL.Image.Image]:
    """What is shown of the figure, and what matplotlib saves of the same: whole and tight."""
    process, directory = plotting
    run = process.run(SETUP + code + "\nNone")
    assert run.status == "ok", run.end
    (shown,) = run.shown
    saved = process.run(SETUP + code + REFERENCES)
    assert saved.status == "ok", saved.end
    with PIL.Image.open(directory / "whole.png") as whole, PIL.Image.open(directory / "tight.png") as tight:
        return rgba(shown.parts["image/png"]), whole.convert("RGBA"), tight.convert("RGBA")


def rgba(data: bytes) -> PIL.Image.Image:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return image.convert("RGBA")


def differing(one: PIL.Image.Image, other: PIL.Image.Image) -> tuple[int, int, int, int] | None:
    return ImageChops.difference(one, other).getbbox(alpha_only=False)


def content(image: PIL.Image.Image) -> tuple[int, int, int, int]:
    """The box of what differs from the first pixel, which is background."""
    box = differing(image, PIL.Image.new("RGBA", image.size, image.getpixel((0, 0))))
    assert box is not None
    return box


def assert_part_of(shown: PIL.Image.Image, whole: PIL.Image.Image) -> None:
    """Every pixel is the one of the whole figure, and all that is drawn there is here."""
    here, there = content(shown), content(whole)
    left, top = there[0] - here[0], there[1] - here[1]
    assert differing(shown, whole.crop((left, top, left + shown.width, top + shown.height))) is None
    assert (here[2] - here[0], here[3] - here[1]) == (there[2] - there[0], there[3] - there[1])


@pytest.mark.parametrize("code", WITHIN.values(), ids=WITHIN)
def test_a_figure_is_shown_with_the_pixels_of_savefig_and_the_size_of_the_tight_box(
    plotting: tuple[WorkerProcess, Path], code: str
) -> None:
    shown, whole, tight = drawn(plotting, code)
    assert_part_of(shown, whole)
    assert abs(shown.width - tight.width) <= 2  # whole pixels on both sides
    assert abs(shown.height - tight.height) <= 2


@pytest.mark.parametrize("code", MARGIN_TO_THE_EDGE.values(), ids=MARGIN_TO_THE_EDGE)
def test_a_margin_ends_at_the_edge_of_the_figure(plotting: tuple[WorkerProcess, Path], code: str) -> None:
    shown, whole, tight = drawn(plotting, code)
    assert_part_of(shown, whole)
    assert shown.width <= tight.width + 2
    assert shown.height <= tight.height + 2


@pytest.mark.parametrize("code", IN_TWO_PASSES.values(), ids=IN_TWO_PASSES)
def test_what_reaches_over_the_edge_is_shown_as_matplotlib_saves_it(
    plotting: tuple[WorkerProcess, Path], code: str
) -> None:
    shown, _, tight = drawn(plotting, code)
    assert differing(shown, tight) is None


def test_a_figure_keeps_its_canvas_its_size_and_its_resolution(plotting: tuple[WorkerProcess, Path]) -> None:
    process, _ = plotting
    seen = process.run(
        SETUP + "figure, axes = plt.subplots()\nbefore = figure.canvas\ndisplay(figure)\n"
        "figure.canvas is before, figure.dpi, tuple(map(float, figure.get_size_inches()))"
    )
    assert seen.result == "(True, 100.0, (6.4, 4.8))"


SLOW = (
    "import time\nimport matplotlib.pyplot as plt\n"
    "class Slow(plt.Figure):\n"
    "    def draw(self, renderer):\n        print('ready', flush=True)\n        time.sleep(1000)\n"
    "plt.figure(FigureClass=Slow).text(0, 0, 'x')\n"
)


@pytest.mark.parametrize("ending", ["None", "plt.show()", "plt.gcf()"], ids=["left open", "shown", "the result"])
def test_a_figure_whose_drawing_was_interrupted_is_not_drawn_again(
    plotting: tuple[WorkerProcess, Path], ending: str
) -> None:
    process, _ = plotting
    interrupted = process.interrupt_when(SLOW + ending)
    assert interrupted.error["name"] == "KeyboardInterrupt"
    assert interrupted.stdout.count(b"ready") == 1
    after = process.run("plt.get_fignums()")
    assert (after.result, after.stdout) == ("[]", b"")
