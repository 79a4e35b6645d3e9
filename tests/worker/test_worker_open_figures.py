"""Figures that code leaves open, shows or gives: each is shown once, in order, in a size that fits."""

from __future__ import annotations

import pytest

from tests.worker.shown import image_size, only
from tests.worker.worker_process import WorkerProcess


def test_figures_left_open_are_shown_once_in_order_and_closed(plotting: WorkerProcess) -> None:
    run = plotting.run("for n in range(3):\n    plt.figure(figsize=(n + 1, 2), dpi=100)\n    plt.title(f'number {n}')")
    assert [shown.alts["image/png"] for shown in run.shown] == [
        f"figure {n + 1}00×200: number {n}" for n in range(3)
    ]  # fmt: skip
    assert all(shown.parts["image/png"].startswith(b"\x89PNG") for shown in run.shown)
    assert plotting.run("plt.get_fignums()").result == "[]"
    assert plotting.run("1").shown[0].order == ["text/plain"]


def test_show_shows_at_once_and_nothing_is_left_for_the_end(plotting: WorkerProcess) -> None:
    plotting.start("import os\nr, w = os.pipe()\nplt.plot([1, 2])\nplt.show()\nplt.get_fignums()")
    frame = plotting.receive()
    assert [part["mime"] for part in frame.header["parts"]] == ["text/plain", "image/png"]
    run = plotting.finish()
    assert [shown.text for shown in run.shown] == ["[]"]
    assert run.stderr == b""


def test_show_works_where_the_run_itself_imports_pyplot(worker: WorkerProcess) -> None:
    run = worker.run(
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1])\nplt.show()\nprint('after')"
    )
    assert len(run.shown) == 1
    assert b"Traceback" not in run.stderr  # matplotlib itself may say where it keeps its cache
    assert worker.run("fig.show()").shown[0].order == ["text/plain", "image/png"]
    assert worker.run("type(plt.__loader__).__name__, type(plt.__spec__.loader).__name__").result == (
        "('SourceFileLoader', 'SourceFileLoader')"
    )


def test_a_figure_as_the_result_is_shown_once(plotting: WorkerProcess) -> None:
    shown = only(plotting.run("fig, ax = plt.subplots()\nax.plot([1])\nfig"))
    assert shown.is_result
    assert shown.text == "figure 640×480"
    assert only(plotting.run("fig, ax = plt.subplots()\ndisplay(fig)")).is_result is False


def test_a_figure_with_nothing_on_it_is_closed_and_only_shown_where_it_is_asked_for(plotting: WorkerProcess) -> None:
    run = plotting.run("plt.figure()\npd.DataFrame({'a': [1, 2]}).plot()\nNone")
    assert [shown.order for shown in run.shown] == [["text/plain", "image/png"]]
    assert plotting.run("plt.figure()\nplt.show()\nplt.get_fignums()").result == "[]"
    for code in ("plt.figure(figsize=(2, 1))", "display(plt.figure(figsize=(2, 1)))"):
        assert only(plotting.run(code)).text == "figure 200×100 with nothing on it"


def test_a_warning_of_any_kind_is_said_as_it_is(plotting: WorkerProcess) -> None:
    run = plotting.run(
        "import warnings, matplotlib.text\n"
        "class Odd(UserWarning):\n    def __init__(self, *, what): super().__init__(what)\n"
        "class T(matplotlib.text.Text):\n    def draw(self, renderer): warnings.warn(Odd(what='odd'))\n"
        "_ = plt.figure().add_artist(T(0, 0, 'x'))"
    )
    assert b"Odd: odd" in run.stderr
    assert len(run.shown) == 1


def test_what_the_drawing_warns_of_is_said_once_for_each_figure(plotting: WorkerProcess) -> None:
    code = "plt.figtext(0, 0, '{0}')\nplt.figtext(0, 1, '{0}')\nNone".format("\N{CJK UNIFIED IDEOGRAPH-65E5}")
    for _ in range(2):
        run = plotting.run(code)
        assert run.stderr.count(b"UserWarning: Glyph 26085") == 1
        assert run.stderr.startswith(b"<figure>:1: ")
        assert len(run.shown) == 1
    quiet = plotting.run(f"import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n"
                         f"    {code.splitlines()[0]}\n    plt.show()")  # fmt: skip
    assert quiet.stderr == b""


