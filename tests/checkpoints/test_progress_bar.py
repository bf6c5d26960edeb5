import io

from trainvitals.checkpoints.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal():
    lines = io.StringIO()
    with progress_bar(lines) as show:
        for done in range(1, 442):
            show("landscape", done, 441)
    assert len(lines.getvalue().splitlines()) == 11
    assert lines.getvalue().splitlines()[-1] == "landscape 441/441"


def test_few_points_are_told_one_by_one():
    lines = io.StringIO()
    with progress_bar(lines) as show:
        for done in range(1, 4):
            show("landscape", done, 3)
    assert lines.getvalue().splitlines() == ["landscape 1/3", "landscape 2/3", "landscape 3/3"]


def test_a_bar_on_a_terminal():
    screen = Terminal()
    with progress_bar(screen) as show:
        show("landscape", 1, 4)
        show("landscape", 4, 4)
    assert "landscape" in screen.getvalue()
    assert "4/4" in screen.getvalue()
