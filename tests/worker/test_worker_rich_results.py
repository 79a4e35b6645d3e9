"""What a run shows: text that says what a value is, images that fit, each once and in order."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import PIL.Image
import pytest

from mcp_server.engine.turn import MAX_PARTS
from tests.worker.shown import image_size, only
from tests.worker.worker_process import WorkerProcess


def test_display_shows_each_object_as_it_comes(shared: WorkerProcess) -> None:
    run = shared.run("display(1, 'two')\ndisplay([3])\n4")
    assert [(shown.is_result, shown.text) for shown in run.shown] == [
        (False, "1"),
        (False, "'two'"),
        (False, "[3]"),
        (True, "4"),
    ]


def test_display_arrives_while_the_run_goes_on(shared: WorkerProcess) -> None:
    shared.start("import os\nr, w = os.pipe()\ndisplay('early')\nos.read(r, 1)")
    frame = shared.receive()
    assert frame.body == b"'early'"
    shared.process.send_signal(2)
    assert shared.finish().error["name"] == "KeyboardInterrupt"


def test_display_from_many_threads_gives_whole_frames(shared: WorkerProcess) -> None:
    run = shared.run(
        "import threading\n"
        "threads = [threading.Thread(target=lambda n=n: [display('t' * n) for _ in range(100)]) for n in range(8)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\nNone"
    )
    assert sorted(len(shown.text) for shown in run.shown) == sorted((n + 2) for n in range(8) for _ in range(100))


FORMS = {
    "html": ("_repr_html_", "'<b>x</b>'", "text/html", b"<b>x</b>"),
    "markdown": ("_repr_markdown_", "'# x'", "text/markdown", b"# x"),
    "svg": ("_repr_svg_", "'<svg/>'", "image/svg+xml", b"<svg/>"),
    "latex": ("_repr_latex_", "'$x$'", "text/latex", b"$x$"),
    "json": ("_repr_json_", "{'a': [1]}", "application/json", b'{"a": [1]}'),
    "html with metadata": ("_repr_html_", "('<b>x</b>', {})", "text/html", b"<b>x</b>"),
    "a bundle": ("_repr_mimebundle_", "{'text/html': 'h'}", "text/html", b"h"),
    "a bundle with metadata": ("_repr_mimebundle_", "({'text/html': 'h'}, {})", "text/html", b"h"),
    "a chart's own type": (
        "_repr_mimebundle_",
        "{'application/vnd.vegalite.v5+json': {'mark': 'bar'}}",
        "application/vnd.vegalite.v5+json",
        b'{"mark": "bar"}',
    ),
}


@pytest.mark.parametrize(("method", "value", "mime", "data"), FORMS.values(), ids=FORMS)
def test_a_form_that_the_value_gives_is_shown_beside_its_text(
    shared: WorkerProcess, method: str, value: str, mime: str, data: bytes
) -> None:
    shown = only(
        shared.run(
            f"class V:\n    def {method}(self, **options): return {value}\n    def __repr__(self): return 'v'\nV()"
        )
    )
    assert shown.parts == {"text/plain": b"v", mime: data}
    assert shown.is_result


def test_a_bundles_own_text_is_the_text(shared: WorkerProcess) -> None:
    code = "class V:\n    def _repr_mimebundle_(self, **o): return {'text/html': 'h', 'text/plain': 'own'}\nV()"
    assert only(shared.run(code)).parts == {"text/plain": b"own", "text/html": b"h"}


def test_a_ready_made_bundle_can_be_displayed(shared: WorkerProcess) -> None:
    shown = only(shared.run("display({'text/plain': 'p', 'text/html': 'h'}, raw=True)"))
    assert shown.parts == {"text/plain": b"p", "text/html": b"h"}


STRANGE = {
    "a class, not an instance": ("class V:\n    def _repr_html_(self): return 'h'\nV", "<class '__main__.V'>"),
    "an object that answers to everything": ("from unittest.mock import MagicMock\nMagicMock(name='m')", "<MagicMock"),
    "a form that raises": (
        "class V:\n    def _repr_html_(self): raise ValueError('no')\n    def __repr__(self): return 'v'\nV()",
        "v\n[_repr_html_ failed: ValueError: no]",
    ),
    "a form that is None": ("class V:\n    def _repr_html_(self): pass\n    def __repr__(self): return 'v'\nV()", "v"),
    "a bundle that is None": (
        "class V:\n    def _repr_mimebundle_(self, **o): pass\n    def __repr__(self): return 'v'\nV()",
        "v",
    ),
    "a bundle of strange types": (
        "class V:\n"
        "    def _repr_mimebundle_(self, **o): return {5: 'x', 'é/x': 'y', 'noslash': 'z', 'x' * 999 + '/y': ''}\n"
        "    def __repr__(self): return 'v'\nV()",
        "v",
    ),
    "json that cannot be": (
        "class V:\n    def _repr_json_(self): return {1, 2}\n    def __repr__(self): return 'v'\nV()",
        "v\n[application/json left out: it cannot be encoded]",
    ),
    "an image that is none": (
        "class V:\n    def _repr_png_(self): return 'no base64!'\n    def __repr__(self): return 'v'\nV()",
        "v\n[image/png left out: it cannot be encoded]",
    ),
    "an image of no known kind": (
        "class V:\n    def _repr_png_(self): return b'GIF89a'\n    def __repr__(self): return 'v'\nV()",
        "v\n[image/png left out: ValueError: neither PNG nor JPEG]",
    ),
    "html of ten megabytes": (
        "class V:\n    def _repr_html_(self): return 'h' * 10_000_000\n    def __repr__(self): return 'v'\nV()",
        "v\n[text/html of 10,000,000 bytes left out: too large]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "text"), STRANGE.values(), ids=STRANGE)
def test_a_strange_value_is_shown_as_text_and_says_what_failed(shared: WorkerProcess, code: str, text: str) -> None:
    shown = only(shared.run(code))
    assert shown.text.startswith(text)
    assert shown.order == ["text/plain"]


@pytest.mark.parametrize("count", [200, 10**6, None], ids=["many", "a million", "without end"])
def test_of_many_forms_as_many_are_shown_as_the_host_takes(shared: WorkerProcess, count: int | None) -> None:
    entries = f"(('text/x%d' % n, 'x') for n in {'itertools.count()' if count is None else f'range({count})'})"
    shown = only(
        shared.run(
            "import itertools\n"
            f"class Many(dict):\n    def items(self): return {entries}\n"
            "class V:\n    def _repr_mimebundle_(self, **o): return Many(a=1)\n    def __repr__(self): return 'v'\nV()"
        )
    )
    assert shown.text == "v\n[of this value's forms only 50 are looked at]"
    assert len(shown.order) == 51 <= MAX_PARTS


def test_forms_that_are_too_large_together_are_left_out_from_the_end(shared: WorkerProcess) -> None:
    shown = only(
        shared.run(
            "class V:\n"
            "    def _repr_mimebundle_(self, **o): return {f'text/{n}': 'x' * 7_000_000 for n in range(6)}\n"
            "    def __repr__(self): return 'v'\nV()"
        )
    )
    assert shown.order == ["text/plain", "text/0", "text/1", "text/2", "text/3"]
    assert shown.text.count("of 7,000,000 bytes left out: too large]") == 2


def test_the_name_of_a_values_class_is_bounded_where_it_describes_a_form(shared: WorkerProcess) -> None:
    shown = only(shared.run("type('N' * 20_000_000, (), {'_repr_html_': lambda v: 'h', '__repr__': lambda v: 'v'})()"))
    assert shown.parts["text/html"] == b"h"
    assert len(shown.alts["text/html"]) < 200


TABLES: dict[str, tuple[str, list[str], list[str]]] = {
    "a small frame": (
        "pd.DataFrame({'a': [1, 2], 'b': [1.5, 2.5]})",
        ["DataFrame: 2 rows × 2 columns, ", "dtypes: a int64, b float64", "   a    b", "0  1  1.5", "1  2  2.5"],
        ["…"],
    ),
    "a long frame": (
        "pd.DataFrame({'n': range(100_000)})",
        ["100,000 rows × 1 column", "800.1 KB", "… 99,970 more rows …", "99999  99999"],
        ["..."],
    ),
    "a wide frame": (
        "pd.DataFrame(np.zeros((5, 3000)))",
        ["5 rows × 3,000 columns", "all float64", "columns shown: the first 14 and the last 6 of 3,000", "2999"],
        ["..."],
    ),
    "a frame of long texts": ("pd.DataFrame({'t': ['x' * 10_000] * 50})", ["50 rows"], ["x" * 100]),
    "a frame of objects": ("pd.DataFrame({'o': [object()] * 2, 'p': [1, 2]})", ["more than", "o object"], []),
    "an empty frame": ("pd.DataFrame()", ["0 rows × 0 columns"], []),
    "a frame with doubled names": ("pd.DataFrame([[1, 2]], columns=['a', 'a'])", ["1 row × 2 columns"], []),
    "a frame with a deep index": (
        "pd.DataFrame({'v': range(4)}, index=pd.MultiIndex.from_product([['a', 'b'], [1, 2]]))",
        ["4 rows", "a 1  0", "b 1  2"],
        [],
    ),
    "a series": ("pd.Series([1, 2], name='s')", ["Series s: 2 values, int64", "0    1"], ["Name:", "dtype:"]),
    "a long series": ("pd.Series(range(1000))", ["1,000 values", "… 970 more rows …", "999    999"], ["..."]),
    "a long array": (
        "np.arange(1e6)",
        ["ndarray: shape 1,000,000, float64, 8.0 MB", "[ 0.  1.  2.", "… 999,960 more values …", "999999.]"],
        ["..."],
    ),
    "a matrix": (
        "np.arange(10_000).reshape(100, 100)",
        ["shape 100 × 100, int64, 80.0 KB", "the first 8 and the last 4 of 100", "… 88 more rows …", "9999]]"],
        ["..."],
    ),
    "an array of five dimensions": ("np.zeros((3, 3, 3, 30, 3))", ["[0, 0, 0]:", "[-1, -1, -1]:"], ["..."]),
    "an array of sixty dimensions": ("np.zeros((2,) * 12 + (1,) * 20)", ["shape 2 × 2"], []),
    "a small array": ("np.array([1, 2])", ["array([1, 2])"], ["shape"]),
    "an empty array": ("np.zeros((0, 5))", ["array([], shape=(0, 5), dtype=float64)"], []),
    "an array of objects that raise": (
        "class R:\n    def __repr__(self): raise ValueError\nnp.array([R()] * 100, dtype=object)",
        ["<ndarray object whose repr raised ValueError>"],
        [],
    ),
    "a number of numpy": ("np.float64(1.5)", ["1.5"], ["shape"]),
}  # fmt: skip


@pytest.mark.parametrize(("code", "present", "absent"), TABLES.values(), ids=TABLES)
def test_a_table_says_what_it_is_and_shows_head_and_tail(
    plotting: WorkerProcess, code: str, present: list[str], absent: list[str]
) -> None:
    shown = only(plotting.run(code))
    assert shown.order == ["text/plain"]
    for text in present:
        assert text in shown.text
    for text in absent:
        assert text not in shown.text
    assert len(shown.text) < 8000


WISHES = {
    "few rows": ("display.max_rows', 5", "rows", ["0    0", "… 95 more rows …", "99  99"], 7),
    "all rows": ("display.max_rows', None", "rows", ["50  50"], 101),
    "more rows than are made": ("display.max_rows', None", "pd.concat([rows] * 50)", ["… 3,000 more rows …"], 2002),
    "few columns": ("display.max_columns', 3", "columns", ["columns shown: the first 2 and the last 1 of 60"], 3),
    "all columns": ("display.max_columns', None", "columns", ["  30  31  "], 2),
    "columns that are too many": ("display.max_columns', None", "pd.concat([columns] * 90, axis=1)", ["of 5,400"], 3),
    "few values": ("display.max_rows', 5", "rows.a", ["… 95 more rows …"], 6),
    "all values": ("display.max_rows', 200", "rows.a", ["50    50"], 100),
}


@pytest.mark.parametrize(("option", "code", "present", "lines"), WISHES.values(), ids=WISHES)
def test_options_of_pandas_say_how_much_of_a_table_is_shown(
    plotting: WorkerProcess, option: str, code: str, present: list[str], lines: int
) -> None:
    plotting.run("rows = pd.DataFrame({'a': range(100)})\ncolumns = pd.DataFrame([range(60)])")
    text = only(plotting.run(f"with pd.option_context('{option}): display({code})")).text
    for part in present:
        assert part in text
    table = [line for line in text.split("\n") if not line.startswith(("DataFrame", "Series", "dtypes"))]
    assert len(table) == lines


def png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


IMAGES: dict[str, tuple[str, str, str, int]] = {
    "an image": ("Image.new('RGB', (30, 20))", "image/png", "image 30×20 RGB", 0),
    "a large image": (
        "Image.new('RGB', (4000, 1000))",
        "image/png",
        "image 4000×1000, scaled to 1568×392 RGB",
        12_000_000,
    ),
    "a large noise": (
        "Image.fromarray(np.random.randint(0, 255, (1500, 1500, 3), dtype='uint8'))",
        "image/jpeg",
        "image 1500×1500, scaled to 750×750 RGB",
        6_750_000,
    ),
    "a large noise with transparency": (
        "Image.fromarray(np.random.randint(0, 255, (1500, 1500, 4), dtype='uint8'))",
        "image/jpeg",
        "image 1500×1500, scaled to 750×750 RGBA",
        9_000_000,
    ),
    "black and white": ("Image.new('1', (9, 9))", "image/png", "image 9×9 1", 0),
    "a print's colours": ("Image.new('CMYK', (9, 9))", "image/png", "image 9×9 CMYK", 0),
    "floats": ("Image.new('F', (9, 9))", "image/png", "image 9×9 F", 0),
    "a palette": ("Image.new('P', (9, 9))", "image/png", "image 9×9 P", 0),
}  # fmt: skip


@pytest.mark.parametrize(("code", "mime", "alt", "original"), IMAGES.values(), ids=IMAGES)
def test_an_image_is_shown_and_made_to_fit(
    plotting: WorkerProcess, code: str, mime: str, alt: str, original: int
) -> None:
    shown = only(plotting.run(code))
    kept = ["image/png; role=original"] if original else []
    assert shown.order == ["text/plain", mime, *kept]
    assert (shown.alts[mime], shown.originals[mime]) == (alt, original)
    assert len(shown.parts[mime]) <= 700_000
    assert max(image_size(shown.parts[mime])) <= 1568


@pytest.mark.parametrize("kind", ["bytes", "base64"])
def test_a_values_own_png_is_passed_or_scaled(plotting: WorkerProcess, kind: str) -> None:
    for width, size in ((30, (30, 20)), (3136, (1568, 10))):
        data: Any = png(width, 20)
        source = f"__import__('base64').b64decode({data!r})" if kind == "bytes" else repr(data)
        shown = only(plotting.run(f"class V:\n    def _repr_png_(self): return {source}\nV()"))
        assert image_size(shown.parts["image/png"]) == size
        assert shown.originals["image/png"] == (0 if width == 30 else len(base64.b64decode(data)))
        assert shown.alts["image/png"].startswith(f"V {width}×20")


def test_without_pillow_what_does_not_fit_is_left_out_and_said(worker: WorkerProcess) -> None:
    worker.run(
        "import sys, struct\nsys.modules['PIL'] = sys.modules['PIL.Image'] = None\n"
        "class V:\n    def __init__(self, size): self.size = size\n"
        "    def _repr_png_(self):\n"
        "        return b'\\x89PNG\\r\\n\\x1a\\n....IHDR' + struct.pack('>II', 9999, 9) + b'x' * self.size\n"
        "    def __repr__(self): return 'v'"
    )
    small = only(worker.run("V(1000)"))
    assert (small.text, small.order) == ("v\n[V 9999×9]", ["text/plain", "image/png"])
    large = only(worker.run("V(2_000_000)"))
    assert (large.text, large.order) == ("v\n[V 9999×9 (too large to show)]", ["text/plain"])


def test_huge_results_are_bounded(shared: WorkerProcess) -> None:
    for code in ("list(range(10 ** 7))", "'x' * 10 ** 8", "{n: str(n) for n in range(10 ** 5)}", "b'y' * 10 ** 8"):
        shown = only(shared.run(code))
        assert len(shown.text) < 100_000
        assert "more …" in shown.text or "left out …" in shown.text


def test_a_small_run_never_imports_what_it_does_not_use(shared: WorkerProcess) -> None:
    with WorkerProcess() as fresh:
        fresh.run("[1]")
        fresh.run("display('x')")
        heavy = ["numpy", "pandas", "matplotlib", "PIL", "asyncio", "ctypes"]
        if sys.version_info < (3, 14):  # from there on it is told beforehand how to make children
            heavy.append("multiprocessing")
        assert fresh.run(f"import sys; [name for name in {heavy} if name in sys.modules]").result == "[]"