ARTISTS = {
    "a list of lines": "plt.plot([1, 2])",
    "axes": "plt.gca()",
    "a tuple of a figure and an array": "plt.subplots(2, 2)",
    "an array": "pd.DataFrame({'a': [1, 2], 'b': [3, 4]}).hist()",
    "a container": "plt.bar([1, 2], [3, 4])",
    "a text": "plt.title('t')",
}


@pytest.mark.parametrize("code", ARTISTS.values(), ids=ARTISTS)
def test_what_a_figure_is_made_of_is_no_result_beside_it(plotting: WorkerProcess, code: str) -> None:
    assert only(plotting.run(code)).order == ["text/plain", "image/png"]


NO_ARTISTS = {
    "a list with more": "plt.plot([1]) + [2]",
    "an empty list": "plt.plot([1])\n[]",
    "an array of numbers": "plt.plot([1])\nnp.arange(3)",
    "an array without a length": "plt.plot([1])\nnp.array(5)",
    "lists that hold themselves": "plt.plot([1])\nx = []; x.append(x); x",
    "a list that lies": "class L(list):\n  def __iter__(self): 1/0\n  def __len__(self): 1/0\nplt.plot([1])\nL([3])",
}


@pytest.mark.parametrize("code", NO_ARTISTS.values(), ids=NO_ARTISTS)
def test_every_other_result_is_shown_beside_a_figure(plotting: WorkerProcess, code: str) -> None:
    run = plotting.run(code)
    assert run.status == "ok", run.end
    assert [shown.is_result for shown in run.shown] == [True, False]


def test_artists_are_a_result_where_no_figure_is_shown(plotting: WorkerProcess) -> None:
    assert "Line2D" in only(plotting.run("[plt.Line2D([0], [0])]")).text


def test_figures_of_a_failing_run_are_shown(plotting: WorkerProcess) -> None:
    run = plotting.run("plt.plot([1])\n1/0")
    assert run.error["name"] == "ZeroDivisionError"
    assert len(run.shown) == 1


def test_a_figure_that_cannot_be_drawn_says_why_and_the_run_is_well(plotting: WorkerProcess) -> None:
    shown = only(plotting.run("plt.title('$\\\\frac{$')\nNone"))
    assert shown.order == ["text/plain"]
    assert shown.text.startswith("figure that cannot be drawn: ValueError: ")


def test_ten_images_are_shown_and_the_rest_is_counted(plotting: WorkerProcess) -> None:
    run = plotting.run("for _ in range(13): plt.figure(figsize=(1, 1)).text(0, 0, 'x')")
    assert [len(shown.order) for shown in run.shown] == [2] * 10 + [1]
    assert run.shown[-1].text == "3 more figures, not shown: a run shows at most 10 images"
    run = plotting.run("for _ in range(12): display(Image.new('L', (2, 2)))")
    assert [len(shown.order) for shown in run.shown] == [2] * 10 + [1] * 2
    assert run.shown[-1].text == "image 2×2 L (not shown: a run shows at most 10 images)"


FIGURES = {
    "too wide": ("plt.figure(figsize=(40, 5), dpi=100).add_axes((0, 0, 1, 1))", "figure 4000×500, scaled to"),
    "absurd": (
        "plt.figure(figsize=(500, 500), dpi=200).add_axes((0, 0, 1, 1)).set_axis_off()",
        "figure 100000×100000, scaled to",
    ),
    "noise": (
        "plt.figure(figsize=(14, 14), dpi=100)\nplt.imshow(np.random.rand(1400, 1400, 3), interpolation='nearest')",
        "figure 1400×1400, scaled to",
    ),
}


@pytest.mark.parametrize(("code", "alt"), FIGURES.values(), ids=FIGURES)
def test_a_figure_that_is_too_large_is_drawn_smaller(plotting: WorkerProcess, code: str, alt: str) -> None:
    shown = only(plotting.run(code + "\nNone"))
    assert shown.alts["image/png"].startswith(alt)
    assert len(shown.parts["image/png"]) <= 700_000
    assert max(image_size(shown.parts["image/png"])) <= 1568
