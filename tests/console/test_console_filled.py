"""Every page of the console on a database as years would leave it: the one of the bench, small."""

from bench.console import pages
from bench.filled import Sizes


def test_every_page_is_there_on_a_filled_database() -> None:
    shown = list(pages(Sizes(messages=6_000, patients=200, dead=40), rounds=1))
    assert [(page.what, page.wrong) for page in shown if page.wrong] == []
    assert len({page.what for page in shown}) > 20
